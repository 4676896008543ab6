//! Publishes Kubernetes Events: what [`crate::status`] has to tell, for `kubectl describe`. They
//! regard the ChannelCluster and relate to the pod. An event that can't be published never fails a
//! reconcile.

use std::{collections::VecDeque, sync::Arc};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client, Resource,
    runtime::events::{self, EventType, Reporter},
};
use parking_lot::Mutex;
use sluice_crds::{ChannelCluster, names};

use crate::status;

/// The API server takes notes of at most a kilobyte.
const NOTE_BYTES: usize = 1000;
/// Most notes whose repetitions are counted; the one longest not said is forgotten first.
const MAX_NOTES: usize = 256;

/// The process's one recorder. It counts what repeats word by word; whatever says something else
/// is an event of its own, where `kube`'s would go on with the first one's words. So is what is said
/// again of another generation and is no warning: `kubectl describe` lists an event by when it was first
/// said, and a second pause belongs after the first.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    reporter: Reporter,
    said: Arc<Mutex<VecDeque<(String, events::Recorder)>>>,
}

impl Recorder {
    /// A recorder that reports as the replica `identity`.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter =
            Reporter { controller: names::FIELD_MANAGER.into(), instance: Some(identity.into()) };
        Self { client, reporter, said: Arc::default() }
    }

    /// What counts the repetitions of `note`, with the generation that it is said of.
    fn of(&self, note: &str) -> events::Recorder {
        let mut said = self.said.lock();
        let known = said.iter().position(|(known, _)| known == note);
        let entry = known.and_then(|at| said.remove(at)).unwrap_or_else(|| {
            let anew = events::Recorder::new(self.client.clone(), self.reporter.clone());
            (note.to_owned(), anew)
        });
        let recorder = entry.1.clone();
        said.push_back(entry);
        if said.len() > MAX_NOTES {
            said.pop_front();
        }
        recorder
    }
}

/// Publishes what is `said` about `cluster`, in order.
pub async fn publish(recorder: &Recorder, cluster: &ChannelCluster, said: Vec<status::Event>) {
    let regarding = cluster.object_ref(&());
    for event in said {
        let warning = event.reason.is_warning();
        let reason = event.reason.as_str();
        log(&event);
        let secondary = event.pod.map(|(name, uid)| ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: regarding.namespace.clone(),
            name: Some(name),
            uid: Some(uid),
            ..ObjectReference::default()
        });
        let note = shortened(event.message);
        let key = key(warning, cluster.metadata.generation, &note);
        let event = events::Event {
            type_: if warning { EventType::Warning } else { EventType::Normal },
            action: reason.clone(),
            reason,
            note: Some(note),
            secondary,
        };
        if let Err(error) = recorder.of(&key).publish(&event, &regarding).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, reason = event.reason, "can't publish an event");
        }
    }
}

/// What is counted as one.
fn key(warning: bool, generation: Option<i64>, note: &str) -> String {
    match generation.filter(|_| !warning) {
        Some(generation) => format!("{generation} {note}"),
        None => note.to_owned(),
    }
}

/// Not as `message`: that is the key of the line's own words.
fn log(event: &status::Event) {
    let pod = event.pod.as_ref().map(|(name, _)| name.as_str());
    tracing::info!(reason = event.reason.as_str(), pod, note = event.message, "event");
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
    use crate::{status::EventReason, telemetry};

    #[test]
    fn a_line_of_an_event_has_each_key_once() {
        let event = status::Event {
            reason: EventReason::PodStuck,
            pod: Some(("chat-3".into(), "uid".into())),
            message: "chat-3 can't start".into(),
        };
        let lines = telemetry::tests::json_lines(|| log(&event));
        let [line] = &lines[..] else { panic!("{lines:?}") };
        let of = |key: &str| line.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str().unwrap());
        assert_eq!(of("message"), Some("event"));
        assert_eq!(of("note"), Some("chat-3 can't start"));
        assert_eq!((of("reason"), of("pod")), (Some("PodStuck"), Some("chat-3")));
    }

    #[test]
    fn a_story_goes_on_with_each_generation_and_a_warning_that_repeats_is_counted() {
        assert_ne!(key(false, Some(3), "Paused"), key(false, Some(5), "Paused"));
        assert_eq!(key(false, Some(3), "Paused"), key(false, Some(3), "Paused"));
        assert_eq!(key(true, Some(3), "chat-0 fails"), key(true, Some(5), "chat-0 fails"));
    }

    #[test]
    fn notes_are_cut_at_a_character() {
        assert_eq!(shortened("short".into()), "short");
        assert_eq!(shortened("é".repeat(600)).len(), 1000);
        assert_eq!(shortened(format!("a{}", "é".repeat(600))).len(), 999);
    }
}
