//! What others put into the StatefulSet's pod template beside what the operator rendered: an edit by
//! hand, a controller that injects. An apply leaves such fields alone, and the pods would be rolled
//! to a template that nobody asked for. Pure: it finds them, and says how the template is put right.
//!
//! The template is the operator's as a whole, but for the annotation by which `kubectl rollout
//! restart` asks for a rollout.

use serde_json::{Map, Value, json};
use sluice_crds::names;

/// Written by `kubectl rollout restart`.
pub const RESTARTED_AT: &str = "kubectl.kubernetes.io/restartedAt";

/// The path of the first field of the live StatefulSet's pod template that somebody else owns and
/// that is not in `template`, the one that was rendered.
pub fn addition(template: &Value, live: &Value) -> Option<String> {
    theirs(live).find_map(|entry| {
        let owned = &entry["fieldsV1"]["f:spec"]["f:template"];
        beside(owned, Some(template), "template")
    })
}

/// A JSON patch that makes the live pod template what was rendered, and nobody else's.
pub fn patch(template: &Value, live: &Value) -> Value {
    let mut template = template.clone();
    let restarted = &live["spec"]["template"]["metadata"]["annotations"][RESTARTED_AT];
    if restarted.is_string() {
        template["metadata"]["annotations"][RESTARTED_AT] = restarted.clone();
    }
    let entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    let managed: Vec<Value> = entries
        .filter_map(|entry| match is_theirs(entry) {
            true => without_template(entry),
            false => Some(entry.clone()),
        })
        .collect();
    json!([
        {
            "op": "replace", "path": "/metadata/resourceVersion",
            "value": live["metadata"]["resourceVersion"],
        },
        { "op": "replace", "path": "/metadata/managedFields", "value": managed },
        { "op": "replace", "path": "/spec/template", "value": template },
    ])
}

/// What an entry says besides the pod template, and of a restart that it asks for; `None`: nothing.
/// A field that owns nothing below it must go too: left empty, it would stand for the whole of it.
fn without_template(entry: &Value) -> Option<Value> {
    let mut entry = entry.clone();
    let fields = entry["fieldsV1"].as_object_mut()?;
    let spec = fields.get_mut("f:spec")?.as_object_mut()?;
    let template = spec.remove("f:template")?;
    let key = format!("f:{RESTARTED_AT}");
    if let Some(asked) = template["f:metadata"]["f:annotations"].get(&key) {
        let asked = json!({ "f:metadata": { "f:annotations": { key: asked } } });
        spec.insert("f:template".into(), asked);
    }
    if spec.is_empty() {
        fields.remove("f:spec");
    }
    (!fields.is_empty()).then_some(entry)
}

/// The entries of those who own a part of the pod template and are not the operator: it owns what it
/// applied, and the defaults that the API server filled in where it took something out.
fn theirs(live: &Value) -> impl Iterator<Item = &Value> {
    let entries = live["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.filter(|entry| is_theirs(entry))
}

fn is_theirs(entry: &Value) -> bool {
    let ours = entry["manager"] == names::FIELD_MANAGER;
    let of_status = entry["subresource"].as_str().is_some_and(|part| !part.is_empty());
    !ours && !of_status && entry["fieldsV1"]["f:spec"]["f:template"].is_object()
}

/// The first path in `owned`, a set of fields as the API server writes it, that is not in
/// `rendered`.
fn beside(owned: &Value, rendered: Option<&Value>, path: &str) -> Option<String> {
    let Some(rendered) = rendered else { return Some(path.to_owned()) };
    owned.as_object().into_iter().flatten().find_map(|(key, below)| {
        if key == "." {
            return None;
        }
        let (kind, name) = key.split_once(':')?;
        if name == RESTARTED_AT {
            return None;
        }
        let path = format!("{path}.{name}");
        let there = match kind {
            "f" => rendered.get(name),
            "k" => {
                let keys: Value = serde_json::from_str(name).ok()?;
                let is = |item: &&Value| keys.as_object().is_some_and(|keys| holds(item, keys));
                rendered.as_array().and_then(|items| items.iter().find(is))
            }
            "v" => {
                let value: Value = serde_json::from_str(name).ok()?;
                rendered.as_array().and_then(|items| items.iter().find(|item| **item == value))
            }
            // By its place in a list that has no keys: such a list has one owner as a whole.
            _ => return None,
        };
        beside(below, there, &path)
    })
}

/// Whether an item of a list has these keys; a key that was left out has its default.
fn holds(item: &Value, keys: &Map<String, Value>) -> bool {
    keys.iter().all(|(key, value)| item.get(key).is_none_or(|own| own == value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered() -> Value {
        json!({
            "metadata": { "annotations": { "a": "1" } },
            "spec": { "containers": [{
                "name": "node", "image": "i", "env": [{ "name": "X", "value": "1" }],
                "ports": [{ "containerPort": 4000, "protocol": "TCP" }],
            }] },
        })
    }

    fn live(manager: &str, operation: &str, owned: Value) -> Value {
        json!({
            "metadata": {
                "uid": "u", "resourceVersion": "7",
                "managedFields": [{
                    "manager": manager, "operation": operation,
                    "fieldsV1": { "f:metadata": { "f:labels": {} }, "f:spec": { "f:template": owned } },
                }],
            },
            "spec": { "template": { "metadata": { "annotations": { RESTARTED_AT: "now" } } } },
        })
    }

    fn container(fields: Value) -> Value {
        json!({ "f:spec": { "f:containers": { "k:{\"name\":\"node\"}": fields } } })
    }

    fn found(owned: Value) -> Option<String> {
        addition(&rendered(), &live("kubectl-edit", "Update", owned))
    }

    #[test]
    fn what_was_not_rendered_is_found() {
        let env =
            container(json!({ "f:env": { "k:{\"name\":\"Y\"}": { ".": {}, "f:name": {} } } }));
        let path = found(env).unwrap();
        assert!(path.ends_with(".env.{\"name\":\"Y\"}"), "{path}");
        assert!(found(container(json!({ "f:stdin": {} }))).unwrap().ends_with(".stdin"));
        let other =
            json!({ "f:spec": { "f:containers": { "k:{\"name\":\"sidecar\"}": { ".": {} } } } });
        assert!(found(other).unwrap().contains("sidecar"));
        let note = json!({ "f:metadata": { "f:annotations": { "f:b": {} } } });
        assert_eq!(found(note).unwrap(), "template.metadata.annotations.b");
    }

    #[test]
    fn what_was_rendered_is_no_addition_whoever_else_owns_it() {
        let fields = json!({
            ".": {}, "f:name": {}, "f:image": {},
            "f:env": { ".": {}, "k:{\"name\":\"X\"}": { ".": {}, "f:value": {} } },
            "f:ports": { "k:{\"containerPort\":4000,\"protocol\":\"TCP\"}": { ".": {} } },
        });
        assert_eq!(found(container(fields)), None);
        let note = json!({ "f:metadata": { "f:annotations": { "f:b": {} } } });
        let ours = live(names::FIELD_MANAGER, "Apply", note.clone());
        assert_eq!(addition(&rendered(), &ours), None);
        // A default that stands where an edit was taken out.
        let filled = container(json!({ "f:imagePullPolicy": {} }));
        assert!(found(filled.clone()).is_some(), "theirs, if somebody else set it");
        let ours = live(names::FIELD_MANAGER, "Update", filled);
        assert_eq!(addition(&rendered(), &ours), None);
        assert_eq!(patch(&rendered(), &ours)[1]["value"], ours["metadata"]["managedFields"]);
        let mut status = live("kube-controller-manager", "Update", note);
        status["metadata"]["managedFields"][0]["subresource"] = "status".into();
        assert_eq!(addition(&rendered(), &status), None);
    }

    #[test]
    fn a_restart_is_no_addition_and_outlives_what_is_put_right() {
        let asked = json!({ "f:metadata": { "f:annotations": {
            ".": {}, format!("f:{RESTARTED_AT}"): {},
        } } });
        assert_eq!(found(asked.clone()), None);
        let mut both = asked.clone();
        both["f:metadata"]["f:annotations"]["f:z"] = json!({});
        assert_eq!(found(both.clone()).unwrap(), "template.metadata.annotations.z");
        let patch = patch(&rendered(), &live("kubectl-edit", "Update", both));
        assert_eq!(
            patch[2]["value"]["metadata"]["annotations"],
            json!({ "a": "1", RESTARTED_AT: "now" })
        );
        let kept = &patch[1]["value"][0]["fieldsV1"];
        assert_eq!(
            kept["f:spec"]["f:template"]["f:metadata"]["f:annotations"],
            json!({ format!("f:{RESTARTED_AT}"): {} })
        );
        assert!(kept["f:metadata"]["f:labels"].is_object(), "the rest is theirs");
        let note = json!({ "f:metadata": { "f:annotations": { "f:b": {} } } });
        let mut alone = live("kubectl-edit", "Update", note);
        let entry = &mut alone["metadata"]["managedFields"][0]["fieldsV1"];
        entry.as_object_mut().unwrap().remove("f:metadata");
        assert_eq!(super::patch(&rendered(), &alone)[1]["value"], json!([]));
    }
}
