//! How far a cluster is from what its spec asks for, whether it is paused or not, and since when
//! nothing has moved. Derived from what is durable: annotations, and pods' own times.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::{ConditionType, Rollout};

use crate::{
    model::{Desired, Observed, PodState},
    plan::{self, Slots},
};

/// How far a cluster is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Progress {
    /// Pods are yet to be replaced.
    pub rolling: bool,
    /// There are more pods than are wanted, a surge aside.
    pub shrinking: bool,
    /// Pods are missing.
    pub growing: bool,
    /// Every pod that is to be there is, and is available.
    pub whole: bool,
    /// The StatefulSet is where it is to stay.
    pub settled: bool,
    /// The revision that pods roll to; empty as long as it is not known.
    pub target: String,
    /// Pods at it.
    pub updated: i32,
    /// Pods at the wanted revision (or kept at the old one on purpose) that are available.
    pub done: i32,
    /// Pods kept at the old revision on purpose.
    pub kept: i32,
    /// The pod that the rollout is at.
    pub current_pod: Option<String>,
    /// When a pod was last seen to get on.
    pub last_progress_at: Option<Timestamp>,
}

impl Progress {
    /// Whether the rollout that was told at the last look is not over yet, though every pod that is
    /// there is at its revision.
    pub(super) fn goes_on(&self, told: Option<&Rollout>) -> bool {
        let same = |told: &Rollout| self.target.is_empty() || told.target_revision == self.target;
        !self.whole && told.is_some_and(same)
    }
}

/// Measures it.
pub fn progress(desired: &Desired<'_>, observed: &Observed, now: Timestamp) -> Progress {
    let Some(sts) = &observed.statefulset else {
        return Progress { growing: desired.spec.replicas > 0, ..Progress::default() };
    };
    let mut spec = desired.spec.clone();
    // What is left to do counts while paused, too.
    spec.paused = false;
    let slots = Slots::new(desired.name, &spec, observed, sts, now);
    let shape = plan::shape(&spec, &slots);
    let settled = plan::settled(sts);
    // Until its controller has seen the template, the revisions that it tells are the last ones.
    let pending = plan::template_pending(desired, observed, sts) || !settled;
    let template_ahead = plan::template_pending(desired, observed, sts);
    let old = slots.list.iter().filter(|s| !s.updated).count() as i32;
    let rolling = spec.replicas > 0 && (template_ahead || old > shape.kept);
    let surge = if rolling || slots.list.iter().any(|s| s.evicting) {
        spec.update_strategy.rolling_update.max_surge
    } else {
        0
    };
    let is_new = |p: &&PodState| !p.terminating && p.revision == sts.update_revision;
    let times = observed.pods.iter().flat_map(|p| {
        let drain = p.drain.as_ref();
        [p.created_at, p.ready_since, drain.map(|d| d.started_at), drain.and_then(|d| d.drained_at)]
    });
    let current_pod = slots
        .draining()
        .map(|(s, _)| s)
        .chain(slots.list.iter().filter(|s| s.updated && !s.available))
        .map(|s| s.name().to_owned())
        .next();
    Progress {
        rolling,
        shrinking: sts.replicas > spec.replicas + surge,
        growing: sts.replicas < spec.replicas
            || (!rolling && slots.list.iter().any(|s| !s.available)),
        whole: spec.replicas == 0 || slots.list.iter().all(|s| s.available),
        settled: settled && shape.victims.is_empty() && sts.replicas == spec.replicas,
        target: if pending { String::new() } else { sts.update_revision.clone() },
        updated: if template_ahead {
            0
        } else {
            observed.pods.iter().filter(is_new).count() as i32
        },
        done: slots
            .list
            .iter()
            .enumerate()
            .filter(|(i, s)| s.available && shape.victim(*i).is_none())
            .count() as i32,
        kept: shape.kept,
        current_pod: current_pod.filter(|_| rolling),
        last_progress_at: times.flatten().chain(sts.rollout_started_at).filter(|t| *t <= now).max(),
    }
}

/// Whether nothing has moved for too long. Time spent paused or draining does not count.
pub(super) fn overdue(
    desired: &Desired<'_>,
    observed: &Observed,
    progress: &Progress,
    facts: &super::Facts,
    previous: &[k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition],
    now: Timestamp,
) -> bool {
    let spec = desired.spec;
    let busy = progress.rolling || progress.growing || progress.shrinking;
    // Told at the last look: when its end is seen here, that is told first.
    let drained = super::find(previous, ConditionType::Draining);
    let drains =
        drained.is_some_and(|c| c.status == "True") || observed.pods.iter().any(PodState::drains);
    if !busy || spec.paused || drains {
        return false;
    }
    // What has only just begun has its time before it, however long it was quiet before. So does
    // another spec: the API server stamps no time on a change that only takes fields away.
    let reported = super::find(previous, ConditionType::Progressing)
        .filter(|c| c.status == "True" && c.observed_generation == Some(desired.generation));
    if reported.is_none() {
        return false;
    }
    let mended = super::find(previous, ConditionType::Stalled)
        .filter(|c| c.status == "False")
        .map(|c| c.last_transition_time.0);
    let resumed = super::find(previous, ConditionType::Paused).map(|c| c.last_transition_time.0);
    // A change of size leaves no mark of its own on the StatefulSet: count from when it was told.
    let begun = reported.map(|c| c.last_transition_time.0);
    let ended = drained.map(|c| c.last_transition_time.0);
    let marks = [progress.last_progress_at, resumed, begun, mended, ended, facts.changed_at];
    let Some(since) = marks.into_iter().flatten().max() else {
        return false;
    };
    now.duration_since(since)
        > SignedDuration::from_secs(spec.progress_deadline_seconds.max(1).into())
}
