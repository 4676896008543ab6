//! The conditions of a cluster, each true at each moment.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sluice_crds::{
    Adapter, ChannelClusterStatus, ConditionType, DrainReportPhase, Reason, RedisMode,
};

use super::{Facts, Progress, progress};
use crate::{
    model::{Desired, Observed, Plan, PodState},
    plan,
};

/// The condition of type `type_` among `conditions`.
pub fn find(conditions: &[Condition], type_: ConditionType) -> Option<&Condition> {
    conditions.iter().find(|c| c.type_ == type_name(type_))
}

/// A condition's type as it is written.
pub fn type_name(t: ConditionType) -> String {
    format!("{t:?}")
}

/// A reason as it is written.
pub fn reason_name(r: Reason) -> String {
    format!("{r:?}")
}

/// One verdict, before its times are added.
struct Verdict {
    type_: ConditionType,
    /// Absent: not known.
    holds: Option<bool>,
    reason: Reason,
    message: String,
}

fn verdict(type_: ConditionType, holds: bool, reason: Reason, message: String) -> Verdict {
    Verdict { type_, holds: Some(holds), reason, message }
}

#[expect(clippy::too_many_arguments, reason = "each is one of the things a status is made of")]
pub(super) fn all(
    desired: &Desired<'_>,
    observed: &Observed,
    plan: &Plan,
    facts: &Facts,
    progress: &Progress,
    status: &ChannelClusterStatus,
    previous: Option<&ChannelClusterStatus>,
    now: Timestamp,
) -> Vec<Condition> {
    let before = previous.map(|s| s.conditions.as_slice()).unwrap_or_default();
    let late = progress::overdue(desired, observed, progress, facts, before, now);
    let summary = summary(desired, progress, status, plan, facts);
    let stalled = stalled(desired, observed, plan, facts, status, before, late, &summary);
    let redis = redis(desired, observed, facts);
    let ready = ready(desired, plan, progress, status, facts, &stalled, redis.as_ref(), &summary);
    let mut verdicts = vec![
        ready,
        stalled,
        available(desired, observed, status),
        progressing(desired, progress, status, &summary),
        draining(status),
        paused(desired, progress),
        requires_update(desired, observed),
        formed(desired, observed),
        capacity(observed),
    ];
    verdicts.extend(redis);
    verdicts.into_iter().map(|v| dated(v, desired.generation, before, now)).collect()
}

/// Adds the times: the last transition stays unless the status flips.
fn dated(v: Verdict, generation: i64, before: &[Condition], now: Timestamp) -> Condition {
    let status = match v.holds {
        Some(true) => "True",
        Some(false) => "False",
        None => "Unknown",
    };
    let last_transition_time = find(before, v.type_)
        .filter(|c| c.status == status)
        .map_or(Time(now), |c| c.last_transition_time.clone());
    Condition {
        type_: type_name(v.type_),
        status: status.into(),
        reason: reason_name(v.reason),
        message: v.message,
        observed_generation: Some(generation),
        last_transition_time,
    }
}

/// So many pods.
fn pods(n: i32) -> String {
    format!("{n} {}", if n == 1 { "pod" } else { "pods" })
}

/// One sentence with the numbers.
fn summary(
    desired: &Desired<'_>,
    progress: &Progress,
    status: &ChannelClusterStatus,
    plan: &Plan,
    facts: &Facts,
) -> String {
    let n = desired.spec.replicas;
    let mut text = if progress.rolling && progress.target.is_empty() {
        let wait = if status.replicas == 1 { "waits" } else { "wait" };
        format!("{} {wait} for a new revision", pods(status.replicas))
    } else if progress.rolling {
        format!("{} of {n} pods at revision {}", progress.updated.min(n), progress.target)
    } else if progress.kept > 0 {
        format!(
            "{} of {n} pods at revision {}, {} stay at the old one (partition)",
            progress.updated, progress.target, progress.kept
        )
    } else if progress.shrinking {
        let are = if n == 1 { "is" } else { "are" };
        format!("{}, {n} {are} wanted", pods(status.replicas))
    } else {
        format!("{} of {n} pods are ready", status.ready_replicas.min(n))
    };
    for w in plan.waiting.iter().take(3) {
        text.push_str(", ");
        text.push_str(&w.message);
    }
    if !facts.hint.is_empty() {
        text.push_str("; ");
        text.push_str(&facts.hint);
    }
    text
}

#[expect(clippy::too_many_arguments, reason = "each is one of the things that may be in the way")]
fn stalled(
    desired: &Desired<'_>,
    observed: &Observed,
    plan: &Plan,
    facts: &Facts,
    status: &ChannelClusterStatus,
    before: &[Condition],
    late: bool,
    summary: &str,
) -> Verdict {
    let it = |reason, message: String| verdict(ConditionType::Stalled, true, reason, message);
    if let Some((reason, message)) = &facts.trouble {
        return it(*reason, message.clone());
    }
    if let Some(w) = plan.waiting.iter().find(|w| w.reason == Reason::PodStuck) {
        return it(Reason::PodStuck, w.message.clone());
    }
    // It is being tried once more, which makes it no better until it is Ready.
    let stuck = find(before, ConditionType::Stalled).filter(|c| {
        c.status == "True"
            && c.reason == reason_name(Reason::PodStuck)
            && c.observed_generation == Some(desired.generation)
    });
    if let Some(c) = stuck.filter(|_| observed.pods.iter().any(|p| p.crashed && !p.terminating)) {
        return it(Reason::PodStuck, c.message.clone());
    }
    if !facts.redis.is_empty() {
        return it(Reason::RedisUnavailable, facts.redis.clone());
    }
    if let Some(d) = status.drains.iter().find(|d| d.phase == DrainReportPhase::Held) {
        let message = format!(
            "{} is held with {} connections after its drain's time: annotate it {}=release or \
             cancel",
            d.pod_name,
            d.remaining_connections,
            sluice_crds::names::DRAIN_OVERRIDE
        );
        return it(Reason::DrainHeld, message);
    }
    if late {
        let message =
            format!("no progress for {} s: {summary}", desired.spec.progress_deadline_seconds);
        return it(Reason::ProgressDeadlineExceeded, message);
    }
    let message = "nothing is in the way".into();
    verdict(ConditionType::Stalled, false, Reason::AsExpected, message)
}

#[expect(clippy::too_many_arguments, reason = "each is one of the things that must be right")]
fn ready(
    desired: &Desired<'_>,
    plan: &Plan,
    progress: &Progress,
    status: &ChannelClusterStatus,
    facts: &Facts,
    stalled: &Verdict,
    redis: Option<&Verdict>,
    summary: &str,
) -> Verdict {
    let no =
        |reason, message: &str| verdict(ConditionType::Ready, false, reason, message.to_owned());
    let n = desired.spec.replicas;
    let there = progress.settled && !progress.rolling && !progress.growing && !progress.shrinking;
    let done = there && progress.done >= n && status.drains.is_empty();
    if stalled.holds == Some(true) {
        return no(stalled.reason, &stalled.message);
    }
    if desired.spec.paused && (progress.rolling || progress.shrinking) {
        return no(Reason::RolloutPaused, &format!("paused: {summary}"));
    }
    if let Some(r) = redis.filter(|r| r.holds == Some(false)) {
        return no(r.reason, &r.message);
    }
    if let Some(w) = plan.waiting.first() {
        if !done || w.reason == Reason::NodeUnreachable {
            return no(w.reason, summary);
        }
        if w.reason == Reason::WaitingForLinks {
            return no(w.reason, summary);
        }
    }
    if !done {
        let reason = if progress.rolling {
            Reason::RolloutInProgress
        } else if progress.shrinking {
            Reason::ScalingDown
        } else if !status.drains.is_empty() {
            Reason::WaitingForDrain
        } else if progress.growing && status.replicas < n {
            Reason::ScalingUp
        } else {
            Reason::WaitingForPodReady
        };
        return no(reason, summary);
    }
    if !facts.unloaded.is_empty() {
        return no(Reason::WaitingForSettings, &facts.unloaded);
    }
    let reason =
        if progress.kept > 0 { Reason::PartitionReached } else { Reason::AllReplicasUpdated };
    verdict(ConditionType::Ready, true, reason, summary.to_owned())
}

fn available(desired: &Desired<'_>, observed: &Observed, status: &ChannelClusterStatus) -> Verdict {
    let n = desired.spec.replicas;
    let least = match n {
        0 => 0,
        n => (n - desired.spec.update_strategy.rolling_update.max_unavailable).max(1),
    };
    let it = |holds, reason, message| verdict(ConditionType::Available, holds, reason, message);
    let there = status.available_replicas;
    let are = if there == 1 { "is" } else { "are" };
    let message = format!("{} {are} available, at least {least} must", pods(there));
    if there < least {
        return it(false, Reason::WaitingForPodReady, message);
    }
    // Who of them takes new clients changes all the time; somebody must.
    let takes = |p: &PodState| p.ready && !p.terminating && p.accepting;
    if n > 0 && !observed.pods.iter().any(takes) {
        let message = "no pod takes new clients".into();
        return it(false, Reason::WaitingForLinks, message);
    }
    it(true, Reason::AsExpected, message)
}

fn progressing(
    desired: &Desired<'_>,
    progress: &Progress,
    status: &ChannelClusterStatus,
    summary: &str,
) -> Verdict {
    let it = |holds, reason| verdict(ConditionType::Progressing, holds, reason, summary.to_owned());
    if desired.spec.paused && (progress.rolling || progress.shrinking) {
        it(false, Reason::RolloutPaused)
    } else if progress.shrinking {
        it(true, Reason::ScalingDown)
    } else if progress.rolling {
        it(true, Reason::RolloutInProgress)
    } else if progress.growing && status.replicas < desired.spec.replicas {
        it(true, Reason::ScalingUp)
    } else if progress.growing {
        it(true, Reason::WaitingForPodReady)
    } else if progress.kept > 0 {
        it(false, Reason::PartitionReached)
    } else {
        it(false, Reason::AllReplicasUpdated)
    }
}

fn draining(status: &ChannelClusterStatus) -> Verdict {
    let drains: Vec<String> = status
        .drains
        .iter()
        .map(|d| {
            let (left, all) = (d.remaining_connections, d.initial_connections);
            format!("{}: {left} of {all} connections left", d.pod_name)
        })
        .collect();
    let it = |holds, reason, message| verdict(ConditionType::Draining, holds, reason, message);
    if drains.is_empty() {
        return it(false, Reason::AsExpected, "no pod drains".into());
    }
    it(true, Reason::WaitingForDrain, drains.join(", "))
}

fn paused(desired: &Desired<'_>, progress: &Progress) -> Verdict {
    let it = |holds, reason, message: &str| {
        verdict(ConditionType::Paused, holds, reason, message.to_owned())
    };
    match (desired.spec.paused, progress.rolling || progress.shrinking) {
        (true, true) => {
            it(true, Reason::RolloutPaused, "spec.paused is set, and work waits for it")
        }
        (true, false) => it(true, Reason::RolloutPaused, "spec.paused is set"),
        (false, _) => it(false, Reason::AsExpected, "spec.paused is not set"),
    }
}

fn requires_update(desired: &Desired<'_>, observed: &Observed) -> Verdict {
    let waits = observed.statefulset.as_ref().is_some_and(|s| {
        plan::requires_update(desired, s) && !plan::template_pending(desired, observed, s)
    });
    let message = if waits {
        "this operator renders the pods otherwise; they change with the next change of the spec"
    } else {
        "the pods are rendered as this operator does"
    };
    verdict(ConditionType::RequiresUpdate, waits, Reason::AsExpected, message.into())
}

fn formed(desired: &Desired<'_>, observed: &Observed) -> Verdict {
    let ready: Vec<_> = observed.pods.iter().filter(|p| p.ready && !p.terminating).collect();
    let it = |holds, reason, message| Verdict {
        type_: ConditionType::ClusterFormed,
        holds,
        reason,
        message,
    };
    if ready.is_empty() && desired.spec.replicas > 0 {
        return it(Some(false), Reason::WaitingForPodReady, "no pod is ready".into());
    }
    if let Some(p) = ready.iter().find(|p| p.node.is_none()) {
        let message = format!("{} {}", p.name, p.silence());
        return it(None, Reason::DrainEndpointUnreachable, message);
    }
    let linked = ready.iter().filter(|p| plan::linked(observed, p)).count();
    let message = format!("{linked} of {} ready nodes are linked with every other", ready.len());
    if linked == ready.len() {
        it(Some(true), Reason::AsExpected, message)
    } else {
        it(Some(false), Reason::WaitingForLinks, message)
    }
}

/// Whether a pod is nearly full. A drain hands its clients to the others, so that the warning comes
/// while there is room left.
fn capacity(observed: &Observed) -> Verdict {
    let of = |p: &PodState| {
        let node = p.node.as_ref().filter(|node| node.capacity > 0)?;
        Some((p.name.clone(), node.connections, node.capacity))
    };
    let fullest = observed
        .pods
        .iter()
        .filter(|p| p.ready && !p.terminating)
        .filter_map(of)
        .max_by(|a, b| (a.1.saturating_mul(b.2)).cmp(&b.1.saturating_mul(a.2)));
    let type_ = ConditionType::CapacityPressure;
    let Some((name, held, most)) = fullest else {
        let message = "no ready node says how many connections it holds".into();
        return Verdict { type_, holds: None, reason: Reason::WaitingForPodReady, message };
    };
    if held.saturating_mul(5) < most.saturating_mul(4) {
        return verdict(type_, false, Reason::AsExpected, "every pod has room".into());
    }
    let message = format!(
        "{name} has {held} of the {most} connections that it holds: raise replicas, or \
         spec.limits.maxConnections"
    );
    verdict(type_, true, Reason::NearCapacity, message)
}

fn redis(desired: &Desired<'_>, observed: &Observed, facts: &Facts) -> Option<Verdict> {
    let spec = desired.spec;
    if spec.redis.mode == RedisMode::Disabled || spec.pubsub.adapter != Adapter::Redis {
        return None;
    }
    let known: Vec<bool> = observed
        .pods
        .iter()
        .filter(|p| p.ready && !p.terminating)
        .filter_map(|p| p.node.as_ref()?.redis_connected)
        .collect();
    let up = known.iter().filter(|up| **up).count();
    let mut message = format!("{up} of {} ready nodes are connected to Redis", known.len());
    if !facts.redis.is_empty() {
        message = format!("{message}; {}", facts.redis);
    }
    Some(Verdict {
        type_: ConditionType::RedisReady,
        holds: (!known.is_empty()).then_some(up == known.len()),
        reason: if up == known.len() && up > 0 {
            Reason::AsExpected
        } else if known.is_empty() {
            Reason::WaitingForPodReady
        } else {
            Reason::RedisUnavailable
        },
        message,
    })
}
