//! Why a managed Redis does not start: what its pod tells, and the claim of its volume. It must never
//! decide anything: what it finds is only told. Two bounded reads in a pass, and none while every node
//! reaches Redis.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use sluice_crds::{Adapter, RedisMode, names};

use crate::{build::Cluster, hints, model::Observed, observe};

/// A sentence about the pod of `cluster`'s managed Redis that can't start; empty when nothing is in
/// its way, or nothing is known.
pub async fn read(
    client: &kube::Client,
    cluster: &Cluster<'_>,
    observed: &Observed,
    now: Timestamp,
) -> String {
    let spec = cluster.spec;
    if spec.redis.mode != RedisMode::Managed || spec.pubsub.adapter != Adapter::Redis {
        return String::new();
    }
    let mut nodes = observed.pods.iter().filter_map(|pod| pod.node.as_ref());
    if nodes.clone().count() > 0 && nodes.all(|node| node.redis_connected != Some(false)) {
        return String::new();
    }
    let name = format!("{}-0", names::redis(cluster.name));
    let pods: Api<Pod> = Api::namespaced(client.clone(), cluster.namespace);
    match pods.get_opt(&name).await {
        Ok(Some(pod)) => {
            let told = told(&name, &pod, now);
            let waits = volume_claim(&pod).filter(|_| unscheduled(&pod));
            let Some(claim) = waits else { return told };
            // The scheduler does not say what the volume lacks.
            let fields = format!("regarding.kind=PersistentVolumeClaim,regarding.name={claim}");
            let of = format!("volume claim {claim}");
            let hint = hints::newest(client, cluster.namespace, &of, &fields).await;
            [told, hint].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(". ")
        }
        Ok(None) => String::new(),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(name, error, "can't read the pod of Redis");
            String::new()
        }
    }
}

/// The claim of the pod's volume, if it has one.
fn volume_claim(pod: &Pod) -> Option<&str> {
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let mut claims = volumes.filter_map(|volume| volume.persistent_volume_claim.as_ref());
    claims.next().map(|claim| &*claim.claim_name)
}

fn unscheduled(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())
}

fn told(name: &str, pod: &Pod, now: Timestamp) -> String {
    observe::stuck(pod, now).map(|(why, said)| why.sentence(name, &said)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_claim_is_asked_only_while_the_pod_has_no_place() {
        let mut pod: Pod = serde_json::from_value(json!({ "spec": { "containers": [], "volumes": [
            { "name": "auth", "secret": { "secretName": "chat-redis" } },
            { "name": "data", "persistentVolumeClaim": { "claimName": "data-chat-redis-0" } },
        ] } }))
        .expect("a pod");
        assert_eq!(volume_claim(&pod), Some("data-chat-redis-0"));
        assert!(unscheduled(&pod));
        pod.spec.as_mut().expect("a spec").node_name = Some("node-1".into());
        assert!(!unscheduled(&pod));
    }

    #[test]
    fn it_says_why_the_pod_does_not_start() {
        let pod = |state: serde_json::Value| -> Pod {
            let status = json!({ "containerStatuses": [{
                "name": "redis", "image": "redis", "imageID": "", "ready": false, "restartCount": 0,
                "state": state,
            }] });
            serde_json::from_value(json!({ "status": status })).expect("a pod")
        };
        let waits =
            pod(json!({ "waiting": { "reason": "ImagePullBackOff", "message": "no such" } }));
        let text = told("chat-redis-0", &waits, Timestamp::UNIX_EPOCH);
        assert_eq!(text, "chat-redis-0 can't start: ImagePullBackOff: no such");
        let runs = pod(json!({ "running": {} }));
        assert_eq!(told("chat-redis-0", &runs, Timestamp::UNIX_EPOCH), "");
    }
}
