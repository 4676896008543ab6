//! The decision: from what is wanted and what was seen to what is done next.
//!
//! [`plan`] is a pure function. It sees no client, no clock and no earlier plan; all that it knows
//! of its own past is in pods' annotations and in the StatefulSet's cursor, so an operator that
//! was just started decides as one that has been running for a year. It must never let a pod go
//! that `release::free` does not clear, and never begin a drain that `drain`'s budget does not
//! cover. The rest of the operator may trust a plan, and must not add disruptions of its own.
//!
//! The way through it: `slots` lays the pods out by index → `shape` says who leaves, who is
//! replaced, and how many pods there are to be → `release` moves the cursor past those who may
//! go → `drain` begins, renews and undoes drains → `rebalance` moves clients where they sit
//! unevenly → `steer` says who takes new clients → `cordon` has the others refuse them.

mod arrivals;
mod cordon;
mod drain;
mod rebalance;
mod release;
mod shape;
mod slots;
mod steer;

#[cfg(test)]
pub(crate) mod tests;

use jiff::{SignedDuration, Timestamp};
use sluice_crds::{ChannelClusterSpec, OperatorUpgradePolicy, Reason};

use crate::model::{Cursor, Desired, Observed, Plan, StatefulSetState, TemplateStep, Waiting};
pub use drain::at_once;
pub(crate) use release::{drained_now, serves_nobody};
pub(crate) use shape::{Shape, shape};
pub(crate) use slots::{Slot, Slots};
pub use steer::linked;

/// Seconds that a drain outlives its operator. Each reconcile renews it.
pub const DRAIN_TTL_SECONDS: f64 = 300.0;
/// The most ordinals without a pod, among pods that a StatefulSet has left behind.
const MOST_GAPS: i32 = 4;
/// How soon to look again while something moves that no watch tells of: drains, links, load.
const POLL: SignedDuration = SignedDuration::from_secs(1);
/// So long after the newest pod became Ready its links and its label are to come any moment. What is
/// not there by then may be away for long, such as a Redis: it is waited for with ever less effort.
const FRESH: SignedDuration = SignedDuration::from_secs(30);
/// The slowest of these looks: beyond, those that are taken when nothing happens do.
const SLOWEST: SignedDuration = SignedDuration::from_secs(15);

/// Decides what to do about a cluster, given everything that is wanted and everything that was
/// seen. Asked again about the same, it answers the same.
pub fn plan(desired: &Desired<'_>, observed: &Observed, now: Timestamp) -> Plan {
    let Some(sts) = &observed.statefulset else {
        return create(desired.spec, observed);
    };
    if !settled(sts) {
        return hold(desired, observed, sts, now);
    }
    let paused = desired.spec.paused;
    if template_pending(desired, observed, sts) && !paused {
        let mut p = hold(desired, observed, sts, now);
        // Frozen: with the partition above every pod, another template touches none.
        p.cursor = Cursor { partition: sts.replicas, template: TemplateStep::Apply, ..p.cursor };
        p.waiting.clear();
        return p;
    }
    let slots = Slots::new(desired.name, desired.spec, observed, sts, now);
    let shape = shape(desired.spec, &slots);
    let mut p =
        Plan { cursor: release::cursor(desired.spec, sts, &slots, &shape, now), ..Plan::default() };
    let drains = drain::decide(desired, sts, &slots, &shape, p.cursor, now);
    let leaving: Vec<&str> = drains.commits.iter().map(|(s, _)| s.name()).collect();
    let skew = rebalance::skew(desired.spec, observed, sts, &slots, &shape, p.cursor);
    let wanted = steer::accepting(desired.spec, observed, &slots, &shape, skew.as_ref(), &leaving);
    let next = |index| skew.is_some() || shape.victim(index).is_some();
    let cordons = cordon::decide(desired.spec, observed, &slots, next, &wanted, &leaving, now);
    let labels = steer::labels(observed, &wanted, &leaving, now);
    let steered = labels.is_none();
    p.actions.extend(cordons.lifted);
    p.actions.extend(labels);
    p.actions.extend(cordons.begun);
    p.waiting = waiting(desired.spec, &slots, &shape, &drains, now);
    p.actions.extend(drains.actions());
    p.actions.extend(rebalance::sheds(desired.spec, observed, &shape, skew.as_ref(), steered));
    let moves = !shape.victims.is_empty() || skew.is_some();
    p.requeue_after = requeue(desired.spec, observed, &slots, moves, now);
    p
}

/// Whether the StatefulSet's controller has acted on what was last applied.
pub(crate) fn settled(sts: &StatefulSetState) -> bool {
    sts.observed_generation >= sts.generation && !sts.update_revision.is_empty()
}

/// Whether the rendered template is to be applied. An operator that merely renders it otherwise
/// than its predecessor does not, unless it was told to, or no pod serves anyone that it could
/// disturb: then a wrong default image is mended by an upgrade. Nor can one go on whose predecessor's
/// rendering is lost: what is in force now may be anybody's.
pub(crate) fn template_pending(
    desired: &Desired<'_>,
    observed: &Observed,
    sts: &StatefulSetState,
) -> bool {
    let pods = &observed.pods;
    let none_serves = pods.iter().any(|p| p.stuck.is_some()) && !pods.iter().any(|p| p.running);
    desired.spec_hash != sts.spec_hash
        || (desired.template_hash != sts.template_hash
            && (none_serves
                || sts.template_lost
                || desired.spec.update_strategy.operator_upgrade_policy
                    == OperatorUpgradePolicy::Automatic))
}

/// Whether an operator upgrade waits for the next change of the spec.
pub(crate) fn requires_update(desired: &Desired<'_>, sts: &StatefulSetState) -> bool {
    desired.spec_hash == sts.spec_hash && desired.template_hash != sts.template_hash
}

/// The first StatefulSet, or one in place of another that is gone. Pods that this one left behind
/// stay where they are: the window begins at the lowest of them. Names of pods that are going are
/// not waited for: it begins above.
fn create(spec: &ChannelClusterSpec, observed: &Observed) -> Plan {
    let n = spec.replicas.max(0);
    let stay = observed.pods.iter().filter(|p| !p.terminating).map(|p| p.ordinal);
    let go = observed.pods.iter().filter(|p| p.terminating).map(|p| p.ordinal);
    let (low, high) = (stay.clone().min(), stay.clone().max());
    let (ordinals_start, replicas) = match (low, high) {
        (Some(low), Some(high)) => {
            // So many there may be: a pod far off must not make dozens in between.
            let most = n.max(stay.count() as i32).saturating_add(MOST_GAPS);
            let low = low.max(high.saturating_sub(most - 1));
            (low, n.max(high - low + 1))
        }
        _ => (go.max().map_or(0, |last| last.saturating_add(1)), n),
    };
    Plan {
        cursor: Cursor {
            replicas,
            ordinals_start,
            partition: replicas,
            template: TemplateStep::Apply,
        },
        ..Plan::default()
    }
}

/// Decides nothing new: the cursor stays, drains under way are renewed, or undone for a person.
fn hold(
    desired: &Desired<'_>,
    observed: &Observed,
    sts: &StatefulSetState,
    now: Timestamp,
) -> Plan {
    let slots = Slots::new(desired.name, desired.spec, observed, sts, now);
    Plan {
        actions: drain::keep(desired.spec, sts, &slots, now),
        cursor: at(sts),
        requeue_after: Some(POLL),
        waiting: vec![Waiting {
            reason: Reason::RolloutInProgress,
            pod: None,
            message: "waiting for the StatefulSet's controller".into(),
        }],
    }
}

/// The cursor where it stands.
pub(crate) fn at(sts: &StatefulSetState) -> Cursor {
    Cursor {
        replicas: sts.replicas,
        ordinals_start: sts.ordinals_start,
        partition: sts.partition,
        template: TemplateStep::Keep,
    }
}

fn waiting(
    spec: &ChannelClusterSpec,
    slots: &Slots<'_>,
    shape: &Shape,
    drains: &drain::Drains<'_>,
    now: Timestamp,
) -> Vec<Waiting> {
    let mut w = Vec::new();
    let mut say = |reason, s: &Slot<'_>, message: String| {
        w.push(Waiting { reason, pod: Some(s.name().to_owned()), message });
    };
    for (i, s) in slots.list.iter().enumerate() {
        if let (None, Some(stuck)) = (shape.victim(i), s.stuck()) {
            let said = s.pod.map(|p| p.stuck_message.as_str()).unwrap_or_default();
            say(Reason::PodStuck, s, stuck.sentence(s.name(), said));
        }
    }
    for s in slots.list.iter().filter(|s| s.denied) {
        let message = format!(
            "{} is to be evicted: its disruption budget lets it go when all others are ready",
            s.name()
        );
        say(Reason::WaitingForPodReady, s, message);
    }
    for s in &slots.list {
        let Some(p) = s.pod else { continue };
        if p.node_unreachable && !p.terminating {
            say(
                Reason::NodeUnreachable,
                s,
                format!("the Kubernetes node of {} is not ready", p.name),
            );
        }
    }
    for &i in shape.victims.iter().map(|v| &v.index) {
        let s = &slots.list[i];
        if s.pinned() && !release::free(spec, s, now) {
            say(Reason::DrainHeld, s, format!("{} is annotated not to drain", s.name()));
        } else if release::held(spec, s, now) {
            let left = s.pod.and_then(|p| p.connections()).unwrap_or_default();
            say(Reason::DrainHeld, s, format!("{} is held with {left} connections", s.name()));
        }
    }
    for (s, c) in slots.draining() {
        let Some(p) = s.pod else { continue };
        let initial = c.initial.unwrap_or_default();
        match &p.node {
            Some(n) => say(
                Reason::WaitingForDrain,
                s,
                format!("draining {}: {} of {initial} connections left", p.name, n.connections),
            ),
            None if !p.ready || p.terminating => {}
            None => say(
                Reason::DrainEndpointUnreachable,
                s,
                format!("{} {} while it drains", p.name, p.silence()),
            ),
        }
    }
    for s in &slots.list {
        if s.updated && !s.available && s.stuck().is_none() {
            say(Reason::WaitingForPodReady, s, format!("waiting for {} to become ready", s.name()));
        }
    }
    for s in &slots.list {
        if s.available && s.updated && !s.linked {
            let message = match s.pod.filter(|p| p.denied) {
                Some(p) => format!("{} {}", p.name, p.silence()),
                None if s.pod.and_then(steer::reaches_redis) == Some(false) => {
                    format!("waiting for {} to reach Redis", s.name())
                }
                None => format!("waiting for {} to be linked with every other node", s.name()),
            };
            say(Reason::WaitingForLinks, s, message);
        }
    }
    for p in slots.leaving().filter(|_| !shape.victims.is_empty()) {
        let left = p.connections().unwrap_or_default();
        let message = format!("waiting for {} to go: {left} connections left", p.name);
        w.push(Waiting { reason: Reason::WaitingForDrain, pod: Some(p.name.clone()), message });
    }
    if let (true, Some(v)) = (w.is_empty() && drains.short, shape.victims.first()) {
        let s = &slots.list[v.index];
        let mut message = format!("too few pods are ready to drain {}", s.name());
        let unready = |o: &&Slot<'_>| o.pod.is_some_and(|p| !p.ready && !p.terminating);
        if let Some(other) = slots.list.iter().find(unready) {
            message += &format!(": {} is not", other.name());
        }
        w.push(Waiting { reason: Reason::WaitingForPodReady, pod: None, message });
    }
    w
}

/// `moves`: pods are to go, or clients to be spread.
fn requeue(
    spec: &ChannelClusterSpec,
    observed: &Observed,
    slots: &Slots<'_>,
    moves: bool,
    now: Timestamp,
) -> Option<SignedDuration> {
    // One that does not go may stay for ever, and a watch tells when it has gone.
    let mut going = observed.pods.iter().filter(|p| !p.left_over());
    let draining = going.any(|p| p.drain.is_some() || p.eviction.is_some());
    if moves || draining || rebalance::under_way(observed) {
        return Some(POLL);
    }
    let min_ready = min_ready(spec);
    let ready = observed.pods.iter().filter(|p| p.ready && !p.terminating);
    let newest = ready.filter_map(|p| p.ready_since).max();
    let until_linked = newest.map_or(Some(POLL), |since| patience(now.duration_since(since)));
    slots
        .list
        .iter()
        .filter_map(|s| {
            let p = s.pod.filter(|p| p.ready && !p.terminating)?;
            if !p.accepting || !linked(observed, p) {
                return until_linked;
            }
            let left = (p.ready_since? + min_ready).duration_since(now);
            left.is_positive().then_some(left.max(POLL))
        })
        .min()
}

/// How soon to look again for what should have been there for so long; `None`: no sooner than ever.
fn patience(lasting: SignedDuration) -> Option<SignedDuration> {
    let pace = if lasting < FRESH { POLL } else { lasting / 10 };
    (pace < SLOWEST).then_some(pace)
}

pub(crate) fn min_ready(spec: &ChannelClusterSpec) -> SignedDuration {
    SignedDuration::from_secs(spec.min_ready_seconds.max(0).into())
}
