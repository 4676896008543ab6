//! The conditions of a cluster, each true at each moment.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use sluice_crds::{
    Adapter, ChannelClusterStatus, ConditionType, DrainReport, DrainReportPhase, Reason, RedisMode,
};
use sluice_node_api::admin::{NodeStatus, RedisFailure};

use super::{
    Facts, Progress, progress,
    ready::{ready, stalled, summary},
};
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
pub(super) struct Verdict {
    type_: ConditionType,
    /// Absent: not known.
    pub(super) holds: Option<bool>,
    pub(super) reason: Reason,
    pub(super) message: String,
}

pub(super) fn verdict(
    type_: ConditionType,
    holds: bool,
    reason: Reason,
    message: String,
) -> Verdict {
    Verdict { type_, holds: Some(holds), reason, message }
}

/// What the conditions are made of.
pub(super) struct Grounds<'a> {
    pub(super) desired: &'a Desired<'a>,
    pub(super) observed: &'a Observed,
    pub(super) plan: &'a Plan,
    pub(super) facts: &'a Facts,
    pub(super) progress: &'a Progress,
    /// The new status, but for its conditions.
    pub(super) status: &'a ChannelClusterStatus,
}

/// `before`: the conditions that the cluster has now.
pub(super) fn all(on: &Grounds<'_>, before: &[Condition], now: Timestamp) -> Vec<Condition> {
    let &Grounds { desired, observed, facts, progress, status, .. } = on;
    let late = progress::overdue(desired, observed, progress, facts, before, now);
    let summary = summary(on);
    let stalled = stalled(on, before, late, &summary);
    let redis = redis(desired, observed, facts);
    let ready = ready(on, &stalled, redis.as_ref(), &summary);
    let mut verdicts = vec![
        ready,
        stalled,
        available(desired, observed, status),
        progressing(desired, progress, status, &summary),
        draining(observed, status),
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
pub(super) fn pods(n: i32) -> String {
    format!("{n} {}", if n == 1 { "pod" } else { "pods" })
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

fn draining(observed: &Observed, status: &ChannelClusterStatus) -> Verdict {
    let told = |d: &DrainReport| {
        let (left, all) = (d.remaining_connections, d.initial_connections);
        let goes = if d.phase == DrainReportPhase::Releasing { ", it goes" } else { "" };
        format!("{}: {left} of {all} connections left{goes}", d.pod_name)
    };
    let mut drains: Vec<String> = status.drains.iter().map(told).collect();
    let alone = observed.pods.iter().filter(|p| p.drain.is_none() && p.leaves());
    drains.extend(alone.map(|p| {
        let left = p.connections().unwrap_or_default();
        format!("{} is being deleted: {left} connections left", p.name)
    }));
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

/// What the nodes that count say.
fn by_redis(observed: &Observed) -> impl Iterator<Item = (&PodState, &NodeStatus)> {
    let pods = observed.pods.iter().filter(|p| p.ready && !p.terminating);
    pods.filter_map(|p| Some((p, p.node.as_ref()?)))
}

/// Why a node is not connected to Redis, with a sentence: first what needs somebody, then by ordinal.
pub(super) fn redis_failure(observed: &Observed) -> Option<(RedisFailure, String)> {
    let away = by_redis(observed).filter(|(_, node)| node.redis_connected == Some(false));
    let (pod, failure) = away
        .filter_map(|(pod, node)| Some((pod, node.redis_failure?)))
        .min_by_key(|(pod, failure)| (!failure.needs_somebody(), pod.ordinal))?;
    Some((failure, format!("{}: {}", pod.name, failure.told())))
}

fn redis(desired: &Desired<'_>, observed: &Observed, facts: &Facts) -> Option<Verdict> {
    let spec = desired.spec;
    if spec.redis.mode == RedisMode::Disabled || spec.pubsub.adapter != Adapter::Redis {
        return None;
    }
    let known: Vec<bool> =
        by_redis(observed).filter_map(|(_, node)| node.redis_connected).collect();
    let up = known.iter().filter(|up| **up).count();
    let mut message = format!("{up} of {} ready nodes are connected to Redis", known.len());
    for more in
        [redis_failure(observed).map(|(_, text)| text).unwrap_or_default(), facts.redis.clone()]
    {
        if !more.is_empty() {
            message = format!("{message}; {more}");
        }
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
