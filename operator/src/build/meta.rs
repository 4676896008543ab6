//! Labels, annotations and owner references of what is made for a cluster.

use serde_json::{Map, Value, json};
use sluice_crds::names;

use super::Cluster;

/// Annotation on what is applied: hash of the rendering.
pub const HASH: &str = "sluice.dev/hash";
/// Annotation on the StatefulSet: the pod template as rendered, to be applied again while a newer
/// rendering waits. The template in the object itself won't do: it holds the API server's defaults
/// and whatever others changed.
pub const TEMPLATE: &str = "sluice.dev/template";
/// Annotation on pods, part of the template: the node's static configuration file. Each revision
/// has its own, so a pod that restarts in the middle of a rollout, or after an operator upgrade,
/// finds the file that its image understands.
pub const NODE_CONFIG: &str = "sluice.dev/node-config";
/// The value of `app.kubernetes.io/managed-by`, by which the operator's watches select.
pub const MANAGED_BY: &str = "sluice-operator";

/// Labels that select a cluster's nodes. Immutable, and the same for ever.
pub fn node_selector(cluster: &str) -> Value {
    json!({ names::CLUSTER_LABEL: cluster, names::COMPONENT_LABEL: names::COMPONENT_NODE })
}

/// Labels that select a cluster's managed Redis.
pub fn redis_selector(cluster: &str) -> Value {
    json!({ names::CLUSTER_LABEL: cluster, names::COMPONENT_LABEL: names::COMPONENT_REDIS })
}

impl Cluster<'_> {
    /// Labels of pods: without the version, which would roll them with every operator upgrade.
    pub(super) fn pod_labels(&self, component: &str) -> Map<String, Value> {
        let mut labels = Map::new();
        for (key, value) in [
            ("app.kubernetes.io/name", "sluice"),
            ("app.kubernetes.io/instance", self.name),
            ("app.kubernetes.io/part-of", "sluice"),
            ("app.kubernetes.io/managed-by", MANAGED_BY),
            (names::COMPONENT_LABEL, component),
            (names::CLUSTER_LABEL, self.name),
        ] {
            labels.insert(key.into(), value.into());
        }
        labels
    }

    /// Metadata of an object of this cluster.
    pub(super) fn metadata(&self, name: &str, component: &str) -> Value {
        let mut labels = self.pod_labels(component);
        labels.insert("app.kubernetes.io/version".into(), env!("CARGO_PKG_VERSION").into());
        json!({
            "name": name,
            "namespace": self.namespace,
            "labels": labels,
            "annotations": {},
            "ownerReferences": [{
                "apiVersion": "sluice.dev/v1alpha1",
                "kind": "ChannelCluster",
                "name": self.name,
                "uid": self.uid,
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        })
    }
}
