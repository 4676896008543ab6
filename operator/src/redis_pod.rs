//! Why a managed Redis does not start: what its pod tells. It must never decide anything: what it
//! finds is only told. One bounded read in a pass, and none while every node reaches Redis.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use sluice_crds::{Adapter, RedisMode, names};

use crate::{build::Cluster, model::Observed, observe};

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
        Ok(pod) => pod.map(|pod| told(&name, &pod, now)).unwrap_or_default(),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(name, error, "can't read the pod of Redis");
            String::new()
        }
    }
}

fn told(name: &str, pod: &Pod, now: Timestamp) -> String {
    observe::stuck(pod, now).map(|(why, said)| why.sentence(name, &said)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
