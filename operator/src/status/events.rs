//! What is new since the previous status, as events that read as a story.

use jiff::Timestamp;
use sluice_crds::{ChannelClusterStatus, ConditionType, DrainReport, DrainReportPhase, Reason};
use sluice_node_api::admin::DrainPhase;

use super::{
    Progress,
    conditions::{self, pods},
    find,
};
use crate::{
    model::{Action, Desired, Observed, Plan, PodState},
    plan,
};

/// Why an event is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventReason {
    /// Pods begin to be replaced.
    RolloutStarted,
    /// Every pod is at the wanted revision.
    RolloutCompleted,
    /// The wanted revision changed before all pods were at it.
    RolloutSuperseded,
    /// The cluster begins to shrink.
    ScaleDownStarted,
    /// A pod begins to drain.
    DrainStarted,
    /// A pod has drained.
    DrainCompleted,
    /// A drain ended before its time with connections left: a person said so, or its pod went.
    DrainReleased,
    /// A drain was undone.
    DrainCancelled,
    /// Somebody who evicts a pod was told to try again later.
    EvictionDeferred,
    /// Clients that sat unevenly are being spread.
    Rebalancing,
    /// `spec.paused` was set.
    Paused,
    /// `spec.paused` was taken back.
    Resumed,
    /// A drain's time was over with connections left.
    DrainTimedOut,
    /// A draining node's admin API does not answer.
    DrainEndpointUnreachable,
    /// A pod can't start.
    PodStuck,
    /// A pod that could not start makes way.
    StuckPodReplaced,
    /// Nothing moved for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded,
    /// A Kubernetes node is not ready.
    NodeUnreachable,
    /// Redis is not reached.
    RedisUnavailable,
    /// The API server does not take what the spec leads to.
    InvalidSpec,
    /// Something can't be written, again and again.
    ApplyConflict,
}

impl EventReason {
    /// Whether its type is `Warning`.
    pub fn is_warning(self) -> bool {
        use EventReason::*;
        matches!(
            self,
            DrainTimedOut
                | DrainEndpointUnreachable
                | PodStuck
                | StuckPodReplaced
                | ProgressDeadlineExceeded
                | NodeUnreachable
                | RedisUnavailable
                | InvalidSpec
                | ApplyConflict
        )
    }
    /// As it is written.
    pub fn as_str(self) -> String {
        format!("{self:?}")
    }
}

/// An event to publish about the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Why.
    pub reason: EventReason,
    /// Name and UID of the pod that it is related to.
    pub pod: Option<(String, String)>,
    /// A sentence for a person.
    pub message: String,
}

/// What is told of the steps that were `done`: no status tells of clients that are spread again.
pub fn rebalancing(done: &[Action]) -> Option<Event> {
    let sheds: Vec<(&str, u32)> = done
        .iter()
        .filter_map(|action| match action {
            Action::Shed { pod, request } if request.count > 0 => {
                Some((pod.name.as_str(), request.count))
            }
            _ => None,
        })
        .collect();
    let names: Vec<&str> = sheds.iter().map(|(name, _)| *name).collect();
    let count: u64 = sheds.iter().map(|(_, count)| u64::from(*count)).sum();
    let message = format!("Moving {count} connections of {} to pods with fewer", names.join(", "));
    let reason = EventReason::Rebalancing;
    (!sheds.is_empty()).then_some(Event { reason, pod: None, message })
}

pub(super) fn since(
    desired: &Desired<'_>,
    observed: &Observed,
    plan: &Plan,
    progress: &Progress,
    status: &ChannelClusterStatus,
    previous: Option<&ChannelClusterStatus>,
    now: Timestamp,
) -> Vec<Event> {
    let empty = ChannelClusterStatus::default();
    let before = previous.unwrap_or(&empty);
    let mut out = Vec::new();
    let mut say = |reason, message: String| out.push(Event { reason, pod: None, message });

    paused(status, before, &mut say);
    rollout(progress, status, before, &mut say);
    let reason_of = |s: &ChannelClusterStatus, t| {
        find(&s.conditions, t).filter(|c| c.status == "True").map(|c| c.reason.clone())
    };
    let scaling = Some(conditions::reason_name(Reason::ScalingDown));
    if reason_of(status, ConditionType::Progressing) == scaling
        && reason_of(before, ConditionType::Progressing) != scaling
        && let Some(from) = surplus(desired, observed, before)
    {
        say(
            EventReason::ScaleDownStarted,
            format!("Scaling down to {}, there are {from}", pods(desired.spec.replicas)),
        );
    }
    drains(desired, (observed, plan), (status, before), now, &mut out);
    stuck(observed, plan, &mut out);
    troubles(status, before, &mut out);
    out
}

/// How many pods there are to be, if that is more than are wanted and not for a rollout that was
/// given up: its surge pods are no change of size.
fn surplus(
    desired: &Desired<'_>,
    observed: &Observed,
    before: &ChannelClusterStatus,
) -> Option<i32> {
    let surge = match before.rollout {
        Some(_) => desired.spec.update_strategy.rolling_update.max_surge.max(0),
        None => 0,
    };
    let from = observed.statefulset.as_ref()?.replicas;
    (from > desired.spec.replicas.saturating_add(surge)).then_some(from)
}

fn paused(
    status: &ChannelClusterStatus,
    before: &ChannelClusterStatus,
    say: &mut dyn FnMut(EventReason, String),
) {
    let is = |s: &ChannelClusterStatus| {
        find(&s.conditions, ConditionType::Paused).is_some_and(|c| c.status == "True")
    };
    match (is(before), is(status)) {
        (false, true) => {
            say(EventReason::Paused, "Paused: nothing begins, drains are undone".into());
        }
        (true, false) => say(EventReason::Resumed, "Resumed".into()),
        _ => {}
    }
}

fn rollout(
    progress: &Progress,
    status: &ChannelClusterStatus,
    before: &ChannelClusterStatus,
    say: &mut dyn FnMut(EventReason, String),
) {
    let target = |s: &ChannelClusterStatus| {
        s.rollout.as_ref().map(|r| r.target_revision.clone()).filter(|t| !t.is_empty())
    };
    match (target(before), target(status)) {
        (None, Some(t)) => {
            say(
                EventReason::RolloutStarted,
                format!("Rolling {} to revision {t}", pods(status.replicas)),
            );
        }
        (Some(old), Some(new)) if old != new => say(
            EventReason::RolloutSuperseded,
            format!("Rolling to revision {new} instead of {old}"),
        ),
        (Some(old), None) if old != status.update_revision => say(
            EventReason::RolloutSuperseded,
            format!("Back at revision {} instead of {old}", status.update_revision),
        ),
        (Some(t), None) => {
            let kept = match progress.kept {
                0 => String::new(),
                1 => ", 1 stays at the old one (partition)".into(),
                k => format!(", {k} stay at the old one (partition)"),
            };
            let message = format!("{} at revision {t}{kept}", pods(status.updated_replicas));
            say(EventReason::RolloutCompleted, message);
        }
        _ => {}
    }
}

fn drains(
    desired: &Desired<'_>,
    (observed, plan): (&Observed, &Plan),
    (status, before): (&ChannelClusterStatus, &ChannelClusterStatus),
    now: Timestamp,
    out: &mut Vec<Event>,
) {
    use DrainReportPhase::{Cancelling, Drained, Held, Releasing};
    let exit = i64::from(desired.spec.drain.exit_at_connections);
    let over = |d: &DrainReport| matches!(d.phase, Drained | Releasing);
    let mut say = |reason, d: &DrainReport, message| {
        out.push(Event { reason, pod: Some((d.pod_name.clone(), d.pod_uid.clone())), message });
    };
    let late = |d: &DrainReport| d.deadline.as_ref().is_some_and(|t| now >= t.0);
    let ended = |d: &DrainReport| {
        let left = d.remaining_connections;
        let moved = (d.initial_connections - left).max(0);
        if left > exit && !late(d) {
            // A person released it, or its container ended and took them along.
            let text =
                format!("{} goes, {left} connections were left when it last told", d.pod_name);
            (EventReason::DrainReleased, text)
        } else if left > exit {
            let text =
                format!("{} goes with {left} connections: its drain's time is over", d.pod_name);
            (EventReason::DrainTimedOut, text)
        } else {
            (
                EventReason::DrainCompleted,
                format!("{} has drained, {moved} connections moved", d.pod_name),
            )
        }
    };
    let released = |d: &DrainReport, left: i64| {
        format!("{} was held, and goes: {left} connections were left", d.pod_name)
    };
    for d in &status.drains {
        let was = before.drains.iter().find(|b| b.pod_uid == d.pod_uid);
        if was.is_none() && d.phase != Cancelling {
            let why = match d.reason {
                sluice_crds::DrainReason::Rollout => "another revision takes its place",
                sluice_crds::DrainReason::ScaleDown => "the cluster shrinks",
                sluice_crds::DrainReason::Eviction => "its Kubernetes node is being emptied",
            };
            let n = d.initial_connections;
            let text = format!("Draining {} with {n} connections: {why}", d.pod_name);
            say(EventReason::DrainStarted, d, text);
        }
        if over(d) && !was.is_some_and(over) {
            let left = was.map_or(0, |b| b.remaining_connections);
            let held = was.is_some_and(|b| b.phase == Held);
            let (reason, text) = match ended(d) {
                _ if held && left > exit => (EventReason::DrainReleased, released(d, left)),
                // Whoever was left when its time was over has been moved at once.
                (EventReason::DrainCompleted, _) if late(d) && left > exit => (
                    EventReason::DrainTimedOut,
                    format!(
                        "{}: its drain's time was over with {left} connections left, all moved at once",
                        d.pod_name
                    ),
                ),
                told => told,
            };
            say(reason, d, text);
        }
        if d.phase == Held && was.is_none_or(|b| b.phase != Held) {
            let left = d.remaining_connections;
            let text =
                format!("{} is held with {left} connections: its drain's time is over", d.pod_name);
            say(EventReason::DrainTimedOut, d, text);
        }
    }
    for d in &before.drains {
        if status.drains.iter().any(|n| n.pod_uid == d.pod_uid) {
            continue;
        }
        // One that is being deleted serves nobody again: it is as good as gone.
        if let Some(p) = observed.pods.iter().find(|p| p.uid == d.pod_uid && !p.terminating) {
            // Its annotations were taken off by hand, and its node drains on.
            if p.drain_phase().is_some_and(|at| at != DrainPhase::None) && !cancels(plan, p) {
                continue;
            }
            let text = format!("{} serves again, its drain is undone", d.pod_name);
            say(EventReason::DrainCancelled, d, text);
        } else if !over(d) {
            // Gone between two looks: how many were left then, nobody knows.
            let (left, pod) = (d.remaining_connections, &d.pod_name);
            let (reason, text) = if left <= exit {
                (EventReason::DrainCompleted, format!("{pod} has drained and is gone"))
            } else if d.phase == Held {
                (EventReason::DrainReleased, released(d, left))
            } else if late(d) {
                let text =
                    format!("{pod} is gone: its drain's time was over with {left} connections");
                (EventReason::DrainTimedOut, text)
            } else {
                let text = format!("{pod} is gone, {left} connections were left when it last told");
                (EventReason::DrainReleased, text)
            };
            say(reason, d, text);
        }
    }
}

/// Whether the plan undoes a drain of the pod.
pub(super) fn cancels(plan: &Plan, p: &PodState) -> bool {
    plan.actions.iter().any(|a| matches!(a, Action::CancelDrain { pod } if pod.uid == p.uid))
}

fn stuck(observed: &Observed, plan: &Plan, out: &mut Vec<Event>) {
    let Some(sts) = &observed.statefulset else { return };
    if !plan::settled(sts) || plan.cursor == plan::at(sts) {
        return;
    }
    let c = plan.cursor;
    for p in observed.pods.iter().filter(|p| !p.terminating && !p.ready) {
        let (Some(why), index) = (p.stuck, p.ordinal - c.ordinals_start) else { continue };
        let replaced = index >= c.partition && p.revision != sts.update_revision;
        if replaced || !(0..c.replicas).contains(&index) {
            out.push(Event {
                reason: EventReason::StuckPodReplaced,
                pod: Some((p.name.clone(), p.uid.clone())),
                message: format!("{} could not start ({}) and makes way", p.name, why.as_str()),
            });
        }
    }
}

fn troubles(status: &ChannelClusterStatus, before: &ChannelClusterStatus, out: &mut Vec<Event>) {
    let Some(now) = find(&status.conditions, ConditionType::Ready) else { return };
    if find(&before.conditions, ConditionType::Ready).is_some_and(|b| b.reason == now.reason) {
        return;
    }
    let all = [
        (Reason::PodStuck, EventReason::PodStuck),
        (Reason::ProgressDeadlineExceeded, EventReason::ProgressDeadlineExceeded),
        (Reason::NodeUnreachable, EventReason::NodeUnreachable),
        (Reason::DrainEndpointUnreachable, EventReason::DrainEndpointUnreachable),
        (Reason::RedisUnavailable, EventReason::RedisUnavailable),
        (Reason::InvalidSpec, EventReason::InvalidSpec),
        (Reason::ApplyConflict, EventReason::ApplyConflict),
    ];
    for (reason, event) in all {
        if now.reason == conditions::reason_name(reason) {
            out.push(Event { reason: event, pod: None, message: now.message.clone() });
        }
    }
}
