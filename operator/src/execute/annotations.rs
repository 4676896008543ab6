//! A drain as annotations on its pod: what they are, and the patches that write and strip them. It
//! must never leave one of an earlier drain behind: that one's end would be taken for this one's.

use serde_json::{Map, Value, json};
use sluice_crds::names;

use crate::model::DrainCommitment;

/// Those that a drain has.
const DRAIN: [&str; 6] = [
    names::DRAIN_REASON,
    names::DRAIN_STARTED_AT,
    names::DRAIN_DEADLINE,
    names::DRAIN_TARGET,
    names::DRAIN_INITIAL,
    names::DRAINED_AT,
];

/// A drain as annotations.
pub fn annotations(commitment: &DrainCommitment) -> Vec<(&'static str, String)> {
    let mut annotations = vec![
        (names::DRAIN_REASON, format!("{:?}", commitment.reason)),
        (names::DRAIN_STARTED_AT, commitment.started_at.to_string()),
        (names::DRAIN_DEADLINE, commitment.deadline.to_string()),
        (names::DRAIN_TARGET, commitment.target.clone()),
    ];
    if let Some(initial) = commitment.initial {
        annotations.push((names::DRAIN_INITIAL, initial.to_string()));
    }
    if let Some(at) = commitment.drained_at {
        annotations.push((names::DRAINED_AT, at.to_string()));
    }
    annotations
}

/// Commits a pod, and takes its label off.
pub(super) fn commit(commitment: &DrainCommitment) -> Value {
    let mut written = none();
    let stated = annotations(commitment).into_iter();
    written.extend(stated.map(|(key, value)| (key.to_owned(), value.into())));
    written.insert(names::ACCEPTING_SINCE.into(), Value::Null);
    json!({ "metadata": {
        "annotations": written,
        "labels": { names::ACCEPTING_LABEL: null },
    } })
}

/// Takes a drain off, and the request for it.
pub(super) fn strip() -> Value {
    let mut stripped = none();
    stripped.insert(names::EVICTION_REQUESTED_AT.into(), Value::Null);
    json!({ "metadata": { "annotations": stripped } })
}

fn none() -> Map<String, Value> {
    DRAIN.into_iter().map(|key| (key.to_owned(), Value::Null)).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sluice_crds::DrainReason;

    use super::*;

    #[test]
    fn a_drain_that_begins_leaves_nothing_of_the_one_before() {
        let commitment = DrainCommitment {
            reason: DrainReason::Rollout,
            started_at: Timestamp::UNIX_EPOCH,
            deadline: Timestamp::UNIX_EPOCH,
            target: "new".into(),
            initial: None,
            drained_at: None,
        };
        let written = &commit(&commitment)["metadata"];
        let annotations = written["annotations"].as_object().expect("annotations");
        for (key, begins) in [
            (names::DRAIN_STARTED_AT, true),
            (names::DRAIN_DEADLINE, true),
            (names::DRAIN_INITIAL, false),
            (names::DRAINED_AT, false),
            (names::ACCEPTING_SINCE, false),
        ] {
            assert_eq!(annotations[key].is_string(), begins, "{key}: {annotations:?}");
        }
        assert!(!annotations.contains_key(names::EVICTION_REQUESTED_AT), "somebody still waits");
        assert_eq!(written["labels"][names::ACCEPTING_LABEL], Value::Null);
        let stripped = strip();
        let annotations = stripped["metadata"]["annotations"].as_object().expect("annotations");
        assert!(annotations.values().all(Value::is_null) && annotations.len() == 7);
    }
}
