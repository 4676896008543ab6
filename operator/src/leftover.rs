//! Why a pod that is being deleted is there still, though its node has ended: what holds it, as far
//! as the pod tells. It only reads; nothing here removes a pod.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use sluice_crds::names;

use crate::observe::{brief, container_statuses, node_unreachable, runs};

/// A pod whose node has ended may be there for so long before something holds it.
const GOING: SignedDuration = SignedDuration::from_secs(30);

/// Why a pod that is being deleted does not go, and what to do, as a sentence after its name.
pub(crate) fn leftover(pod: &Pod, now: Timestamp) -> Option<String> {
    let over = pod.metadata.deletion_timestamp.as_ref()?.0;
    if node_unreachable(pod) {
        return Some(
            "does not go: its Kubernetes node is not ready; bring it back or, once that machine is \
             off for good, delete the Node"
                .into(),
        );
    }
    let (runs, late) = (runs(pod), now >= over + GOING);
    let finalizers = pod.metadata.finalizers.as_deref().unwrap_or_default();
    if !runs && !finalizers.is_empty() {
        let names = finalizers.iter().take(3).map(String::as_str).collect::<Vec<_>>().join(", ");
        return Some(format!(
            "does not go: it has finalizers ({}); whoever set them is to take them off",
            brief(&names)
        ));
    }
    let since = ended(pod).filter(|_| !runs);
    if since.is_none_or(|since| now < since + GOING) && !late {
        return None;
    }
    let other = container_statuses(pod)
        .find(|c| c.state.as_ref().is_some_and(|state| state.running.is_some()));
    Some(match other {
        Some(it) => {
            format!("does not go: its container {} runs on, to be ended at {over}", it.name)
        }
        None => {
            "does not go: its containers have ended, and its kubelet has not removed it; see to \
                 its Kubernetes node and volumes"
                .into()
        }
    })
}

/// When the node's container ended, if that is told.
fn ended(pod: &Pod) -> Option<Timestamp> {
    let node = container_statuses(pod).find(|it| it.name == names::NODE_CONTAINER)?;
    Some(node.state.as_ref()?.terminated.as_ref()?.finished_at.as_ref()?.0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-01-01T00:10:00Z".parse().unwrap()
    }

    #[test]
    fn a_pod_that_is_deleted_and_does_not_go_says_why() {
        let deleted = |at: &str, finalizers: Value, status: Value| {
            let meta = json!({ "name": "chat-1", "uid": "u" });
            let mut pod: Pod =
                serde_json::from_value(json!({ "metadata": meta, "status": status })).unwrap();
            pod.metadata.deletion_timestamp = Some(serde_json::from_value(json!(at)).unwrap());
            pod.metadata.finalizers = serde_json::from_value(finalizers).unwrap();
            crate::observe::pod_state(&pod, "chat", now()).unwrap().leftover
        };
        let containers = |node: Value, other: Value| {
            let one = |name: &str, state: Value| {
                json!({
                    "name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0,
                    "state": state,
                })
            };
            json!({ "containerStatuses": [one("proxy", other), one("node", node)] })
        };
        let ended = |at: &str| json!({ "terminated": { "exitCode": 0, "finishedAt": at } });
        let (runs, long_ago) = (json!({ "running": {} }), ended("2026-01-01T00:05:00Z"));
        let (soon, past) = ("2026-01-01T00:40:00Z", "2026-01-01T00:09:00Z");

        // It is going.
        let just = ended("2026-01-01T00:09:58Z");
        assert_eq!(deleted(soon, json!([]), containers(just.clone(), just.clone())), "");
        assert_eq!(deleted(soon, json!(["a/b"]), containers(runs.clone(), runs.clone())), "");

        let held = deleted(soon, json!(["a/b", "c/d"]), containers(just.clone(), just));
        assert_eq!(
            held,
            "does not go: it has finalizers (a/b, c/d); whoever set them is to take them off"
        );
        let other = deleted(soon, json!([]), containers(long_ago.clone(), runs.clone()));
        let until = "does not go: its container proxy runs on, to be ended at 2026-01-01T00:40:00Z";
        assert_eq!(other, until);
        let kept = deleted(soon, json!([]), containers(long_ago.clone(), long_ago));
        assert!(kept.contains("its kubelet"), "{kept}");
        // Whatever it was last told, its grace is over.
        assert_ne!(deleted(past, json!([]), containers(runs.clone(), runs)), "");
        let lost = json!({ "conditions": [
            { "type": "Ready", "status": "False" }, { "type": "ContainersReady", "status": "True" },
        ] });
        let lost = deleted(soon, json!([]), lost);
        assert!(lost.starts_with("does not go: its Kubernetes node is not ready"), "{lost}");
        // One that nobody deletes goes nowhere.
        assert_eq!(leftover(&Pod::default(), now()), None);
    }
}
