//! Renders every object of a cluster from its spec. Pure: no client, no clock, no chance. What is
//! made by chance (tokens) is kept in Secrets by [`crate::secrets`].
//!
//! Objects are rendered as the JSON that is applied, so that what is sent is exactly what stands
//! here: a typed struct would also send the defaults of its required fields.

mod auth;
mod config;
mod meta;
mod network;
mod pods;
mod redis;
mod webhooks;
mod workload;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sluice_crds::{ChannelCluster, ChannelClusterSpec, PodDisruptionBudgetMode, RedisMode, names};

pub use config::{CONFIG_PATH, GRACE_SECONDS, SHUTDOWN_SECONDS};
pub use meta::{HASH, NODE_CONFIG, TEMPLATE, node_selector, redis_selector};
pub use redis::{
    AUTH_CONF, PASSWORD, URL, auth_conf, made_here, url, uses_managed_redis, with_redis_auth,
};
pub use workload::{Cut, Workload};

/// What the operator's release and arguments say, for all clusters.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// Image of nodes, for clusters that name none.
    pub node_image: String,
    /// Image of a managed Redis, for clusters that name none.
    pub redis_image: String,
    /// The Kubernetes cluster's DNS domain.
    pub cluster_domain: String,
}

/// A cluster to render: its identity and its spec.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its UID, for owner references.
    pub uid: &'a str,
    /// Which version of its spec this is.
    pub generation: Option<i64>,
    /// Its spec.
    pub spec: &'a ChannelClusterSpec,
    /// What the operator adds.
    pub defaults: &'a Defaults,
}

/// Why a cluster can't be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object lacks what the API server always sets.
    #[error("the ChannelCluster has no {0}")]
    Missing(&'static str),
    /// A quantity can't be read.
    #[error("{field}: `{value}` is no quantity of bytes")]
    Quantity {
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
    },
    /// What no node would take.
    #[error(
        "spec.socket.checkOrigin: `{0}` is no origin: write `//host`, `https://host:port` or `//*.host`"
    )]
    Origin(String),
    /// No image is known.
    #[error("spec.image is empty and the operator was started without --node-image")]
    NoImage,
    /// A file can't be written as YAML.
    #[error("failed to render {file}")]
    Yaml {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: serde_saphyr::ser::Error,
    },
    /// A part of the spec can't be written as JSON.
    #[error("failed to render the spec as JSON")]
    Json(#[from] serde_json::Error),
}

impl Error {
    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        "build"
    }
}

/// The kinds that are made for a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// v1 Service.
    Service,
    /// v1 ServiceAccount.
    ServiceAccount,
    /// v1 ConfigMap.
    ConfigMap,
    /// v1 Secret.
    Secret,
    /// apps/v1 StatefulSet.
    StatefulSet,
    /// policy/v1 PodDisruptionBudget.
    PodDisruptionBudget,
}

/// An object as it is to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its name, in the cluster's namespace.
    pub name: String,
    /// The whole intent.
    pub value: Value,
}

impl Object {
    /// An object of `kind` from everything but its type; the hash of the rendering is added as an
    /// annotation, so that a field that is no longer rendered is noticed.
    fn new(kind: Kind, mut value: Value) -> Self {
        let (api_version, name_of_kind) = match kind {
            Kind::Service => ("v1", "Service"),
            Kind::ServiceAccount => ("v1", "ServiceAccount"),
            Kind::ConfigMap => ("v1", "ConfigMap"),
            Kind::Secret => ("v1", "Secret"),
            Kind::StatefulSet => ("apps/v1", "StatefulSet"),
            Kind::PodDisruptionBudget => ("policy/v1", "PodDisruptionBudget"),
        };
        value["apiVersion"] = api_version.into();
        value["kind"] = name_of_kind.into();
        let hash = short_hash(&value);
        value["metadata"]["annotations"][meta::HASH] = hash.into();
        let name = value["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        Self { kind, name, value }
    }
}

/// Everything that is made for a cluster, but the Secrets.
#[derive(Clone, Debug, PartialEq)]
pub struct Rendering {
    /// What must stand before the pods do, in this order.
    pub objects: Vec<Object>,
    /// The StatefulSet, still without a cursor.
    pub workload: Workload,
    /// SHA-256, in hex, of the live configuration file.
    pub live_config_hash: String,
    /// What must not be there, to be deleted if it is this cluster's.
    pub absent: Vec<(Kind, String)>,
    /// What must not be there once no pod uses it any more. The StatefulSet comes last: as long as
    /// it stands, something is left to delete.
    pub absent_redis: Vec<(Kind, String)>,
}

impl<'a> Cluster<'a> {
    /// The identity and spec of `object`.
    pub fn new(object: &'a ChannelCluster, defaults: &'a Defaults) -> Result<Self, Error> {
        let meta = &object.metadata;
        Ok(Self {
            namespace: meta.namespace.as_deref().ok_or(Error::Missing("namespace"))?,
            name: meta.name.as_deref().ok_or(Error::Missing("name"))?,
            uid: meta.uid.as_deref().ok_or(Error::Missing("uid"))?,
            generation: meta.generation,
            spec: &object.spec,
            defaults,
        })
    }

    /// The DNS name of its Service `service`, with the final dot: no search domain of a Kubernetes node,
    /// which may answer for any name, comes before the cluster's own.
    fn address(&self, service: &str) -> String {
        let domain = self.defaults.cluster_domain.trim_end_matches('.');
        format!("{service}.{}.svc.{domain}.", self.namespace)
    }

    /// The image of its nodes.
    pub fn image(&self) -> &'a str {
        if self.spec.image.is_empty() { &self.defaults.node_image } else { &self.spec.image }
    }

    /// A Secret of this cluster, `data` in base64.
    pub fn secret(&self, name: &str, component: &str, data: Value) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self.metadata(name, component),
            "type": "Opaque",
            "data": data,
        })
    }
}

/// Renders everything but Secrets.
pub fn build(cluster: &Cluster<'_>) -> Result<Rendering, Error> {
    if cluster.image().is_empty() {
        return Err(Error::NoImage);
    }
    let live = config::live_yaml(cluster)?;
    let mut objects = vec![
        network::headless_service(cluster),
        network::client_service(cluster),
        network::publish_service(cluster),
        network::service_account(cluster),
        config::config_map(cluster, &live),
    ];
    let mut absent = Vec::new();
    let auto = cluster.spec.disruption.pod_disruption_budget == PodDisruptionBudgetMode::Auto;
    // With one replica a budget would block every `kubectl drain`.
    if auto && cluster.spec.replicas >= 2 {
        objects.push(network::disruption_budget(cluster));
    } else {
        absent.push((Kind::PodDisruptionBudget, cluster.name.to_owned()));
    }
    let mut absent_redis = Vec::new();
    if cluster.spec.redis.mode == RedisMode::Managed {
        objects.extend(redis::objects(cluster)?);
    } else {
        let name = names::redis(cluster.name);
        absent_redis = [Kind::Secret, Kind::Service, Kind::StatefulSet]
            .map(|kind| (kind, name.clone()))
            .into();
    }
    Ok(Rendering {
        objects,
        workload: Workload::render(cluster)?,
        live_config_hash: sha256_hex(live.as_bytes()),
        absent,
        absent_redis,
    })
}

/// SHA-256 in hex.
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A hash of a JSON value, independent of the order of its keys, short enough for an annotation.
pub fn short_hash(value: &Value) -> String {
    let mut hash = sha256_hex(canonical(value).to_string().as_bytes());
    hash.truncate(16);
    hash
}

fn canonical(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_by_key(|(key, _)| *key);
            entries.into_iter().map(|(key, value)| (key.clone(), canonical(value))).collect()
        }
        Value::Array(items) => items.iter().map(canonical).collect(),
        other => other.clone(),
    }
}

#[cfg(test)]
pub(crate) mod tests;
