//! A drain as annotations on its pod: what they are, and the patches that write and strip them. It
//! must never leave one of an earlier drain behind: that one's end would be taken for this one's.

use serde_json::{Map, Value, json};
use sluice_crds::names;

use crate::model::{DrainCommitment, DrainOverride};

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

/// Commits a pod, and takes its label off. `said`: what a person wanted with a drain of it before.
pub(super) fn commit(commitment: &DrainCommitment, said: Option<DrainOverride>) -> Value {
    let mut written = none(said);
    let stated = annotations(commitment).into_iter();
    written.extend(stated.map(|(key, value)| (key.to_owned(), value.into())));
    written.insert(names::ACCEPTING_SINCE.into(), Value::Null);
    json!({ "metadata": {
        "annotations": written,
        "labels": { names::ACCEPTING_LABEL: null },
    } })
}

/// Takes a drain off, and the request for it. `said`: what a person wants with it.
pub(super) fn strip(said: Option<DrainOverride>) -> Value {
    let mut stripped = none(said);
    stripped.insert(names::EVICTION_REQUESTED_AT.into(), Value::Null);
    json!({ "metadata": { "annotations": stripped } })
}

/// No drain. A release goes with it: of the next drain it would close everybody at once.
fn none(said: Option<DrainOverride>) -> Map<String, Value> {
    let release = (said == Some(DrainOverride::Release)).then_some(names::DRAIN_OVERRIDE);
    DRAIN.into_iter().chain(release).map(|key| (key.to_owned(), Value::Null)).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use sluice_crds::DrainReason;

    use super::*;

    fn commitment() -> DrainCommitment {
        DrainCommitment {
            reason: DrainReason::Rollout,
            started_at: Timestamp::UNIX_EPOCH,
            deadline: Timestamp::UNIX_EPOCH,
            target: "new".into(),
            initial: None,
            drained_at: None,
        }
    }

    #[test]
    fn a_drain_that_begins_leaves_nothing_of_the_one_before() {
        let written = &commit(&commitment(), None)["metadata"];
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
        let stripped = strip(None);
        let annotations = stripped["metadata"]["annotations"].as_object().expect("annotations");
        assert!(annotations.values().all(Value::is_null) && annotations.len() == 7);
    }

    #[test]
    fn a_release_is_for_one_drain_and_a_cancel_stays() {
        let taken_off = |said: Option<DrainOverride>| {
            [commit(&commitment(), said), strip(said)].map(|patch| {
                let annotations = patch["metadata"]["annotations"].as_object().expect("some");
                annotations.get(names::DRAIN_OVERRIDE).is_some_and(Value::is_null)
            })
        };
        assert_eq!(taken_off(Some(DrainOverride::Release)), [true, true]);
        assert_eq!(taken_off(Some(DrainOverride::Cancel)), [false, false]);
        assert_eq!(taken_off(None), [false, false], "one that is written meanwhile stays");
    }
}
