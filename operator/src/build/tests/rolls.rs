//! What of the spec changes pods, and what only the live file.

use sluice_node_api::config::{Limits, LiveConfig};

use super::*;

#[test]
fn the_template_depends_on_nothing_that_must_not_roll() {
    let base = rendered("{}").workload;
    for spec in [
        "{replicas: 7}",
        "{paused: true}",
        "{drain: {mode: Immediate, timeoutSeconds: 86400, initialDelaySeconds: 0}}",
        "{channels: [{topic: 'lobby'}]}",
        "{limits: {maxConnections: 9, maxBuffered: 64Mi}}",
        "{minReadySeconds: 60}",
        "{progressDeadlineSeconds: 60}",
        "{updateStrategy: {rollingUpdate: {maxSurge: 0}}}",
        "{scaleDown: {maxConcurrentDrains: 4}}",
        "{service: {type: NodePort}}",
        "{disruption: {podDisruptionBudget: Disabled}}",
        "{redis: {mode: Managed, managed: {image: 'other'}}}",
    ] {
        let workload = rendered(spec).workload;
        assert_eq!(workload.template, base.template, "{spec}");
        assert_eq!(workload.template_hash, base.template_hash, "{spec}");
        if !spec.contains("redis") {
            assert_eq!(workload.spec_hash, base.spec_hash, "{spec}");
        }
    }
}

#[test]
fn what_changes_pods_changes_both_hashes() {
    let base = rendered("{}").workload;
    for spec in [
        "{image: 'node:2'}",
        "{podTemplate: {env: [{name: A, value: b}]}}",
        "{pubsub: {mesh: {peerBuffer: 64Mi}}}",
        "{pubsub: {mesh: {routing: Broadcast}}}",
        "{discovery: {intervalSeconds: 9}}",
        "{auth: {jwt: {keys: [{algorithm: HS256, secretRef: {name: jwt, key: secret}}]}}}",
        "{webhooks: {url: 'http://b/', secretRef: {name: hooks, key: secret}}}",
        "{socket: {checkOrigin: []}}",
        "{socket: {maxJoinsPerSecond: 20}}",
        "{socket: {maxMessagesPerSecond: 500}}",
        REDIS,
    ] {
        let workload = rendered(spec).workload;
        assert_ne!(workload.template_hash, base.template_hash, "{spec}");
        assert_ne!(workload.spec_hash, base.spec_hash, "{spec}");
    }
}

/// Whoever adds a field to the spec says here whether it is in the pod template; if it is, the test above has a case.
#[test]
fn of_every_part_of_the_spec_it_is_known_whether_it_changes_pods() {
    const IN_TEMPLATE: [&str; 8] =
        ["auth", "discovery", "image", "podTemplate", "pubsub", "redis", "socket", "webhooks"];
    const LIVE: [&str; 3] = ["channels", "drain", "limits"];
    const OF_THE_OPERATOR: [&str; 9] = [
        "disruption",
        "minReadySeconds",
        "paused",
        "progressDeadlineSeconds",
        "rebalance",
        "replicas",
        "scaleDown",
        "service",
        "updateStrategy",
    ];
    let schema = sluice_crds::schema::crd();
    let spec = &schema["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let there: Vec<&String> = spec["properties"].as_object().unwrap().keys().collect();
    let mut known = [&IN_TEMPLATE[..], &LIVE[..], &OF_THE_OPERATOR[..]].concat();
    known.sort_unstable();
    assert_eq!(there, known);
}

#[test]
fn another_release_changes_the_template_but_not_the_spec_hash() {
    let object = cluster("{}");
    let newer = Defaults { node_image: "node:2".into(), ..defaults() };
    let newer = build(&Cluster::new(&object, &newer).unwrap()).unwrap().workload;
    let base = rendered("{}").workload;
    assert_eq!(newer.spec_hash, base.spec_hash);
    assert_ne!(newer.template_hash, base.template_hash);
}

#[test]
fn hashes_are_stable() {
    assert_eq!(rendered(EVERYTHING), rendered(EVERYTHING));
    let a = json!({ "x": 1, "y": [1, { "b": 2, "a": 3 }] });
    let b = json!({ "y": [1, { "a": 3, "b": 2 }], "x": 1 });
    assert_eq!(short_hash(&a), short_hash(&b));
    assert_ne!(short_hash(&a), short_hash(&json!({ "x": 1 })));
}

#[test]
fn live_settings_change_only_the_live_file() {
    let base = rendered("{}");
    let other = rendered("{channels: [{topic: lobby}], drain: {batchSize: 7}}");
    assert_ne!(base.live_config_hash, other.live_config_hash);
    let map = find(&other, Kind::ConfigMap, "chat").unwrap();
    let file = map["data"]["live.yaml"].as_str().unwrap();
    assert_eq!(sha256_hex(file.as_bytes()), other.live_config_hash);
    let live: LiveConfig = serde_saphyr::from_str(file).unwrap();
    assert_eq!(live.channels[0].topic, "lobby");
    assert_eq!(live.drain.batch_size, 7);
}

#[test]
fn a_pod_that_is_deleted_has_the_time_of_a_drain_and_that_time_rolls_nothing() {
    let base = rendered("{}");
    let told = |drain: &str| {
        let it = rendered(&format!("{{\"drain\":{drain}}}"));
        assert_eq!(it.workload.template, base.workload.template, "{drain}");
        let map = find(&it, Kind::ConfigMap, "chat").unwrap();
        let file = map["data"]["live.yaml"].as_str().unwrap();
        serde_saphyr::from_str::<LiveConfig>(file).unwrap().drain.timeout_seconds
    };
    assert_eq!(told(r#"{"timeoutSeconds":40}"#), Some(40.0));
    assert_eq!(told(r#"{"timeoutSeconds":40,"timeoutPolicy":"Hold"}"#), None);
    assert_eq!(told(r#"{"timeoutSeconds":7200}"#), None, "its grace is over before");
}

#[test]
fn a_rule_that_lets_clients_only_listen_is_told_as_such() {
    let rendered = rendered("{channels: [{topic: news, events: []}, {topic: 'room:*'}]}");
    let map = find(&rendered, Kind::ConfigMap, "chat").unwrap();
    let file = map["data"]["live.yaml"].as_str().unwrap();
    let live: LiveConfig = serde_saphyr::from_str(file).unwrap();
    let events: Vec<_> = live.channels.iter().map(|rule| rule.events.join(" ")).collect();
    assert_eq!(events, ["", "*"]);
}

#[test]
fn how_much_a_node_takes_on_is_live() {
    let limits = |spec: &str| {
        let map = find(&rendered(spec), Kind::ConfigMap, "chat").unwrap();
        let file = map["data"]["live.yaml"].as_str().unwrap();
        serde_saphyr::from_str::<LiveConfig>(file).unwrap().limits
    };
    assert_eq!(limits("{}"), Limits::default(), "as the node has it");
    let both = Limits { max_connections: 9, max_buffered_bytes: Some(64 << 20) };
    assert_eq!(limits("{limits: {maxConnections: 9, maxBuffered: 64Mi}}"), both);
    let object = cluster("{limits: {maxBuffered: plenty}}");
    let error = build(&Cluster::new(&object, &defaults()).unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "spec.limits.maxBuffered: `plenty` is no quantity of bytes");
}
