//! Publishes Kubernetes Events: what [`crate::status`] has to tell, for `kubectl describe`. They
//! regard the ChannelCluster and relate to the pod. An event that can't be published never fails a
//! reconcile.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use sluice_crds::{ChannelCluster, names};

use crate::status;

/// The API server takes notes of at most a kilobyte.
const NOTE_BYTES: usize = 1000;

/// The process's one recorder: it counts what repeats.
pub fn recorder(client: Client, identity: &str) -> Recorder {
    let reporter =
        Reporter { controller: names::FIELD_MANAGER.into(), instance: Some(identity.into()) };
    Recorder::new(client, reporter)
}

/// Publishes `events` about `cluster`, in order.
pub async fn publish(recorder: &Recorder, cluster: &ChannelCluster, events: Vec<status::Event>) {
    let regarding = cluster.object_ref(&());
    for event in events {
        let warning = event.reason.is_warning();
        let reason = event.reason.as_str();
        let pod = event.pod.as_ref().map(|(name, _)| name.as_str());
        tracing::info!(reason, pod, message = event.message, "event");
        let secondary = event.pod.map(|(name, uid)| ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: regarding.namespace.clone(),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        });
        let event = Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            action: reason.clone(),
            reason,
            note: Some(shortened(event.message)),
            secondary,
        };
        if let Err(error) = recorder.publish(&event, &regarding).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, reason = event.reason, "can't publish an event");
        }
    }
}

fn shortened(mut text: String) -> String {
    if text.len() > NOTE_BYTES {
        let end = (0..=NOTE_BYTES).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_cut_at_a_character() {
        assert_eq!(shortened("short".into()), "short");
        assert_eq!(shortened("é".repeat(600)).len(), 1000);
        assert_eq!(shortened(format!("a{}", "é".repeat(600))).len(), 999);
    }
}
