//! What goes on when an object that pods need can't be written.

use sluice_crds::DrainReason;
use sluice_node_api::admin::{DrainMode, DrainRequest};

use super::*;
use crate::model::{DrainCommitment, PodState};

#[test]
fn only_drains_that_had_begun_are_renewed() {
    let pod = |uid: &str| PodRef { uid: uid.into(), ..PodRef::default() };
    let now = Timestamp::UNIX_EPOCH;
    let commitment = DrainCommitment {
        reason: DrainReason::Rollout,
        started_at: now,
        deadline: now,
        target: String::new(),
        initial: None,
        drained_at: None,
    };
    let request = DrainRequest {
        mode: DrainMode::Wait,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 1,
        batch_interval_seconds: 0.0,
        ttl_seconds: 300.0,
    };
    let start = |uid| Action::StartDrain { pod: pod(uid), request: request.clone() };
    let plan = Plan {
        actions: vec![
            start("runs"),
            Action::Commit { pod: pod("new"), commitment: commitment.clone() },
            start("new"),
            Action::MarkDrained { pod: pod("runs"), at: now },
            Action::CancelDrain { pod: pod("other") },
        ],
        ..Plan::default()
    };
    let known = |uid: &str, drain| PodState { uid: uid.into(), drain, ..PodState::default() };
    let pods = vec![known("runs", Some(commitment)), known("new", None), known("other", None)];
    let seen = Observed { statefulset: None, pods };
    assert_eq!(renewals(&plan, &seen, &[]), [&start("runs")]);
    let done = [Action::CancelDrain { pod: pod("other") }, start("runs")];
    assert!(renewals(&plan, &seen, &done).is_empty(), "it was told already");
}
