use serde_json::{Value, json};

use super::*;

fn pod(status: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "chat-117", "uid": "u", "resourceVersion": "7",
            "labels": { "controller-revision-hash": "chat-abc", "sluice.dev/accepting": "true" },
        },
        "status": status,
    }))
    .unwrap()
}

fn now() -> Timestamp {
    "2026-01-01T00:10:00Z".parse().unwrap()
}

fn state(status: Value) -> PodState {
    pod_state(&pod(status), "chat", now()).unwrap()
}

fn waiting(reason: &str) -> Value {
    json!({ "containerStatuses": [{
        "name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 0,
        "state": { "waiting": { "reason": reason } },
    }] })
}

#[test]
fn a_running_pod() {
    let state = state(json!({
        "podIP": "10.0.0.1", "phase": "Running",
        "conditions": [
            { "type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z" },
            { "type": "ContainersReady", "status": "True" },
        ],
        "containerStatuses": [{
            "name": "node", "image": "", "imageID": "", "ready": true, "restartCount": 0,
            "state": { "running": {} },
        }],
    }));
    assert_eq!((state.ordinal, state.revision.as_str()), (117, "chat-abc"));
    assert!(state.ready && state.running && state.accepting);
    assert!(!state.terminating && !state.node_unreachable);
    assert_eq!((state.stuck, state.drain), (None, None));
    assert_eq!(state.ready_since, Some("2026-01-01T00:00:00Z".parse().unwrap()));
}

#[test]
fn what_a_person_wants_with_a_drain() {
    let mut pod = pod(json!({}));
    for (value, wanted, unknown) in [
        ("release", Some(DrainOverride::Release), false),
        ("cancel", Some(DrainOverride::Cancel), false),
        ("Release", None, true),
        ("", None, true),
    ] {
        pod.metadata.annotations = Some([(names::DRAIN_OVERRIDE.into(), value.into())].into());
        let state = pod_state(&pod, "chat", now()).unwrap();
        assert_eq!((state.drain_override, state.override_unknown), (wanted, unknown), "{value}");
    }
    let state = state(json!({}));
    assert_eq!((state.drain_override, state.override_unknown), (None, false));
}

#[test]
fn since_when_a_pod_takes_clients_counts_only_while_it_does() {
    let mut pod = pod(json!({}));
    let since = "2026-01-01T00:09:00Z";
    let key = names::ACCEPTING_SINCE.to_owned();
    pod.metadata.annotations = Some([(key, since.to_owned())].into());
    let told = |pod: &Pod| pod_state(pod, "chat", now()).unwrap().accepting_since;
    assert_eq!(told(&pod), Some(since.parse().unwrap()));
    pod.metadata.labels = None;
    assert_eq!(told(&pod), None);
}

#[test]
fn pods_that_cannot_start() {
    for (reason, stuck) in [
        ("CrashLoopBackOff", Some(StuckReason::CrashLoopBackOff)),
        ("ImagePullBackOff", Some(StuckReason::ImagePull)),
        ("ErrImageNeverPull", Some(StuckReason::ImagePull)),
        ("InvalidImageName", Some(StuckReason::InvalidImageName)),
        ("CreateContainerConfigError", Some(StuckReason::CreateContainer)),
        ("ContainerCreating", None),
    ] {
        let state = state(waiting(reason));
        assert_eq!((state.stuck, state.running), (stuck, false), "{reason}");
    }
}

#[test]
fn a_pod_that_cannot_start_says_why() {
    let said = |state: Value, last: Value| {
        let pod = pod(json!({ "containerStatuses": [{
            "name": "node", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": state, "lastState": last,
        }] }));
        pod_state(&pod, "chat", now()).unwrap().stuck_message
    };
    let waits = |reason: &str, message: &str| json!({ "waiting": { "reason": reason, "message": message } });
    let message = "secret \"keys\" not found";
    assert_eq!(said(waits("CreateContainerConfigError", message), json!({})), message);
    let crash = waits("CrashLoopBackOff", "back-off 10s restarting failed container");
    let refused = "channel-node: the configuration is refused:\n/etc/sluice/node.yaml:3: no\n";
    assert_eq!(
        said(crash.clone(), json!({ "terminated": { "exitCode": 78, "message": refused } })),
        "channel-node: the configuration is refused:; /etc/sluice/node.yaml:3: no"
    );
    assert_eq!(
        said(crash.clone(), json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } })),
        "OOMKilled, exit code 137"
    );
    assert_eq!(said(crash.clone(), json!({})), "");
    let long = json!({ "terminated": { "exitCode": 1, "message": "é".repeat(5000) } });
    assert_eq!(said(crash, long).chars().count(), BRIEF + 1);
}

#[test]
fn unschedulable_counts_after_a_moment() {
    for (since, stuck) in
        [("2026-01-01T00:09:55Z", None), ("2026-01-01T00:09:00Z", Some(StuckReason::Unschedulable))]
    {
        let state = state(json!({ "conditions": [{
            "type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "lastTransitionTime": since,
        }] }));
        assert_eq!(state.stuck, stuck);
    }
}

#[test]
fn a_pod_on_a_silent_kubernetes_node() {
    let conditions = |ready: &str, containers: &str| {
        json!({ "conditions": [
            { "type": "Ready", "status": ready }, { "type": "ContainersReady", "status": containers },
        ] })
    };
    assert!(state(conditions("False", "True")).node_unreachable);
    assert!(!state(conditions("False", "False")).node_unreachable);
    assert!(!state(conditions("True", "True")).node_unreachable);
    assert!(state(json!({ "phase": "Unknown" })).node_unreachable);
}

#[test]
fn a_drain_is_read_back_as_it_was_committed() {
    let mut pod = pod(json!({}));
    assert_eq!(pod_state(&pod, "chat", now()).unwrap().drain, None);
    let commitment = DrainCommitment {
        reason: DrainReason::ScaleDown,
        started_at: now(),
        deadline: now() + SignedDuration::from_secs(60),
        target: String::new(),
        initial: Some(12),
        drained_at: None,
    };
    let annotations = crate::execute::annotations(&commitment);
    pod.metadata.annotations = Some(annotations.into_iter().map(|(k, v)| (k.into(), v)).collect());
    assert_eq!(pod_state(&pod, "chat", now()).unwrap().drain, Some(commitment));
    let annotations = pod.metadata.annotations.as_mut().unwrap();
    annotations.insert(names::DRAIN_DEADLINE.into(), "soon".into());
    // Taken for over, it would let the pod go with all its clients.
    assert_eq!(pod_state(&pod, "chat", now()).unwrap().drain, None);
}

#[test]
fn a_name_of_another_shape_is_no_pod_of_ours() {
    let mut pod = pod(json!({}));
    pod.metadata.name = Some("chat-redis-0".into());
    assert!(pod_state(&pod, "chat", now()).is_none());
}

#[test]
fn a_pod_template_without_the_record_of_what_was_rendered_is_seen() {
    let template = json!({ "spec": {} });
    let seen = |annotations: Value| {
        let object = json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": { "name": "chat", "annotations": annotations },
        });
        stateful_set_state(&serde_json::from_value(object).unwrap()).unwrap().template_lost
    };
    let hash = crate::build::short_hash(&template);
    let record = template.to_string();
    assert!(!seen(json!({ names::TEMPLATE_HASH: hash, "sluice.dev/template": record })));
    assert!(seen(json!({ names::TEMPLATE_HASH: hash })));
    assert!(seen(json!({ names::TEMPLATE_HASH: "other", "sluice.dev/template": record })));
}
