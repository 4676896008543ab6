//! JSON Schemas of the two files that a node reads, for editors and for whoever runs a node without
//! the operator. They say what is well formed; a node checks more, and says so with the line.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Map, Value};
use sluice_node_api::config::{LiveConfig, NodeConfig};

/// The schema of `--config`'s file, as text.
pub fn config() -> String {
    text::<NodeConfig>("Configuration of a channel-node, read when it starts")
}

/// The schema of the file that `liveFile` names, as text.
pub fn live() -> String {
    text::<LiveConfig>("Live configuration of a channel-node, read whenever it changes")
}

fn text<T: JsonSchema>(title: &str) -> String {
    let schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>();
    let mut schema = Value::from(schema);
    bare(&mut schema);
    schema["title"] = title.into();
    format!("{schema:#}\n")
}

/// Without what only the API server of Kubernetes knows, and with what only the files say, `x-file`.
fn bare(node: &mut Value) {
    match node {
        Value::Object(map) => {
            if let Some(Value::Object(own)) = map.remove("x-file") {
                lay(map, own);
            }
            map.retain(|key, _| !key.starts_with("x-kubernetes-"));
            let format = map.get("format").and_then(Value::as_str).unwrap_or_default().to_owned();
            if format.starts_with("uint") {
                map.remove("format");
            }
            if format == "uint32" {
                map.entry("maximum").or_insert(u32::MAX.into());
            }
            map.values_mut().for_each(bare);
        }
        Value::Array(list) => list.iter_mut().for_each(bare),
        _ => {}
    }
}

/// Lays `own` over what is in `map`, object by object.
fn lay(map: &mut Map<String, Value>, own: Map<String, Value>) {
    for (key, value) in own {
        match (map.get_mut(&key), value) {
            (Some(Value::Object(inner)), Value::Object(own)) => lay(inner, own),
            (_, value) => _ = map.insert(key, value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows a reference into the definitions.
    fn resolved<'a>(root: &'a Value, node: &'a Value) -> &'a Value {
        let named = node.get("$ref").or_else(|| node["anyOf"][0].get("$ref"));
        let pointer = named.and_then(Value::as_str).and_then(|path| path.strip_prefix('#'));
        pointer.and_then(|pointer| root.pointer(pointer)).unwrap_or(node)
    }

    /// Every key of `value` is a property, and no other key would be taken.
    fn covers(root: &Value, schema: &Value, value: &Value, at: &str) {
        let schema = resolved(root, schema);
        match value {
            Value::Object(map) => {
                assert_eq!(schema["additionalProperties"], false, "{at} {schema}");
                for (key, value) in map {
                    let property = &schema["properties"][key];
                    assert!(property.is_object(), "{at}.{key} is not in the schema");
                    covers(root, property, value, &format!("{at}.{key}"));
                }
            }
            Value::Array(list) if schema["items"].is_object() => {
                list.iter().for_each(|value| covers(root, &schema["items"], value, at));
            }
            _ => {}
        }
    }

    #[test]
    fn each_key_of_the_examples_is_in_its_schema_and_no_other_may_be() {
        // The commented parts of the example are keys too.
        let full = include_str!("../../node/examples/config.yaml");
        let mut config: Value = serde_saphyr::from_str(full).expect("YAML");
        let auth = r#"{"jwt": {"keys": [{"algorithm": "HS256", "secretFile": "x", "kid": "a"}],
            "jwks": {"url": "https://x", "refreshSeconds": 300}, "socketId": "u:{sub}"}}"#;
        config["auth"] = serde_json::from_str(auth).expect("JSON");
        for (schema, value) in [
            (super::config(), config),
            (
                live(),
                serde_saphyr::from_str(include_str!("../../node/examples/live.yaml"))
                    .expect("YAML"),
            ),
        ] {
            let schema: Value = serde_json::from_str(&schema).expect("JSON");
            covers(&schema, &schema, &value, "");
            assert!(!schema.to_string().contains("x-kubernetes"));
        }
    }
}
