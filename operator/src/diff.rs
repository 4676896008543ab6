//! Whether a live object still is what was rendered: every field that is rendered is there with
//! the same value. Pure; fields that others own are not looked at.

use serde_json::Value;

/// The path of the first rendered field that the live object lacks or has otherwise; `None`: there
/// is nothing to write.
pub fn first_difference(rendered: &Value, live: &Value) -> Option<String> {
    let (Value::Object(rendered), Value::Object(live)) = (rendered, live) else {
        return (rendered != live).then(String::new);
    };
    // Objects from a list do not say what they are.
    // The specification first: of several differences it is the one worth logging.
    rendered.iter().rev().filter(|(key, _)| *key != "apiVersion" && *key != "kind").find_map(
        |(key, value)| {
            let live = live.get(key).unwrap_or(&Value::Null);
            difference(value, live, false).map(|path| format!("{key}{path}"))
        },
    )
}

/// The key by which the API server merges this list, if it does: others may add items to it.
fn merge_key(items: &[Value]) -> Option<&'static str> {
    ["uid", "mountPath", "name"]
        .into_iter()
        .find(|key| !items.is_empty() && items.iter().all(|item| item[key].is_string()))
}

/// `amounts`: below a map of quantities, which the API server writes in its own canonical way.
fn difference(rendered: &Value, live: &Value, amounts: bool) -> Option<String> {
    if is_empty(rendered) && is_empty(live) {
        return None;
    }
    match (rendered, live) {
        (Value::Object(rendered), Value::Object(live)) => {
            rendered.iter().find_map(|(key, value)| {
                // One label more selects less, even nothing: a selector is ours as a whole.
                let extra = live.get(key).filter(|live| key == "selector" && is_more(live, value));
                if extra.is_some() {
                    return Some(format!(".{key}"));
                }
                let amounts = amounts || matches!(key.as_str(), "limits" | "requests");
                difference(value, live.get(key).unwrap_or(&Value::Null), amounts)
                    .map(|path| format!(".{key}{path}"))
            })
        }
        (Value::Array(rendered), Value::Array(live)) if merge_key(rendered).is_some() => {
            let key = merge_key(rendered)?;
            rendered.iter().enumerate().find_map(|(index, item)| {
                let live = live.iter().find(|live| live[key] == item[key]);
                difference(item, live.unwrap_or(&Value::Null), false)
                    .map(|path| format!("[{index}]{path}"))
            })
        }
        (Value::Array(rendered), Value::Array(live)) if rendered.len() == live.len() => {
            rendered.iter().zip(live).enumerate().find_map(|(index, (rendered, live))| {
                difference(rendered, live, false).map(|path| format!("[{index}]{path}"))
            })
        }
        _ if rendered == live => None,
        _ if amounts && same_quantity(rendered, live) => None,
        _ => Some(String::new()),
    }
}

/// Whether a map has keys that the rendered one has not.
fn is_more(live: &Value, rendered: &Value) -> bool {
    match (live, rendered) {
        (Value::Object(live), Value::Object(rendered)) => {
            live.keys().any(|key| !rendered.contains_key(key))
        }
        _ => false,
    }
}

/// What the API server leaves out when it is stored: null, nothing, false, zero.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(value) => value.as_f64() == Some(0.0),
        Value::String(value) => value.is_empty(),
        Value::Array(value) => value.is_empty(),
        Value::Object(value) => value.values().all(is_empty),
    }
}

fn same_quantity(rendered: &Value, live: &Value) -> bool {
    let amount = |value: &Value| match value {
        Value::String(text) => quantity(text),
        Value::Number(number) => number.as_f64(),
        _ => None,
    };
    match (amount(rendered), amount(live)) {
        (Some(rendered), Some(live)) => {
            (rendered - live).abs() <= f64::EPSILON * rendered.abs().max(live.abs())
        }
        _ => false,
    }
}

/// The value of a Kubernetes quantity such as `500m`, `32Mi`, `1e3`.
pub fn quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 14] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| Some((text.strip_suffix(suffix)?, *factor)))
        .unwrap_or((text, 1.0));
    let number: f64 = number.parse().ok()?;
    number.is_finite().then_some(number * factor)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_selector_with_a_key_more_is_a_difference() {
        let rendered = json!({ "spec": { "selector": { "a": "1" } } });
        let live = json!({ "spec": { "selector": { "a": "1", "b": "2" } } });
        assert_eq!(first_difference(&rendered, &live).as_deref(), Some("spec.selector"));
        assert_eq!(first_difference(&rendered, &rendered), None);
    }

    #[test]
    fn what_the_server_adds_is_no_difference() {
        let rendered = json!({ "spec": {
            "ports": [{ "port": 80, "name": "http" }], "start": 0, "env": [], "labels": {},
        } });
        let live = json!({ "spec": {
            "ports": [{ "port": 80, "name": "http", "nodePort": 30000 }], "clusterIP": "10.0.0.1",
        }, "status": {} });
        assert_eq!(first_difference(&rendered, &live), None);
    }

    #[test]
    fn a_changed_a_missing_and_an_additional_item_are_differences() {
        let rendered = json!({ "spec": { "ports": [{ "port": 80 }], "replicas": 3 } });
        let at = |live| first_difference(&rendered, &live).unwrap();
        assert_eq!(
            at(json!({ "spec": { "ports": [{ "port": 81 }], "replicas": 3 } })),
            "spec.ports[0].port"
        );
        assert_eq!(at(json!({ "spec": { "ports": [{ "port": 80 }] } })), "spec.replicas");
        assert_eq!(
            at(json!({ "spec": { "ports": [{ "port": 80 }, {}], "replicas": 3 } })),
            "spec.ports"
        );
        assert_eq!(at(json!({})), "spec");
    }

    #[test]
    fn others_may_add_to_lists_that_are_merged_by_a_key() {
        let rendered = json!({ "env": [{ "name": "A", "value": "1" }, { "name": "B" }] });
        let live =
            json!({ "env": [{ "name": "X" }, { "name": "B" }, { "name": "A", "value": "1" }] });
        assert_eq!(first_difference(&rendered, &live), None);
        let changed = json!({ "env": [{ "name": "A", "value": "2" }, { "name": "B" }] });
        assert_eq!(first_difference(&rendered, &changed).unwrap(), "env[0].value");
        assert!(first_difference(&rendered, &json!({ "env": [{ "name": "B" }] })).is_some());
    }

    #[test]
    fn quantities_are_compared_by_value_but_only_where_they_are_quantities() {
        let limits = |cpu: &str, memory: &str| json!({ "resources": { "limits": { "cpu": cpu, "memory": memory } } });
        assert_eq!(first_difference(&limits("0.5", "1024Mi"), &limits("500m", "1Gi")), None);
        assert!(first_difference(&limits("0.5", "1Gi"), &limits("0.6", "1Gi")).is_some());
        assert!(first_difference(&json!({ "value": "1.0" }), &json!({ "value": "1" })).is_some());
    }
}
