use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Pod, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    serde::{Serialize, de::DeserializeOwned},
};
use sluice_node_api::config::{NodeConfig, Routing};
use sluice_node_api::webhooks::OnFailure;

use super::*;

mod rolls;
mod socket;

pub(crate) fn defaults() -> Defaults {
    Defaults {
        node_image: "node:1".into(),
        redis_image: "redis:8".into(),
        cluster_domain: "cluster.local".into(),
    }
}

pub(crate) fn cluster(spec: &str) -> ChannelCluster {
    let spec: ChannelClusterSpec = serde_saphyr::from_str(spec).unwrap();
    let mut object = ChannelCluster::new("chat", spec);
    object.metadata.namespace = Some("team".into());
    object.metadata.uid = Some("c27b3971".into());
    object
}

fn rendered(spec: &str) -> Rendering {
    build(&Cluster::new(&cluster(spec), &defaults()).unwrap()).unwrap()
}

fn stateful_set(rendering: &Rendering) -> Object {
    let workload = &rendering.workload;
    let template = (&workload.template, &*workload.template_hash, &*workload.spec_hash);
    workload.stateful_set(&Cut { replicas: 3, start: 0, partition: 3, rollout: None, template })
}

fn find(rendering: &Rendering, kind: Kind, name: &str) -> Option<Value> {
    rendering.objects.iter().find(|o| o.kind == kind && o.name == name).map(|o| o.value.clone())
}

const REDIS: &str = "{pubsub: {adapter: Redis}, redis: {mode: Managed}}";
const PERSISTENT: &str = "{redis: {mode: Managed, managed: {persistence: {size: 1Gi}}}}";
const EVERYTHING: &str = r#"
replicas: 5
image: "other:2"
podTemplate:
  labels: {team: blue, sluice.dev/cluster: stolen}
  annotations: {note: hello}
  env: [{name: A, value: "1"}, {name: POD_NAME, value: mine}]
  envFrom: [{configMapRef: {name: more}}]
  resources: {limits: {cpu: "0.5", memory: 1024Mi}}
  tolerations: [{key: a, operator: Exists}]
  nodeSelector: {disk: ssd}
  priorityClassName: high
  serviceAccountName: mine
  imagePullSecrets: [{name: pull}]
  secretMounts: [{secretName: tls, mountPath: /tls}]
service: {type: NodePort, port: 8080, nodePort: 30001, annotations: {a: b}, sessionAffinity: ClientIP, externalTrafficPolicy: Local}
pubsub: {adapter: Redis}
redis: {mode: External, urlSecretRef: {name: mine, key: url}}
"#;

/// What is rendered must survive the typed struct of its kind: a misspelt field would not.
fn spelt_well<T: Serialize + DeserializeOwned>(value: &Value) {
    let typed: T = serde_json::from_value(value.clone()).unwrap();
    let back = serde_json::to_value(&typed).unwrap();
    assert_eq!(crate::diff::first_difference(value, &back), None, "{value:#}");
}

#[test]
fn every_field_is_one_that_kubernetes_knows() {
    for spec in ["{}", REDIS, PERSISTENT, EVERYTHING] {
        let rendering = rendered(spec);
        let workload = stateful_set(&rendering);
        for object in rendering.objects.iter().chain([&workload]) {
            match object.kind {
                Kind::Service => spelt_well::<Service>(&object.value),
                Kind::ServiceAccount => spelt_well::<ServiceAccount>(&object.value),
                Kind::ConfigMap => spelt_well::<ConfigMap>(&object.value),
                Kind::StatefulSet => spelt_well::<StatefulSet>(&object.value),
                Kind::PodDisruptionBudget => spelt_well::<PodDisruptionBudget>(&object.value),
                Kind::Secret => panic!("Secrets are not rendered without their content"),
            }
            let owner = &object.value["metadata"]["ownerReferences"][0];
            assert_eq!((&owner["uid"], &owner["controller"]), (&"c27b3971".into(), &true.into()));
            assert_eq!(object.value["metadata"]["labels"][names::CLUSTER_LABEL], "chat");
            assert_eq!(object.value["metadata"]["namespace"], "team");
        }
    }
}

#[test]
fn every_node_file_reads_back() {
    for (spec, url_file) in [("{}", None), (REDIS, Some("/etc/sluice/redis/url"))] {
        let template = rendered(spec).workload.template;
        let file = template["metadata"]["annotations"][NODE_CONFIG].as_str().unwrap();
        let config: NodeConfig = serde_saphyr::from_str(file).unwrap();
        assert_eq!(config.cluster, "team/chat");
        assert_eq!(config.discovery.dns.unwrap().name, "chat-headless.team.svc.cluster.local.");
        assert_eq!(config.pubsub.redis.map(|r| r.url_file).as_deref(), url_file);
        assert_eq!(config.pubsub.peer_buffer_bytes, 32 << 20);
        // A node of an earlier version, which an image may be, takes the file as well.
        assert_eq!(config.pubsub.routing, Routing::Interest);
        assert!(!file.contains("routing"), "{file}");
        assert_eq!(config.tokens.mesh_file.as_deref(), Some("/etc/sluice/tokens/mesh-token"));
        assert!(config.shutdown_seconds < GRACE_SECONDS);
    }
}

#[test]
fn what_somebody_leads_astray_by_a_field_at_its_default_is_a_difference() {
    let there = rendered(REDIS);
    let astray = [
        (Kind::Service, "chat", json!({ "publishNotReadyAddresses": true })),
        (Kind::Service, "chat", json!({ "internalTrafficPolicy": "Local" })),
        (Kind::Service, "chat-publish", json!({ "publishNotReadyAddresses": true })),
        (Kind::Service, "chat-publish", json!({ "internalTrafficPolicy": "Local" })),
        (Kind::Service, "chat-redis", json!({ "publishNotReadyAddresses": true })),
        (Kind::Service, "chat-redis", json!({ "internalTrafficPolicy": "Local" })),
        (Kind::StatefulSet, "chat-redis", json!({ "updateStrategy": { "type": "OnDelete" } })),
        (
            Kind::StatefulSet,
            "chat-redis",
            json!({ "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": { "partition": 1 },
            } }),
        ),
    ];
    for (kind, name, change) in astray {
        let object = find(&there, kind, name).unwrap();
        let mut live = object.clone();
        live["spec"].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let found = crate::diff::first_difference(&object, &live);
        assert!(found.is_some(), "{name}: {change} would stay");
        // What the API server leaves out is none.
        let spec = live["spec"].as_object_mut().unwrap();
        spec.extend(object["spec"].as_object().unwrap().clone());
        spec.remove("publishNotReadyAddresses");
        assert_eq!(crate::diff::first_difference(&object, &live), None);
    }
}

#[test]
fn a_node_is_not_process_1_which_would_miss_an_early_sigterm() {
    let template = rendered("{}").workload.template;
    assert_eq!(template["spec"]["shareProcessNamespace"], true);
}

#[test]
fn pods_keep_to_the_restricted_standard() {
    let redis = find(&rendered(REDIS), Kind::StatefulSet, "chat-redis").unwrap();
    let redis = redis["spec"]["template"].clone();
    for template in
        [rendered("{}").workload.template, rendered(EVERYTHING).workload.template, redis]
    {
        let spec = &template["spec"];
        assert_eq!(spec["securityContext"]["runAsNonRoot"], true);
        assert_eq!(spec["securityContext"]["runAsUser"], 65532);
        assert_eq!(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
        assert_eq!(spec["automountServiceAccountToken"], false);
        for container in spec["containers"].as_array().unwrap() {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
        }
    }
}

#[test]
fn the_spec_is_merged_into_the_template_without_breaking_selectors() {
    let template = rendered(EVERYTHING).workload.template;
    let labels = &template["metadata"]["labels"];
    assert_eq!((&labels["team"], &labels[names::CLUSTER_LABEL]), (&"blue".into(), &"chat".into()));
    assert!(labels.get("app.kubernetes.io/version").is_none());
    let container = &template["spec"]["containers"][0];
    let env = container["env"].as_array().unwrap();
    assert_eq!(env.iter().filter(|var| var["name"] == "POD_NAME").count(), 1);
    assert!(env.iter().any(|var| var["name"] == "A"));
    assert_eq!(container["image"], "other:2");
    assert_eq!(template["spec"]["serviceAccountName"], "mine");
    assert!(container["volumeMounts"].to_string().contains("/tls"));
}

#[test]
fn clients_reach_only_pods_that_accept() {
    let service = find(&rendered(EVERYTHING), Kind::Service, "chat").unwrap();
    assert_eq!(service["spec"]["selector"][names::ACCEPTING_LABEL], "true");
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30001);
    assert_eq!(service["metadata"]["annotations"]["a"], "b");
    assert_eq!(service["spec"]["externalTrafficPolicy"], "Local");
    let workload = stateful_set(&rendered("{}")).value;
    let selector = &workload["spec"]["selector"]["matchLabels"];
    assert!(selector.get(names::ACCEPTING_LABEL).is_none());
}

#[test]
fn the_way_from_outside_is_rendered_where_there_is_one() {
    for (spec, policy) in [
        ("{}", Value::Null),
        ("{service: {type: NodePort}}", "Cluster".into()),
        ("{service: {type: LoadBalancer}}", "Cluster".into()),
        ("{service: {type: LoadBalancer, externalTrafficPolicy: Local}}", "Local".into()),
    ] {
        let service = find(&rendered(spec), Kind::Service, "chat").unwrap();
        assert_eq!(service["spec"]["externalTrafficPolicy"], policy, "{spec}");
        assert_eq!(service["spec"]["loadBalancerSourceRanges"], Value::Null, "{spec}");
    }
    let spec = "{service: {type: LoadBalancer, loadBalancerSourceRanges: [192.0.2.0/24]}}";
    let service = find(&rendered(spec), Kind::Service, "chat").unwrap();
    assert_eq!(service["spec"]["loadBalancerSourceRanges"], json!(["192.0.2.0/24"]));
}

#[test]
fn both_stateful_sets_say_how_many_revisions_they_keep() {
    let redis = rendered("{pubsub: {adapter: Redis}, redis: {mode: Managed}}");
    let its_own = find(&redis, Kind::StatefulSet, "chat-redis").unwrap();
    for set in [stateful_set(&redis).value, its_own] {
        assert_eq!(set["spec"]["revisionHistoryLimit"], 10);
    }
}

#[test]
fn a_single_replica_has_no_disruption_budget() {
    for spec in ["{replicas: 1}", "{replicas: 0}", "{disruption: {podDisruptionBudget: Disabled}}"]
    {
        let rendering = rendered(spec);
        assert!(find(&rendering, Kind::PodDisruptionBudget, "chat").is_none(), "{spec}");
        assert_eq!(rendering.absent, [(Kind::PodDisruptionBudget, "chat".to_owned())]);
    }
    let budget = find(&rendered("{replicas: 2}"), Kind::PodDisruptionBudget, "chat").unwrap();
    assert_eq!(budget["spec"]["maxUnavailable"], 1);
}

#[test]
fn redis_comes_and_goes_with_its_mode() {
    assert_eq!(rendered("{}").absent_redis.len(), 3);
    let rendering = rendered(REDIS);
    assert!(rendering.absent_redis.is_empty());
    let redis = find(&rendering, Kind::StatefulSet, "chat-redis").unwrap();
    let args = &redis["spec"]["template"]["spec"]["containers"][0]["args"];
    let expected =
        json!(["/etc/redis/auth.conf", "--dir", "/data", "--appendonly", "no", "--save", ""]);
    assert_eq!(args, &expected);
    let persistent = find(&rendered(PERSISTENT), Kind::StatefulSet, "chat-redis").unwrap();
    let claim = &persistent["spec"]["volumeClaimTemplates"][0];
    assert_eq!(claim["spec"]["resources"]["requests"]["storage"], "1Gi");
}

#[test]
fn the_redis_pod_goes_where_it_is_told_to() {
    let place = "{redis: {mode: Managed, managed: {tolerations: [{key: a, operator: Exists}], \
                 nodeSelector: {disk: fast}, priorityClassName: high, imagePullSecrets: [{name: pull}]}}}";
    let (told, plain) = (rendered(place), rendered("{redis: {mode: Managed}}"));
    let pod = |all: &Rendering| {
        find(all, Kind::StatefulSet, "chat-redis").unwrap()["spec"]["template"]["spec"].clone()
    };
    let (told, plain) = (pod(&told), pod(&plain));
    for (field, value) in [
        ("tolerations", json!([{"key": "a", "operator": "Exists"}])),
        ("nodeSelector", json!({"disk": "fast"})),
        ("priorityClassName", json!("high")),
        ("imagePullSecrets", json!([{"name": "pull"}])),
    ] {
        assert_eq!((&told[field], &plain[field]), (&value, &Value::Null));
    }
}

#[test]
fn a_pod_that_needs_the_managed_redis_is_recognised() {
    let pod =
        |spec: &str| -> Pod { serde_json::from_value(rendered(spec).workload.template).unwrap() };
    assert!(uses_managed_redis(&pod(REDIS), "chat"));
    assert!(!uses_managed_redis(&pod("{}"), "chat"));
    assert!(!uses_managed_redis(&pod(EVERYTHING), "chat"));
}

#[test]
fn the_kept_template_is_what_was_rendered() {
    let rendering = rendered(EVERYTHING);
    let object = stateful_set(&rendering).value;
    let kept = object["metadata"]["annotations"][TEMPLATE].as_str().unwrap();
    let kept: Value = serde_json::from_str(kept).unwrap();
    assert_eq!(kept, rendering.workload.template);
    assert_eq!(short_hash(&kept), rendering.workload.template_hash);
}

#[test]
fn no_image_is_an_error_that_names_the_way_out() {
    let object = cluster("{}");
    let none = Defaults { node_image: String::new(), ..defaults() };
    let error = build(&Cluster::new(&object, &none).unwrap()).unwrap_err();
    assert!(error.to_string().contains("--node-image"), "{error}");
}

#[test]
fn who_may_connect_is_in_the_nodes_file_and_the_keys_are_where_it_says() {
    let rendering = rendered(
        "auth: {jwt: {socketId: 'users:{sub}', keys: [
            {algorithm: HS256, secretRef: {name: jwt, key: secret}},
            {algorithm: ES256, kid: a, secretRef: {name: jwt, key: es256.pem}}],
          jwks: {url: 'https://issuer/jwks.json', caSecretRef: {name: ca, key: ca.crt}}}}",
    );
    let template = &rendering.workload.template;
    let text = template["metadata"]["annotations"][NODE_CONFIG].as_str().unwrap();
    let config: NodeConfig = serde_saphyr::from_str(text).unwrap();
    let jwt = config.auth.jwt.unwrap();
    assert_eq!(jwt.socket_id.as_deref(), Some("users:{sub}"));
    let sources = &template["spec"]["volumes"][0]["projected"]["sources"];
    let mounted: Vec<_> = sources
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|source| source["secret"]["items"][0]["path"].as_str())
        .map(|path| format!("/etc/sluice/{path}"))
        .collect();
    let files = [
        jwt.keys[0].secret_file.clone(),
        jwt.keys[1].public_key_file.clone(),
        jwt.jwks.unwrap().ca_file,
    ];
    for file in files {
        let file = file.unwrap();
        assert!(mounted.contains(&file), "{file} is not in {mounted:?}");
    }
    assert!(!rendered("{}").workload.template.to_string().contains("auth/"));
}

#[test]
fn the_backend_is_in_the_nodes_file_with_its_secrets_and_its_topics_are_live() {
    let rendering = rendered(
        "webhooks: {url: 'https://b/', connect: true, maxConcurrent: 7, onFailure: Allow,
            secretRef: {name: hooks, key: signing}, caSecretRef: {name: ca, key: ca.crt}}
channels: [{topic: 'room:*', webhooks: {join: true, events: [buy]}}]",
    );
    let template = &rendering.workload.template;
    let text = template["metadata"]["annotations"][NODE_CONFIG].as_str().unwrap();
    let config: NodeConfig = serde_saphyr::from_str(text).unwrap();
    let webhooks = config.webhooks.unwrap();
    assert_eq!((webhooks.url.as_str(), webhooks.max_concurrent), ("https://b/", 7));
    assert!(webhooks.connect && !webhooks.disconnect && webhooks.on_failure == OnFailure::Allow);
    let sources = &template["spec"]["volumes"][0]["projected"]["sources"];
    let mounted = |name: &str, key: &str, file: &str| {
        let path = file.strip_prefix("/etc/sluice/").unwrap();
        let item = json!({ "key": key, "path": path });
        let source = json!({ "secret": { "name": name, "items": [item] } });
        sources.as_array().unwrap().contains(&source)
    };
    assert!(mounted("hooks", "signing", &webhooks.secret_file), "{sources}");
    assert!(mounted("ca", "ca.crt", &webhooks.ca_file.unwrap()), "{sources}");
    assert!(!text.contains("room:"), "topic rules roll nothing");
    assert!(!rendered("{}").workload.template.to_string().contains("webhooks"));
}
