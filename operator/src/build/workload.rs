//! The StatefulSet of a cluster's nodes: a rendered template, and the cut of a cursor through it.

use serde_json::{Value, json};
use sluice_crds::{Auth, RedisMode, Routing, Socket, names};

use super::{Cluster, Error, Kind, Object, TEMPLATE, node_selector, pods, short_hash};

/// A StatefulSet without its cursor.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// The pod template as this operator renders it now.
    pub template: Value,
    /// Hash of the template.
    pub template_hash: String,
    /// Hash of those parts of the spec that the template is rendered from, as they stand in the
    /// spec: the same spec with another template hash means another operator.
    pub spec_hash: String,
    metadata: Value,
    min_ready_seconds: i32,
    selector: Value,
}

/// How many old revisions a StatefulSet keeps: as many as by default, which an apply that left it out
/// would leave to whoever changed it.
pub(super) const REVISIONS: i32 = 10;

/// Where the StatefulSet stands between two revisions: the plan's cursor, with the template that
/// goes with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Cut<'a> {
    /// Pods that there are to be.
    pub replicas: i32,
    /// The lowest ordinal.
    pub start: i32,
    /// Pods from the lowest up that are not at the new revision, counted from `start`.
    pub partition: i32,
    /// When the rollout to this template began, for annotation
    /// [`names::ROLLOUT_STARTED_AT`](sluice_crds::names::ROLLOUT_STARTED_AT).
    pub rollout: Option<String>,
    /// The template, its hash and the hash of the spec that it was rendered from.
    pub template: (&'a Value, &'a str, &'a str),
}

impl Workload {
    /// Renders the StatefulSet's unchanging part and today's template.
    pub(super) fn render(cluster: &Cluster<'_>) -> Result<Self, Error> {
        let template = pods::template(cluster)?;
        Ok(Self {
            template_hash: short_hash(&template),
            spec_hash: short_hash(&template_inputs(cluster)?),
            template,
            metadata: cluster.metadata(cluster.name, names::COMPONENT_NODE),
            min_ready_seconds: cluster.spec.min_ready_seconds,
            selector: node_selector(cluster.name),
        })
    }

    /// The whole StatefulSet at `cut`.
    pub fn stateful_set(&self, cut: &Cut<'_>) -> Object {
        let (template, template_hash, spec_hash) = cut.template;
        let mut metadata = self.metadata.clone();
        metadata["annotations"] = json!({
            names::SPEC_HASH: spec_hash,
            names::TEMPLATE_HASH: template_hash,
            TEMPLATE: template.to_string(),
        });
        if let Some(started_at) = &cut.rollout {
            metadata["annotations"][names::ROLLOUT_STARTED_AT] = started_at.as_str().into();
        }
        let service = metadata["name"].as_str().map(names::headless_service);
        Object::new(
            Kind::StatefulSet,
            json!({
                "metadata": metadata,
                "spec": {
                    "serviceName": service,
                    "replicas": cut.replicas,
                    "ordinals": { "start": cut.start },
                    "podManagementPolicy": "Parallel",
                    "revisionHistoryLimit": REVISIONS,
                    "minReadySeconds": self.min_ready_seconds,
                    "updateStrategy": {
                        "type": "RollingUpdate",
                        "rollingUpdate": { "partition": cut.partition },
                    },
                    "selector": { "matchLabels": self.selector },
                    "template": template,
                },
            }),
        )
    }
}

/// What of the spec the template depends on. The image as the spec names it: a default that comes
/// with another operator is not a change of the spec.
fn template_inputs(cluster: &Cluster<'_>) -> Result<Value, Error> {
    let spec = cluster.spec;
    let external = spec.redis.url_secret_ref.as_ref();
    let mut pubsub = serde_json::to_value(&spec.pubsub)?;
    // As those below: what a later operator knows must not roll those who do not use it.
    if spec.pubsub.mesh.routing == Routing::default()
        && let Some(mesh) = pubsub.pointer_mut("/mesh").and_then(Value::as_object_mut)
    {
        mesh.remove("routing");
    }
    let mut inputs = json!({
        "image": spec.image,
        "podTemplate": spec.pod_template,
        "discovery": spec.discovery,
        "pubsub": pubsub,
        "redis": { "managed": spec.redis.mode == RedisMode::Managed, "external": external },
    });
    // Absent by default: a field that a later operator knows must not roll those who do not use it.
    if spec.auth != Auth::default() {
        inputs["auth"] = serde_json::to_value(&spec.auth)?;
    }
    if let Some(webhooks) = &spec.webhooks {
        inputs["webhooks"] = serde_json::to_value(webhooks)?;
    }
    if spec.socket != Socket::default() {
        inputs["socket"] = serde_json::to_value(&spec.socket)?;
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::Defaults;

    #[test]
    fn what_a_cluster_does_not_use_is_no_input_of_its_template() {
        let spec = serde_saphyr::from_str("{}").unwrap();
        let mut object = sluice_crds::ChannelCluster::new("chat", spec);
        object.metadata.namespace = Some("team".into());
        object.metadata.uid = Some("c27b3971".into());
        let defaults = Defaults {
            node_image: "node:1".into(),
            redis_image: "redis:8".into(),
            cluster_domain: "cluster.local".into(),
        };
        let inputs = template_inputs(&Cluster::new(&object, &defaults).unwrap()).unwrap();
        let keys: Vec<_> = inputs.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["discovery", "image", "podTemplate", "pubsub", "redis"]);
        assert_eq!(inputs["pubsub"], json!({"adapter": "Mesh", "mesh": {"peerBuffer": "32Mi"}}));
    }
}
