use std::{collections::BTreeSet, fs, path::PathBuf};

use kube::core::cel::{ErrorKind, Validator, compile_schema};

use super::*;
use crate::{ChannelClusterSpec, node_files, reference};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What the API server does before it defaults, for fields that are not nullable.
fn drop_nulls(value: &mut Value) {
    if let Some(map) = value.as_object_mut() {
        map.retain(|_, v| !v.is_null());
        map.values_mut().for_each(drop_nulls);
    }
}

/// Every YAML file of a folder: name, text, object.
fn objects(name: &str) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let mut object = serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        drop_nulls(&mut object);
        found.push((path.file_name().unwrap().to_string_lossy().into_owned(), text, object));
    }
    assert!(!found.is_empty(), "{name} is empty");
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

/// What the validation rules say about an object, as created or as an update.
fn refusals(object: &Value, old: Option<&Value>) -> Vec<String> {
    match Validator::new().validate(&open_api(), object, old) {
        Ok(()) => Vec::new(),
        Err(errors) => errors
            .into_vec()
            .into_iter()
            .inspect(|e| assert_eq!(e.kind, ErrorKind::ValidationFailure, "{e}"))
            .map(|e| e.message)
            .collect(),
    }
}

fn messages(schema: &Value, found: &mut Vec<String>) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found.push(rule["message"].as_str().expect("every rule has a message").into());
    }
    for child in schema["properties"].as_object().into_iter().flat_map(|p| p.values()) {
        messages(child, found);
        messages(&child["items"], found);
    }
}

fn walk(schema: &Value, path: &str, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        walk(child, &format!("{path}.{name}"), visit);
    }
    for (key, mark) in [("items", "[]"), ("additionalProperties", "{}")] {
        if schema[key].is_object() {
            walk(&schema[key], &format!("{path}{mark}"), visit);
        }
    }
}

#[test]
fn generated_files_are_fresh() {
    let keep = [("helm.sh/resource-policy", "keep")];
    for (file, wanted) in [
        ("sluice.dev_channelclusters.yaml", manifest(&[]).unwrap()),
        (
            "../charts/sluice-crds/templates/sluice.dev_channelclusters.yaml",
            manifest(&keep).unwrap(),
        ),
        ("../docs/api-reference.md", reference::markdown()),
        ("../node/schema/config.json", node_files::config()),
        ("../node/schema/live.json", node_files::live()),
    ] {
        let found = fs::read_to_string(folder(file)).unwrap();
        assert!(found == wanted, "{file} is stale: cargo run -p sluice-crds --bin crdgen");
    }
}

#[test]
fn the_manifest_reads_back_as_what_it_was_made_from() {
    let text = manifest(&[]).unwrap();
    let read: Value = serde_saphyr::from_str(&text).unwrap();
    assert_eq!(read, crd());
    serde_json::from_value::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >(read)
    .unwrap();
}

#[test]
fn client_side_apply_can_carry_it() {
    // kubectl keeps the whole object in an annotation, and annotations end at 262,144 bytes.
    assert!(serde_json::to_string(&crd()).unwrap().len() < 200_000);
}

#[test]
fn the_chart_has_nothing_that_helm_would_take_for_a_template() {
    assert!(!manifest(&[]).unwrap().contains("{{"));
}

#[test]
fn every_field_is_described() {
    walk(&open_api(), "", &mut |path, schema| {
        let text = schema["description"].as_str().unwrap_or_default();
        // Items of a list of scalars have no place for a description in `kubectl explain`.
        if !path.ends_with("[]") && !path.ends_with("{}") {
            assert!(!text.trim().is_empty(), "{path} has no description");
        }
        assert!(!text.contains("[`"), "{path}: a link of rustdoc in `{text}`");
        assert!(!text.contains("Auto-generated"), "{path}: {text}");
    });
}

#[test]
fn everything_is_bounded() {
    walk(&open_api(), "", &mut |path, schema| {
        let bound = match schema["type"].as_str() {
            Some("array") => "maxItems",
            Some("object") if schema["additionalProperties"].is_object() => "maxProperties",
            Some("string") if schema["enum"].is_array() || schema["format"].is_string() => return,
            Some("string") => "maxLength",
            _ => return,
        };
        assert!(schema[bound].is_u64(), "{path} has no {bound}");
    });
}

#[test]
fn nothing_is_nullable() {
    walk(&open_api(), "", &mut |path, schema| {
        assert!(schema["nullable"].is_null(), "{path}: null would escape its default");
    });
}

#[test]
fn defaults_of_the_schema_are_those_of_the_types() {
    let empty: ChannelClusterSpec = serde_json::from_value(json!({})).unwrap();
    let properties = open_api()["properties"]["spec"]["properties"].clone();
    let defaulted: serde_json::Map<_, _> = properties
        .as_object()
        .unwrap()
        .iter()
        .filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone())))
        .collect();
    let read: ChannelClusterSpec = serde_json::from_value(defaulted.into()).unwrap();
    assert_eq!(read, empty);
}

#[test]
fn every_rule_compiles_and_knows_its_cost() {
    let schema = open_api();
    let compiled = compile_schema(&schema);
    assert!(!compiled.has_errors(), "{:?}", compiled.compilation_errors());
}

#[test]
fn valid_objects_pass_and_are_read() {
    for (name, _, object) in objects("testdata/valid") {
        assert_eq!(refusals(&object, None), Vec::<String>::new(), "{name}");
        serde_json::from_value::<crate::ChannelCluster>(object).expect(&name);
    }
}

#[test]
fn each_rule_refuses_with_its_sentence() {
    let mut all = Vec::new();
    messages(&open_api(), &mut all);
    let mut seen = BTreeSet::new();
    for (name, text, object) in objects("testdata/invalid") {
        let expected = text.lines().next().unwrap().strip_prefix("# refused: ").expect(&name);
        // The other files are refused by the schema itself, which only the API server tries.
        if all.iter().any(|m| m == expected) {
            assert_eq!(refusals(&object, None), [expected], "{name}");
            seen.insert(expected.to_owned());
        }
    }
    let on_update = |m: &String| m.contains("can't be changed");
    let missing: Vec<_> = all.iter().filter(|m| !seen.contains(*m) && !on_update(m)).collect();
    assert!(missing.is_empty(), "no file in testdata/invalid is refused by: {missing:?}");
}

#[test]
fn topics_and_events_are_counted_in_bytes_as_a_node_does() {
    let said = |topic: &str, event: &str| {
        let channels = json!([{ "topic": topic, "events": [event] }, { "topic": "phoenix*" }]);
        refusals(&json!({ "metadata": { "name": "chat" }, "spec": { "channels": channels } }), None)
    };
    let (most, more) = ("é".repeat(127) + "*", "é".repeat(128));
    assert_eq!(said(&most, &most), Vec::<String>::new());
    assert_eq!(said(&more, &most), ["channels: a topic may have at most 255 bytes in UTF-8"]);
    assert_eq!(said(&most, &more), ["channels: an event may have at most 255 bytes in UTF-8"]);
}

#[test]
fn an_origin_is_what_a_node_takes_for_one() {
    for text in [
        "//a.b",
        "HTTPS://A.b",
        "//a.b:81",
        "http://a:65535",
        "http://a:00080",
        "app://a_b-c.d.",
        "//*.a.b",
        "http://[::1]:4000",
        "null",
        "a.b",
        "http:",
        "http://",
        "//:80",
        "//a/",
        "//a?b",
        "//u@a",
        "//*",
        "//*.",
        "//a.*.b",
        "//*a",
        "//a:",
        "//a:x",
        "//a:99999",
        "//.a",
        "//[::1",
        "//[x]",
        "1p://a",
        "http//a",
        "//a b",
        "//*.*.a",
        "//a//b",
        "//é",
    ] {
        let spec = json!({ "socket": { "checkOrigin": [text] } });
        let said = refusals(&json!({ "metadata": { "name": "chat" }, "spec": spec }), None);
        let taken = sluice_node_api::config::Origin::parse(text).is_some();
        assert_eq!(said.is_empty(), taken, "{text}: {said:?}");
    }
}

#[test]
fn a_managed_volume_stays_as_it_is() {
    let cluster =
        |redis: Value| json!({ "metadata": { "name": "chat" }, "spec": { "redis": redis } });
    let volume = |size: &str| {
        cluster(json!({ "mode": "Managed", "managed": { "persistence": { "size": size } } }))
    };
    let (none, bare) = (cluster(json!({})), cluster(json!({ "mode": "Managed" })));
    let image = cluster(json!({ "mode": "Managed", "managed": { "image": "redis" } }));
    for (old, new) in [
        (&none, &volume("1Gi")),
        (&volume("1Gi"), &none),
        (&bare, &image),
        (&image, &bare),
        (&volume("1Gi"), &volume("1Gi")),
    ] {
        assert_eq!(refusals(new, Some(old)), Vec::<String>::new(), "{old} to {new}");
    }
    for (old, new) in [
        (&volume("1Gi"), &volume("2Gi")),
        (&volume("1Gi"), &bare),
        (&bare, &volume("1Gi")),
        (&image, &volume("1Gi")),
    ] {
        let said = refusals(new, Some(old));
        assert_eq!(said.len(), 1, "{old} to {new}: {said:?}");
        assert!(said[0].starts_with("redis.managed.persistence can't be changed"));
    }
}

#[test]
fn examples_are_read_and_valid() {
    let mut clusters = 0;
    for entry in fs::read_dir(folder("../examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e != "yaml") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        for part in text.split("\n---\n") {
            let object: Value = serde_saphyr::from_str(part).unwrap();
            if object["kind"] != "ChannelCluster" {
                continue;
            }
            assert_eq!(refusals(&object, None), Vec::<String>::new(), "{path:?}");
            serde_json::from_value::<crate::ChannelCluster>(object).unwrap();
            clusters += 1;
        }
    }
    assert!(clusters >= 6);
}

#[test]
fn scaled_by_its_subresource() {
    assert_eq!(
        crd()["spec"]["versions"][0]["subresources"]["scale"],
        json!({
            "labelSelectorPath": ".status.selector",
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas"
        })
    );
}
