//! Why a managed Redis does not start: what its pod tells, the claim of its volume, and Kubernetes'
//! events. It must never decide anything: what it finds is only told. Two bounded reads in a pass, and
//! none while Redis is ready.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::DynamicObject};
use sluice_crds::{RedisMode, names};

use crate::{
    build::{Cluster, Kind},
    hints, observe,
    stores::Stores,
};

/// A sentence about the pod of `cluster`'s managed Redis that can't start, or can't be made, whether
/// or not the nodes run on it already; empty when nothing is in its way, or nothing is known.
pub async fn read(
    client: &kube::Client,
    cluster: &Cluster<'_>,
    stores: &Stores,
    now: Timestamp,
) -> String {
    let set = names::redis(cluster.name);
    let known = stores.get(Kind::StatefulSet, cluster.namespace, &set);
    let Some(known) = known.filter(|set| !is_ready(set)) else { return String::new() };
    if cluster.spec.redis.mode != RedisMode::Managed {
        return String::new();
    }
    let name = format!("{set}-0");
    let pods: Api<Pod> = Api::namespaced(client.clone(), cluster.namespace);
    match pods.get_opt(&name).await {
        Ok(pod) => {
            let told = pod.as_ref().map(|pod| told(&name, pod, now)).unwrap_or_default();
            let Some((of, fields)) = silent(&known, pod.as_ref(), now) else { return told };
            let hint = hints::newest(client, cluster.namespace, &of, &fields).await;
            [told, hint].into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(". ")
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(name, error, "can't read the pod of Redis");
            String::new()
        }
    }
}

fn is_ready(set: &DynamicObject) -> bool {
    set.data["status"]["readyReplicas"].as_i64().is_some_and(|ready| ready > 0)
}

/// What does not say itself what it lacks, and which events do: the StatefulSet that has no pod, the
/// claim that a pod without a place waits for, or a pod that has one and does not run.
fn silent(set: &DynamicObject, pod: Option<&Pod>, now: Timestamp) -> Option<(String, String)> {
    let by_uid = |uid: Option<&String>| Some(format!("regarding.uid={}", uid?));
    let Some(pod) = pod else {
        let name = set.metadata.name.as_deref().unwrap_or_default();
        return Some((format!("the StatefulSet {name}"), by_uid(set.metadata.uid.as_ref())?));
    };
    if unscheduled(pod) {
        let claim = volume_claim(pod)?;
        let fields = format!("regarding.kind=PersistentVolumeClaim,regarding.name={claim}");
        return Some((format!("volume claim {claim}"), fields));
    }
    let meta = &pod.metadata;
    let new =
        meta.creation_timestamp.as_ref().is_some_and(|at| now.duration_since(at.0) < hints::GRACE);
    let known = meta.deletion_timestamp.is_some() || observe::stuck(pod, now).is_some();
    if new || known || runs(pod) {
        return None;
    }
    Some((meta.name.clone()?, by_uid(meta.uid.as_ref())?))
}

fn runs(pod: &Pod) -> bool {
    let containers =
        pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let mut states = containers.filter_map(|container| container.state.as_ref());
    states.any(|state| state.running.is_some())
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

    fn set(status: serde_json::Value) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": { "name": "chat-redis", "uid": "s" }, "status": status,
        }))
        .expect("a StatefulSet")
    }

    #[test]
    fn it_is_asked_who_knows_why() {
        let now = "2026-01-01T00:01:00Z".parse().expect("a time");
        let set = set(json!({}));
        let asked = |pod: Option<&Pod>| silent(&set, pod, now);
        let of = |name: &str, fields: &str| Some((name.to_owned(), fields.to_owned()));
        assert_eq!(asked(None), of("the StatefulSet chat-redis", "regarding.uid=s"), "a quota");

        let mut pod: Pod = serde_json::from_value(json!({
            "metadata": {
                "name": "chat-redis-0", "uid": "p", "creationTimestamp": "2026-01-01T00:00:00Z",
            },
            "spec": { "containers": [], "volumes": [
                { "name": "auth", "secret": { "secretName": "chat-redis" } },
                { "name": "data", "persistentVolumeClaim": { "claimName": "data-chat-redis-0" } },
            ] },
        }))
        .expect("a pod");
        let claim = "regarding.kind=PersistentVolumeClaim,regarding.name=data-chat-redis-0";
        assert_eq!(asked(Some(&pod)), of("volume claim data-chat-redis-0", claim));
        pod.spec.as_mut().expect("a spec").node_name = Some("node-1".into());
        assert_eq!(asked(Some(&pod)), of("chat-redis-0", "regarding.uid=p"), "a mount that fails");

        let mut new = pod.clone();
        new.metadata.creation_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:58Z")).expect("a time");
        assert_eq!(asked(Some(&new)), None);
        for state in [
            json!({ "running": {} }),
            json!({ "waiting": { "reason": "ImagePullBackOff", "message": "it says so itself" } }),
        ] {
            let container = json!({
                "name": "redis", "image": "redis", "imageID": "", "ready": false, "restartCount": 0,
                "state": state,
            });
            let status = json!({ "containerStatuses": [container] });
            pod.status = serde_json::from_value(status).expect("a status");
            assert_eq!(asked(Some(&pod)), None, "{state}");
        }
    }

    #[test]
    fn nobody_is_asked_about_a_redis_that_is_ready() {
        assert!(is_ready(&set(json!({ "replicas": 1, "readyReplicas": 1 }))));
        for status in [json!({}), json!({ "replicas": 1 }), json!({ "readyReplicas": 0 })] {
            assert!(!is_ready(&set(status)));
        }
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
