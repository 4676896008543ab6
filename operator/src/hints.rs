//! What Kubernetes' own events say of a pod that does not start, or of a StatefulSet that makes no
//! pods: a volume that can't be mounted, a ServiceAccount that is missing, a quota. It stands in no
//! status.
//!
//! It must never decide anything: what it finds is only told. One bounded read in a pass, and none
//! as long as everything gets on. Without the right to read events, nothing is told.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::events::v1::Event;
use kube::{Api, Client, api::ListParams};

use crate::{
    model::{Observed, PodState},
    observe::brief,
};

/// A pod that was just made has nothing to tell.
pub(crate) const GRACE: SignedDuration = SignedDuration::from_secs(5);
/// The most events that are read of one object; Kubernetes merges those that repeat.
const MOST: u32 = 100;

/// Reads what is told of whatever is in the way; empty when nothing is, or nothing is told.
pub async fn read(
    client: &Client,
    namespace: &str,
    observed: &Observed,
    replicas: i32,
    now: Timestamp,
) -> String {
    let Some((uid, name)) = in_the_way(observed, replicas, now) else { return String::new() };
    newest(client, namespace, name, &format!("regarding.uid={uid}")).await
}

/// What the newest event that `fields` select says of `name`, if it is a warning.
pub async fn newest(client: &Client, namespace: &str, name: &str, fields: &str) -> String {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    match events.list(&ListParams::default().fields(fields).limit(MOST)).await {
        Ok(events) => told(name, &events.items),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(name, error, "can't read the events");
            String::new()
        }
    }
}

/// UID and name of what does not get on: the StatefulSet that lacks pods, or else the lowest pod
/// that does not run and of which nothing else is known.
fn in_the_way(observed: &Observed, replicas: i32, now: Timestamp) -> Option<(&str, &str)> {
    let set = observed.statefulset.as_ref()?;
    let waits = |pod: &&PodState| {
        let new = pod.created_at.is_some_and(|at| now.duration_since(at) < GRACE);
        !pod.terminating && !pod.running && pod.stuck.is_none() && !new
    };
    let there = observed.pods.len() as i32;
    if there < replicas.min(set.replicas) && set.observed_generation >= set.generation {
        return Some((&set.uid, "the StatefulSet"));
    }
    let pod = observed.pods.iter().filter(waits).min_by_key(|pod| pod.ordinal)?;
    Some((&pod.uid, &pod.name))
}

/// What the newest event says, if it is a warning: after an event of another kind it is over.
fn told(name: &str, events: &[Event]) -> String {
    let Some(newest) = events.iter().max_by_key(|event| last(event)) else { return String::new() };
    if newest.type_.as_deref() != Some("Warning") {
        return String::new();
    }
    let reason = newest.reason.as_deref().unwrap_or_default();
    let note = newest.note.as_deref().map(brief).unwrap_or_default();
    format!("Kubernetes says of {name}: {reason}: {note}")
}

/// When it happened last.
fn last(event: &Event) -> Option<Timestamp> {
    let series = event.series.as_ref().map(|series| series.last_observed_time.0);
    let old = event.deprecated_last_timestamp.as_ref().map(|time| time.0);
    let once = event.event_time.as_ref().map(|time| time.0);
    series.max(old).max(once)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{StatefulSetState, StuckReason};

    fn event(type_: &str, reason: &str, time: serde_json::Value) -> Event {
        let mut event = json!({ "type": type_, "reason": reason, "note": "no\n such thing" });
        event.as_object_mut().unwrap().extend(time.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn the_newest_event_counts_whatever_its_kind_of_time() {
        let mount = event(
            "Warning",
            "FailedMount",
            json!({ "deprecatedLastTimestamp": "2026-01-01T00:02:00Z" }),
        );
        let scheduled =
            event("Normal", "Scheduled", json!({ "eventTime": "2026-01-01T00:01:00.000000Z" }));
        let series =
            json!({ "series": { "count": 2, "lastObservedTime": "2026-01-01T00:03:00.000000Z" } });
        let started = event("Normal", "Started", series);
        let all = [mount, scheduled, started];
        assert_eq!(
            told("chat-3", &all[..2]),
            "Kubernetes says of chat-3: FailedMount: no; such thing"
        );
        assert_eq!(told("chat-3", &all), "", "it is over");
        assert_eq!(told("chat-3", &[]), "");
    }

    #[test]
    fn nothing_is_read_while_everything_gets_on() {
        let now: Timestamp = "2026-01-01T00:10:00Z".parse().unwrap();
        let set = StatefulSetState { uid: "set".into(), replicas: 2, ..Default::default() };
        let pod = |ordinal: i32, age: i64| PodState {
            uid: format!("u{ordinal}"),
            name: format!("chat-{ordinal}"),
            ordinal,
            created_at: Some(now - SignedDuration::from_secs(age)),
            ..PodState::default()
        };
        let mut seen = Observed { statefulset: Some(set), pods: vec![pod(1, 60), pod(0, 60)] };
        assert_eq!(in_the_way(&seen, 2, now), Some(("u0", "chat-0")));
        seen.pods[1].running = true;
        assert_eq!(in_the_way(&seen, 2, now), Some(("u1", "chat-1")));
        // It is known why.
        seen.pods[0].stuck = Some(StuckReason::ImagePull);
        assert_eq!(in_the_way(&seen, 2, now), None);
        seen.pods[0] = pod(1, 1);
        assert_eq!(in_the_way(&seen, 2, now), None, "it has just been made");
        seen.pods.remove(0);
        assert_eq!(in_the_way(&seen, 2, now), Some(("set", "the StatefulSet")));
        assert_eq!(in_the_way(&seen, 1, now), None, "it shrinks");
        seen.statefulset.as_mut().unwrap().generation = 1;
        assert_eq!(in_the_way(&seen, 2, now), None, "its controller has not looked yet");
    }
}
