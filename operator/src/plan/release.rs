//! Letting pods go: who may, and the cursor that lets them. This is the only place from which a
//! pod is ever removed, and [`free`] the only judge: a pod with clients goes only past its
//! deadline, or when a person says so.

use jiff::Timestamp;
use sluice_crds::{ChannelClusterSpec, DrainReason, TimeoutPolicy};
use sluice_node_api::admin::DrainPhase;

use super::{
    Shape, Slot, Slots, at,
    shape::{self, Way},
};
use crate::model::{Cursor, DrainOverride, PodState, StatefulSetState, StuckReason};

/// Whether the pod has, at this look, no more clients than a drained one may: its drain is past
/// the initial delay, so that balancers have heard of it, and at most `exitAtConnections` are left.
pub(crate) fn drained_now(spec: &ChannelClusterSpec, pod: &PodState) -> bool {
    let exit = spec.drain.exit_at_connections.max(0) as u64;
    pod.node.as_ref().is_some_and(|n| match n.drain.phase {
        DrainPhase::None | DrainPhase::Delay => false,
        DrainPhase::Waiting | DrainPhase::Closing | DrainPhase::Drained => n.connections <= exit,
    })
}

/// Whether the time of the pod's drain is over.
pub(crate) fn overdue(s: &Slot<'_>, now: Timestamp) -> bool {
    s.drain().is_some_and(|c| now >= c.deadline)
}

/// Whether the pod is kept although its drain's time is over.
pub(crate) fn held(spec: &ChannelClusterSpec, s: &Slot<'_>, now: Timestamp) -> bool {
    spec.drain.timeout_policy == TimeoutPolicy::Hold && overdue(s, now) && !free(spec, s, now)
}

/// Whether the pod of a slot that is to go may go now.
pub(crate) fn free(spec: &ChannelClusterSpec, s: &Slot<'_>, now: Timestamp) -> bool {
    let Some(p) = s.pod else { return true };
    if p.terminating {
        return true;
    }
    if serves_nobody(p) {
        return true;
    }
    regardless(spec, p, now).unwrap_or_else(|| marked_drained(p) && drained_now(spec, p))
}

/// Whether the pod never served, or serves no longer. What a lost Kubernetes node last told proves
/// nothing, and a node may run and serve while another container of its pod can't start.
pub(crate) fn serves_nobody(p: &PodState) -> bool {
    let idle = !p.running || p.connections() == Some(0);
    !p.ready && !p.node_unreachable && idle
}

/// Whether the pod goes whatever is left on it. Its last clients are then moved at once: a node
/// that is let go with a drain under way would pace that drain on for as long as its grace lasts.
pub(crate) fn parting(spec: &ChannelClusterSpec, p: &PodState, now: Timestamp) -> bool {
    regardless(spec, p, now).unwrap_or_else(|| marked_drained(p))
}

/// Whether a pod that is being deleted goes whatever is left on it, and still has clients. Its node
/// drains by itself, and knows neither an earlier deadline nor what a person says.
pub(crate) fn lingers(spec: &ChannelClusterSpec, p: &PodState, now: Timestamp) -> bool {
    p.leaves() && (parting(spec, p, now) || p.drain_override == Some(DrainOverride::Release))
}

/// Whether a person or the clock lets the pod go or keeps it, however many clients it has; `None`:
/// that depends on its clients.
fn regardless(spec: &ChannelClusterSpec, p: &PodState, now: Timestamp) -> Option<bool> {
    let Some(c) = &p.drain else { return Some(false) };
    let timed_out = now >= c.deadline && spec.drain.timeout_policy == TimeoutPolicy::Terminate;
    match p.drain_override {
        Some(DrainOverride::Release) => Some(true),
        Some(DrainOverride::Cancel) => Some(false),
        None => timed_out.then_some(true),
    }
}

/// Whether the pod was seen drained at an earlier look.
fn marked_drained(p: &PodState) -> bool {
    p.drain.as_ref().is_some_and(|c| c.drained_at.is_some())
}

/// Where the cursor is to stand: past every pod that may go, and with the pods that are wanted.
pub(crate) fn cursor(
    spec: &ChannelClusterSpec,
    sts: &StatefulSetState,
    slots: &Slots<'_>,
    shape: &Shape,
    now: Timestamp,
) -> Cursor {
    let unproven = slots.list.iter().any(|s| s.stays_updated() && !s.available);
    let may_go = |shape: &Shape, i: usize, s: &Slot<'_>, way: Way| {
        shape.victim(i).is_some_and(|v| {
            let returns = unproven && v.reason == DrainReason::Rollout && comes_back(slots, s, now);
            v.way == way && free(spec, s, now) && !returns
        })
    };
    let left = slots
        .list
        .iter()
        .enumerate()
        .take_while(|&(i, s)| may_go(shape, i, s, Way::Bottom))
        .count();

    let rest = &slots.list[left..];
    let shape = shape::of(spec, rest);
    let mut len = rest.len();
    while len as i32 > shape.total && may_go(&shape, len - 1, &rest[len - 1], Way::Top) {
        len -= 1;
    }
    let replicas = (len as i32).max(shape.total);

    let uniform = rest.iter().all(|s| s.updated) && sts.current_revision == sts.update_revision;
    let partition = if uniform {
        // Parked: a template that somebody else changes touches no pod.
        replicas
    } else if rest[..len].iter().all(|s| !s.updated) && shape.kept == len as i32 {
        // All are kept, and so are as many more as the partition holds back.
        replicas.min(spec.update_strategy.rolling_update.partition).max(shape.kept)
    } else {
        let mut convertible = shape.needed;
        let run = rest[..len].iter().enumerate().rev().take_while(|&(i, s)| {
            if s.updated || may_go(&shape, i, s, Way::InPlace) {
                return true;
            }
            // One that would leave at the bottom, but has nothing to lose where it is.
            let convert = convertible > 0 && may_go(&shape, i, s, Way::Bottom);
            convertible -= i32::from(convert);
            convert
        });
        (len - run.count()) as i32
    };
    Cursor { replicas, ordinals_start: sts.ordinals_start + left as i32, partition, ..at(sts) }
}

/// Whether an old pod is away only for now: somebody has deleted it, or it is just coming back. While it
/// is to be seen whether the wanted revision starts it comes back as it was: one that does not start would
/// take all that are deleted meanwhile.
fn comes_back(slots: &Slots<'_>, s: &Slot<'_>, now: Timestamp) -> bool {
    let fails = |s: &Slot<'_>| s.stuck().is_some_and(|why| why != StuckReason::Unschedulable);
    let failed = || slots.list.iter().any(|s| s.stays_updated() && fails(s));
    let starts =
        |p: &PodState| !p.ready && !p.crashed && p.stuck.is_none() && (failed() || !s.broken(now));
    !s.let_go && (s.gone() || s.pod.is_some_and(starts))
}
