//! What a person is told: the status of a cluster, and the events of its story.
//!
//! [`report`] is pure. A status is rebuilt from what was seen each time and is never read back to
//! decide anything; the previous one serves only to keep `lastTransitionTime` and to tell what is
//! new. It must hold nothing that changes while the cluster does not, or each write of it would
//! wake the reconciler for the next.

mod conditions;
mod events;
mod progress;
mod ready;

#[cfg(test)]
mod tests;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use sluice_crds::{
    ChannelClusterStatus, DrainReason, DrainReport, DrainReportPhase, Reason, Rollout,
    names::{CLUSTER_LABEL, COMPONENT_LABEL, COMPONENT_NODE},
};
use sluice_node_api::admin::DrainPhase;

pub use conditions::{find, reason_name, type_name};
pub use events::{Event, EventReason, rebalancing};
pub use progress::{Progress, progress};

use crate::{
    model::{Desired, DrainOverride, Observed, Plan, PodState},
    plan::drained_now,
};

/// What else is known when a status is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The image of the wanted revision, as rendered.
    pub image: String,
    /// Why the spec can't be carried out ([`Reason::InvalidSpec`]) or applied
    /// ([`Reason::ApplyConflict`]), with a sentence for a person.
    pub trouble: Option<(Reason, String)>,
    /// What Kubernetes' events say of what is in the way; empty when nothing.
    pub hint: String,
    /// A node that has not loaded the live settings yet; empty when there is none.
    pub unloaded: String,
    /// Why the managed Redis can't start; empty when nothing is in its way.
    pub redis: String,
    /// A balancer that has no address yet; empty when there is none.
    pub unaddressed: String,
    /// When the spec was last changed, if that is known.
    pub changed_at: Option<Timestamp>,
}

/// The status of a cluster, and what is new in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Report {
    /// The status to write, if it differs from the one that is there.
    pub status: ChannelClusterStatus,
    /// What to publish, in order.
    pub events: Vec<Event>,
}

/// Says how a cluster is. `previous`: the status that it has now.
pub fn report(
    desired: &Desired<'_>,
    observed: &Observed,
    plan: &Plan,
    facts: &Facts,
    previous: Option<&ChannelClusterStatus>,
    now: Timestamp,
) -> Report {
    let mut progress = progress(desired, observed, now);
    // A pod that is missing says nothing of its revision: what was told as rolling is done when all
    // are back.
    progress.rolling |= progress.goes_on(previous.and_then(|s| s.rollout.as_ref()));
    let pods: Vec<&PodState> = observed.pods.iter().filter(|p| !p.terminating).collect();
    let count = |f: &dyn Fn(&PodState) -> bool| pods.iter().filter(|p| f(p)).count() as i32;
    let min_ready = crate::plan::min_ready(desired.spec);
    let sts = observed.statefulset.as_ref();
    let drains = drains(desired, observed, plan, previous, now);
    let mut status = ChannelClusterStatus {
        observed_generation: Some(desired.generation),
        replicas: pods.len() as i32,
        ready_replicas: count(&|p| p.ready),
        available_replicas: count(&|p| p.available(min_ready, now)),
        updated_replicas: progress.updated,
        draining_replicas: drains.len() as i32,
        draining_connections: drains.iter().map(|d| d.remaining_connections).sum(),
        connections: observed.pods.iter().filter_map(PodState::connections).sum::<u64>() as i64,
        current_revision: sts.map(|s| s.current_revision.clone()).unwrap_or_default(),
        update_revision: sts.map(|s| s.update_revision.clone()).unwrap_or_default(),
        image: facts.image.clone(),
        selector: format!("{CLUSTER_LABEL}={},{COMPONENT_LABEL}={COMPONENT_NODE}", desired.name),
        rollout: progress.rolling.then(|| Rollout {
            // While the next template is on its way to the controller, the last one told.
            target_revision: Some(progress.target.clone())
                .filter(|t| !t.is_empty())
                .or_else(|| previous?.rollout.as_ref().map(|r| r.target_revision.clone()))
                .unwrap_or_default(),
            started_at: sts.and_then(|s| s.rollout_started_at).map(Time),
            last_progress_at: progress.last_progress_at.map(Time),
            current_pod: progress.current_pod.clone(),
            moved_connections: moved(sts.and_then(|s| s.rollout_started_at), previous, &drains),
        }),
        drains,
        conditions: Vec::new(),
    };
    let grounds = conditions::Grounds {
        desired,
        observed,
        plan,
        facts,
        progress: &progress,
        status: &status,
    };
    let before = previous.map(|s| s.conditions.as_slice()).unwrap_or_default();
    status.conditions = conditions::all(&grounds, before, now);
    let events = events::since(desired, observed, plan, &progress, &status, previous, now);
    Report { status, events }
}

/// Connections that the rollout which began at `started` has moved: those told before, and what its
/// drains have fewer since.
fn moved(
    started: Option<Timestamp>,
    previous: Option<&ChannelClusterStatus>,
    drains: &[DrainReport],
) -> i64 {
    let before = previous.map_or(&[][..], |s| &s.drains);
    let told = previous
        .and_then(|s| s.rollout.as_ref())
        .filter(|r| r.started_at.as_ref().map(|t| t.0) == started)
        .map_or(0, |r| r.moved_connections);
    let rolls = |d: &&DrainReport| d.reason == DrainReason::Rollout;
    let fewer = drains.iter().filter(rolls).map(|d| {
        let was = before.iter().find(|b| b.pod_uid == d.pod_uid);
        was.map_or(d.initial_connections, |b| b.remaining_connections) - d.remaining_connections
    });
    // Whoever was left on a pod that went was moved by its end.
    let gone = before.iter().filter(rolls).filter(|b| {
        b.phase == DrainReportPhase::Releasing && !drains.iter().any(|d| d.pod_uid == b.pod_uid)
    });
    let gone = gone.map(|b| b.remaining_connections);
    fewer.chain(gone).map(|n| n.max(0)).sum::<i64>() + told
}

fn drains(
    desired: &Desired<'_>,
    observed: &Observed,
    plan: &Plan,
    previous: Option<&ChannelClusterStatus>,
    now: Timestamp,
) -> Vec<DrainReport> {
    let inside = |p: &PodState| {
        observed
            .statefulset
            .as_ref()
            .is_some_and(|s| (s.ordinals_start..s.ordinals_start + s.replicas).contains(&p.ordinal))
    };
    let exit = desired.spec.drain.exit_at_connections.max(0) as u64;
    let mut pods: Vec<&PodState> = observed.pods.iter().collect();
    pods.sort_by_key(|p| p.ordinal);
    pods.into_iter()
        .filter_map(|p| {
            let c = p.drain.as_ref()?;
            let told = previous.and_then(|s| s.drains.iter().find(|d| d.pod_uid == p.uid));
            // It serves nobody, and nothing waits for it. That it goes is told once, with whoever was left.
            if p.left_over() && told.is_none_or(|d| d.phase == DrainReportPhase::Releasing) {
                return None;
            }
            let initial = c.initial.unwrap_or_default() as i64;
            let last = told.map(|d| d.remaining_connections);
            let remaining = p.connections().map_or(last.unwrap_or(initial), |n| n as i64);
            // Somebody deleted it, and it drains on: nobody has let it go.
            let drains_on = p.terminating
                && now < c.deadline
                && p.drain_override != Some(DrainOverride::Release)
                && p.connections().is_some_and(|left| left > exit);
            let phase = if !drains_on && (p.terminating || !inside(p)) {
                DrainReportPhase::Releasing
            } else if events::cancels(plan, p) {
                DrainReportPhase::Cancelling
            } else if drained_now(desired.spec, p) {
                DrainReportPhase::Drained
            } else if now >= c.deadline
                && desired.spec.drain.timeout_policy == sluice_crds::TimeoutPolicy::Hold
            {
                DrainReportPhase::Held
            } else {
                match p.drain_phase() {
                    None | Some(DrainPhase::None) => DrainReportPhase::Selected,
                    Some(DrainPhase::Delay) => DrainReportPhase::Delay,
                    Some(DrainPhase::Waiting) => DrainReportPhase::Waiting,
                    Some(DrainPhase::Closing | DrainPhase::Drained) => DrainReportPhase::Closing,
                }
            };
            Some(DrainReport {
                pod_name: p.name.clone(),
                pod_uid: p.uid.clone(),
                reason: c.reason,
                phase,
                started_at: Some(Time(c.started_at)),
                deadline: Some(Time(c.deadline)),
                initial_connections: initial,
                remaining_connections: remaining,
            })
        })
        .collect()
}
