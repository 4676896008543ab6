//! What a reconcile is asked for, from the object and its rendering. Pure.

use jiff::Timestamp;
use serde_json::Value;
use sluice_crds::ChannelCluster;

use crate::{
    build::{Cluster, Rendering},
    model::{Desired, Plan, TemplateStep},
    observe::Seen,
};

/// When the object was last changed, its status aside.
pub(super) fn changed_at(object: &ChannelCluster) -> Option<Timestamp> {
    let entries = object.metadata.managed_fields.iter().flatten();
    let own = entries.filter(|entry| entry.subresource.as_deref() != Some("status"));
    own.filter_map(|entry| entry.time.as_ref().map(|time| time.0)).max()
}

/// A sentence if the clients' Service waits for its address. The pods serve all the same, and who has
/// no controller of balancers waits for ever: so it is told, and nothing depends on it.
pub(super) fn unaddressed(service: &Value) -> Option<String> {
    let addresses = service["status"]["loadBalancer"]["ingress"].as_array();
    let waits = service["spec"]["type"] == "LoadBalancer" && addresses.is_none_or(Vec::is_empty);
    waits.then(|| "the Service of type LoadBalancer has no address yet".into())
}

/// What is wanted. Of a spec that can't be rendered: what there is.
pub(super) fn desired<'a>(
    object: &'a ChannelCluster,
    cluster: Cluster<'a>,
    rendering: Option<&Rendering>,
    seen: &Seen,
) -> Desired<'a> {
    let there = seen.observed.statefulset.clone().unwrap_or_default();
    let (spec_hash, template_hash) = match rendering {
        Some(Rendering { workload, .. }) => {
            (workload.spec_hash.clone(), workload.template_hash.clone())
        }
        None => (there.spec_hash, there.template_hash),
    };
    Desired {
        name: cluster.name,
        generation: object.metadata.generation.unwrap_or(0),
        spec: cluster.spec,
        spec_hash,
        template_hash,
    }
}

/// The image of the wanted revision: of the template that is or comes in force.
pub(super) fn image(cluster: &Cluster<'_>, seen: &Seen, plan: &Plan) -> String {
    let kept =
        seen.stateful_set.as_ref().filter(|_| plan.cursor.template == TemplateStep::Keep).and_then(
            |object| object.data["spec"]["template"]["spec"]["containers"][0]["image"].as_str(),
        );
    kept.unwrap_or_else(|| cluster.image()).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_balancer_without_an_address_is_told() {
        let of = |type_: &str, ingress: Value| {
            let status = json!({ "loadBalancer": { "ingress": ingress } });
            unaddressed(&json!({ "spec": { "type": type_ }, "status": status }))
        };
        assert!(of("LoadBalancer", json!([])).is_some());
        assert!(of("LoadBalancer", Value::Null).is_some());
        assert_eq!(of("LoadBalancer", json!([{ "ip": "192.0.2.1" }])), None);
        assert_eq!(of("ClusterIP", Value::Null), None);
    }
}
