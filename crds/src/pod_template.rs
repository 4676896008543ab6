//! The curated subset of a pod template that a `ChannelCluster` takes. A whole `PodTemplateSpec`
//! would make a CRD larger than client-side `kubectl apply` can carry.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Affinity, EnvFromSource, EnvVar, LocalObjectReference, ResourceRequirements, Toleration,
    TopologySpreadConstraint,
};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Labels, resources, scheduling and environment of the nodes' pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.labels) || !self.labels.exists(k, k.startsWith('sluice.dev/') || k.startsWith('app.kubernetes.io/'))")
        .message("podTemplate.labels may not set sluice.dev/ or app.kubernetes.io/ labels: selectors use them"),
    validation = Rule::new("!has(self.annotations) || !self.annotations.exists(k, k.startsWith('sluice.dev/'))")
        .message("podTemplate.annotations may not set sluice.dev/ annotations: the operator keeps its drains in them"),
    validation = Rule::new("!has(self.env) || !self.env.exists(e, e.name in ['POD_NAME', 'POD_NAMESPACE', 'POD_UID', 'POD_IP', 'SLUICE_CONFIG'])")
        .message("podTemplate.env may not set POD_NAME, POD_NAMESPACE, POD_UID, POD_IP or SLUICE_CONFIG: the operator sets them")
)]
pub struct PodTemplate {
    /// Labels added to the pods. Those of `sluice.dev/` and `app.kubernetes.io/` are the operator's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub labels: BTreeMap<String, String>,
    /// Annotations added to the pods. Those of `sluice.dev/` are the operator's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Environment variables of the node.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<EnvVar>,
    /// ConfigMaps and Secrets whose keys become environment variables of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,
    /// CPU and memory of the node's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,
    /// Affinity of the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Tolerations of the pods.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub tolerations: Vec<Toleration>,
    /// Labels that a Kubernetes node must have to run the pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub node_selector: BTreeMap<String, String>,
    /// How the pods spread. Default: over the Kubernetes nodes, as well as can be.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub topology_spread_constraints: Vec<TopologySpreadConstraint>,
    /// Priority class of the pods.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub priority_class_name: String,
    /// ServiceAccount of the pods. Default: one that the operator makes, without any right.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 253))]
    pub service_account_name: String,
    /// Secrets to pull the image with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub image_pull_secrets: Vec<LocalObjectReference>,
    /// Secrets mounted as files into the node's container.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["mountPath".into()]))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub secret_mounts: Vec<SecretMount>,
}

/// A Secret mounted as files.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mountPath != '/etc/sluice' && !self.mountPath.startsWith('/etc/sluice/')")
        .message("podTemplate.secretMounts: mountPath may not be /etc/sluice or below: the node's own files are there"),
    validation = Rule::new("self.mountPath.matches('^(/[^/:]{1,255})+$') && !self.mountPath.matches('/[.]{1,2}(/|$)') && self.mountPath != '/etc'")
        .message("podTemplate.secretMounts: mountPath must be a path such as /etc/tls, without '//', ':', '.' or '..', and not /etc, where the node's own files are"),
    validation = Rule::new("!self.mountPath.matches('^/(bin|boot|dev|lib[^/]*|proc|sbin|sys|usr)(/|$)') && !self.mountPath.matches('^/etc/(group|host[^/]*|ld[.]so[^/]*|nsswitch[.]conf|passwd|resolv[.]conf)(/|$)')")
        .message("podTemplate.secretMounts: mountPath may not hide what a node runs on: take a folder of its own, such as /etc/tls or /var/run/secrets/tls")
)]
pub struct SecretMount {
    /// The Secret's name, in the cluster's namespace.
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: String,
    /// Where its keys appear as files, an absolute path.
    #[schemars(length(min = 1, max = 512), regex(pattern = "^/"))]
    pub mount_path: String,
}
