//! The Redis of a `ChannelCluster`: none, one that the operator runs, or one of the user's own.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{LocalObjectReference, ResourceRequirements, Toleration},
    apimachinery::pkg::api::resource::Quantity,
};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The Redis of `pubsub.adapter: Redis`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.mode == 'External') == has(self.urlSecretRef)")
        .message("redis.urlSecretRef goes with redis.mode External, and External needs it: name the Secret and key that hold the redis:// URL"),
    validation = Rule::new("self.mode == 'Managed' || !has(self.managed)")
        .message("redis.managed is for redis.mode Managed: leave it out with Disabled and External"),
    validation = Rule::new("self.mode != 'Managed' || oldSelf.mode != 'Managed' || ((has(self.managed) && has(self.managed.persistence)) == (has(oldSelf.managed) && has(oldSelf.managed.persistence)) && (!has(self.managed) || !has(self.managed.persistence) || self.managed.persistence == oldSelf.managed.persistence))")
        .message("redis.managed.persistence can't be changed: set redis.mode to Disabled first, then to Managed with the new volume")
)]
pub struct Redis {
    /// Whose Redis it is. `Disabled`: there is none. `Managed`: the operator runs one, a single pod
    /// with a password of its own. `External`: your own, `urlSecretRef` says where.
    #[serde(default)]
    pub mode: RedisMode,
    /// Settings of the Redis that the operator runs, with mode `Managed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedRedis>,
    /// Where the URL of your own Redis is, with mode `External`: the key's value is
    /// `redis://[user:password@]host:port[/db]`. TLS (`rediss://`) is not supported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKeyRef>,
}

/// Whose Redis it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedisMode {
    /// No Redis.
    #[default]
    Disabled,
    /// The operator runs one.
    Managed,
    /// You run it; `urlSecretRef` says where.
    External,
}

/// A Redis that the operator runs: one pod, with a password of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedRedis {
    /// The image. Default: the Redis image of the operator's release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// CPU and memory of the Redis container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// A volume for the Redis pod. Broadcasts are not kept, so they need none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistence: Option<Persistence>,
    /// Tolerations of the Redis pod.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Labels that a Kubernetes node must have to run the Redis pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// Priority class of the Redis pod.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub priority_class_name: String,
    /// Secrets to pull the Redis image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
}

/// A volume claim. It can't be changed while the operator runs the Redis.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("quantity(string(self.size)).compareTo(quantity('0')) > 0")
        .message("redis.managed.persistence.size must be more than nothing, such as 1Gi")
)]
pub struct Persistence {
    /// Size of the volume, such as `1Gi`.
    pub size: Quantity,
    /// StorageClass of the volume. Default: that of the Kubernetes cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub storage_class_name: Option<String>,
}

/// A key of a Secret in the cluster's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}
