//! The two conditions that sum a cluster up, `Ready` and `Stalled`, and the sentence with its numbers.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use sluice_crds::{ConditionType, DrainReportPhase, Reason};

use super::conditions::{Grounds, Verdict, find, pods, reason_name, redis_failure, verdict};
use crate::model::{DrainOverride, Observed, PodState};

/// One sentence with the numbers.
pub(super) fn summary(on: &Grounds<'_>) -> String {
    let &Grounds { desired, observed, plan, facts, progress, status } = on;
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
    for p in observed.pods.iter().filter(|p| p.override_unknown).take(3) {
        let (key, pod) = (sluice_crds::names::DRAIN_OVERRIDE, &p.name);
        text.push_str(&format!("; {key} on {pod} is neither release nor cancel, and does nothing"));
    }
    let early = |p: &&PodState| {
        p.drain_override == Some(DrainOverride::Release) && p.drain.is_none() && !p.terminating
    };
    for p in observed.pods.iter().filter(early).take(3) {
        let (key, pod) = (sluice_crds::names::DRAIN_OVERRIDE, &p.name);
        text.push_str(&format!("; {key}=release on {pod} does nothing: {pod} does not drain"));
    }
    let left = left_over(observed);
    for more in [&left, &facts.hint, &facts.unaddressed] {
        if !more.is_empty() {
            text.push_str("; ");
            text.push_str(more);
        }
    }
    text
}

/// Pods that are being deleted and do not go, with why; empty when there is none.
fn left_over(observed: &Observed) -> String {
    let mut pods: Vec<&PodState> = observed.pods.iter().filter(|p| p.left_over()).collect();
    pods.sort_by_key(|p| p.ordinal);
    let told = pods.into_iter().take(3).map(|p| format!("{} {}", p.name, p.leftover));
    told.collect::<Vec<_>>().join("; ")
}

/// What is in the way. `late`: there was no progress for too long.
pub(super) fn stalled(
    on: &Grounds<'_>,
    before: &[Condition],
    late: bool,
    summary: &str,
) -> Verdict {
    let &Grounds { desired, observed, plan, facts, status, .. } = on;
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
    let failure = redis_failure(observed);
    if let Some((_, message)) = failure.as_ref().filter(|(failure, _)| failure.needs_somebody()) {
        return it(Reason::RedisUnavailable, message.clone());
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
    let left = left_over(observed);
    let message = match failure {
        Some((_, message)) => format!("Redis is tried again and again; {message}"),
        None if !left.is_empty() => left,
        None => "nothing is in the way".into(),
    };
    verdict(ConditionType::Stalled, false, Reason::AsExpected, message)
}

/// Whether all is as it is wanted.
pub(super) fn ready(
    on: &Grounds<'_>,
    stalled: &Verdict,
    redis: Option<&Verdict>,
    summary: &str,
) -> Verdict {
    let &Grounds { desired, plan, facts, progress, status, .. } = on;
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
            let going = status.drains.iter().filter(|d| d.phase == DrainReportPhase::Releasing);
            let names: Vec<&str> = going.take(3).map(|d| d.pod_name.as_str()).collect();
            if !names.is_empty() {
                let message = format!("{summary}, waiting for {} to go", names.join(", "));
                return no(Reason::WaitingForDrain, &message);
            }
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
