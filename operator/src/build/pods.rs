//! The pod template of nodes. It must not depend on `replicas`, on live settings or on the
//! operator's version: each of these would roll the pods.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{LocalObjectReference, Toleration};
use serde_json::{Map, Value, json};
use sluice_crds::{Adapter, RedisMode, names};

use super::{Cluster, Error, NODE_CONFIG, auth, config, node_selector, redis, webhooks};

/// The user and group of nodes and of a managed Redis.
pub(super) const USER: u32 = 65532;

/// Where pods may run, and with what their images are pulled.
pub(super) struct Place<'a> {
    pub(super) tolerations: &'a [Toleration],
    pub(super) node_selector: &'a BTreeMap<String, String>,
    pub(super) priority_class_name: &'a str,
    pub(super) image_pull_secrets: &'a [LocalObjectReference],
}

impl Place<'_> {
    /// Writes what is said into the spec of a pod.
    pub(super) fn put_into(&self, spec: &mut Value) -> Result<(), Error> {
        if !self.tolerations.is_empty() {
            spec["tolerations"] = serde_json::to_value(self.tolerations)?;
        }
        if !self.node_selector.is_empty() {
            spec["nodeSelector"] = serde_json::to_value(self.node_selector)?;
        }
        if !self.image_pull_secrets.is_empty() {
            spec["imagePullSecrets"] = serde_json::to_value(self.image_pull_secrets)?;
        }
        if let Some(class) = some(self.priority_class_name) {
            spec["priorityClassName"] = class.into();
        }
        Ok(())
    }
}

/// The pod template.
pub(super) fn template(cluster: &Cluster<'_>) -> Result<Value, Error> {
    let pods = &cluster.spec.pod_template;
    let mut labels = object(&pods.labels)?;
    labels.extend(cluster.pod_labels(names::COMPONENT_NODE));
    let mut annotations = object(&pods.annotations)?;
    annotations.insert(NODE_CONFIG.into(), config::node_yaml(cluster)?.into());
    annotations
        .entry("kubectl.kubernetes.io/default-container")
        .or_insert_with(|| names::NODE_CONTAINER.into());

    let (volumes, mounts) = volumes(cluster);
    let mut spec = json!({
        "serviceAccountName": some(&pods.service_account_name).unwrap_or(cluster.name),
        "automountServiceAccountToken": false,
        "enableServiceLinks": false,
        // Process 1 of a namespace never gets a SIGTERM that it has no handler for yet: a pod that
        // is let go while its container starts would stand for its whole grace.
        "shareProcessNamespace": true,
        "terminationGracePeriodSeconds": config::GRACE_SECONDS,
        "securityContext": security(),
        "containers": [container(cluster, mounts)?],
        "volumes": volumes,
        "topologySpreadConstraints": [{
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": { "matchLabels": node_selector(cluster.name) },
        }],
    });
    if !pods.topology_spread_constraints.is_empty() {
        spec["topologySpreadConstraints"] =
            serde_json::to_value(&pods.topology_spread_constraints)?;
    }
    if let Some(affinity) = &pods.affinity {
        spec["affinity"] = serde_json::to_value(affinity)?;
    }
    Place {
        tolerations: &pods.tolerations,
        node_selector: &pods.node_selector,
        priority_class_name: &pods.priority_class_name,
        image_pull_secrets: &pods.image_pull_secrets,
    }
    .put_into(&mut spec)?;
    Ok(json!({
        "metadata": { "labels": labels, "annotations": annotations },
        "spec": spec,
    }))
}

fn container(cluster: &Cluster<'_>, mounts: Vec<Value>) -> Result<Value, Error> {
    let pods = &cluster.spec.pod_template;
    let field = |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "apiVersion": "v1", "fieldPath": path } } });
    let mut env = vec![
        field("POD_NAME", "metadata.name"),
        field("POD_UID", "metadata.uid"),
        field("POD_IP", "status.podIP"),
        json!({ "name": "SLUICE_CONFIG", "value": config::CONFIG_PATH }),
    ];
    for var in &pods.env {
        if !env.iter().any(|ours| ours["name"] == var.name.as_str()) {
            env.push(serde_json::to_value(var)?);
        }
    }
    let port =
        |name: &str, port: u16| json!({ "name": name, "containerPort": port, "protocol": "TCP" });
    let probe = |path: &str| json!({ "path": path, "port": "admin", "scheme": "HTTP" });
    let mut container = json!({
        "name": names::NODE_CONTAINER,
        "image": cluster.image(),
        "env": env,
        "ports": [
            port("http", names::HTTP_PORT),
            port("mesh", names::MESH_PORT),
            port("admin", names::ADMIN_PORT),
            port("publish", names::PUBLISH_PORT),
        ],
        "startupProbe": { "httpGet": probe("/healthz"), "periodSeconds": 1, "failureThreshold": 60 },
        "livenessProbe": { "httpGet": probe("/healthz"), "periodSeconds": 10, "timeoutSeconds": 5 },
        "readinessProbe": { "httpGet": probe("/readyz"), "periodSeconds": 2, "timeoutSeconds": 2 },
        // A configuration that is refused is told in the node's own words.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": container_security(),
        "volumeMounts": mounts,
    });
    if !pods.env_from.is_empty() {
        container["envFrom"] = serde_json::to_value(&pods.env_from)?;
    }
    if let Some(resources) = &pods.resources {
        container["resources"] = serde_json::to_value(resources)?;
    }
    Ok(container)
}

/// One projected volume with all files of a node, and the Secrets that the spec mounts.
fn volumes(cluster: &Cluster<'_>) -> (Vec<Value>, Vec<Value>) {
    let token = |key: &str| json!({ "key": key, "path": format!("tokens/{key}") });
    let mut sources = vec![
        json!({ "downwardAPI": { "items": [{
            "path": "node.yaml",
            "fieldRef": {
                "apiVersion": "v1",
                "fieldPath": format!("metadata.annotations['{NODE_CONFIG}']"),
            },
        }] } }),
        json!({ "configMap": {
            "name": cluster.name,
            "items": [{ "key": "live.yaml", "path": "live.yaml" }],
        } }),
        json!({ "secret": {
            "name": names::tokens_secret(cluster.name),
            "items": [
                token(names::MESH_TOKEN), token(names::ADMIN_TOKEN), token(names::PUBLISH_TOKEN),
            ],
        } }),
    ];
    if cluster.spec.pubsub.adapter == Adapter::Redis {
        let redis = &cluster.spec.redis;
        let managed = names::redis(cluster.name);
        let (name, key) = match (redis.mode, &redis.url_secret_ref) {
            (RedisMode::External, Some(secret)) => (secret.name.as_str(), secret.key.as_str()),
            _ => (managed.as_str(), redis::URL),
        };
        sources.push(json!({ "secret": {
            "name": name, "items": [{ "key": key, "path": "redis/url" }],
        } }));
    }
    sources.extend(auth::sources(&cluster.spec.auth));
    sources.extend(webhooks::sources(cluster.spec.webhooks.as_ref()));
    let mut volumes = vec![json!({
        "name": "config", "projected": { "defaultMode": 0o440, "sources": sources },
    })];
    let mut mounts =
        vec![json!({ "name": "config", "mountPath": config::DIRECTORY, "readOnly": true })];
    for (index, mount) in cluster.spec.pod_template.secret_mounts.iter().enumerate() {
        let name = format!("secret-{index}");
        volumes.push(json!({
            "name": name, "secret": { "secretName": mount.secret_name, "defaultMode": 0o440 },
        }));
        mounts.push(json!({ "name": name, "mountPath": mount.mount_path, "readOnly": true }));
    }
    (volumes, mounts)
}

/// A pod's part of the restricted Pod Security Standard.
pub(super) fn security() -> Value {
    json!({
        "runAsNonRoot": true,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": { "type": "RuntimeDefault" },
    })
}

/// A container's part of the restricted Pod Security Standard, and more.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": { "drop": ["ALL"] },
    })
}

fn object(map: &impl serde::Serialize) -> Result<Map<String, Value>, Error> {
    match serde_json::to_value(map)? {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}
