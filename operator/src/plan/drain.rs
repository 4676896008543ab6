//! Which drains begin, go on and are undone. A commitment is a slot of the budget; it is written
//! before the node is told. Nothing here lets a pod go.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::{ChannelClusterSpec, DrainMode, DrainReason};
use sluice_node_api::admin::{DrainPhase, DrainRequest};

use super::{
    DRAIN_TTL_SECONDS, Shape, Slot, Slots, drained_now, release,
    shape::{Victim, Way},
};
use crate::model::{Action, Cursor, Desired, DrainCommitment, PodRef, PodState, StatefulSetState};

/// What is done about drains.
#[derive(Debug, Default)]
pub(crate) struct Drains<'a> {
    /// Drains that begin.
    pub commits: Vec<(Slot<'a>, DrainCommitment)>,
    /// A pod is next, but too few others serve, and none is on its way.
    pub short: bool,
    renew: Vec<(PodRef, DrainRequest)>,
    drained: Vec<(PodRef, Timestamp)>,
    cancel: Vec<(PodRef, bool)>,
    forget: Vec<PodRef>,
}

impl Drains<'_> {
    /// The steps, in order: undo, then begin, then renew.
    pub(crate) fn actions(self) -> Vec<Action> {
        let mut out = Vec::new();
        for (pod, annotated) in self.cancel {
            out.push(Action::CancelDrain { pod: pod.clone() });
            if annotated {
                out.push(Action::StripAnnotations { pod });
            }
        }
        out.extend(self.forget.into_iter().map(|pod| Action::StripAnnotations { pod }));
        for (s, commitment) in self.commits {
            if let Some(p) = s.pod {
                out.push(Action::Commit { pod: p.into(), commitment });
            }
        }
        out.extend(
            self.renew.into_iter().map(|(pod, request)| Action::StartDrain { pod, request }),
        );
        out.extend(self.drained.into_iter().map(|(pod, at)| Action::MarkDrained { pod, at }));
        out
    }
}

/// Decides about drains. `cursor`: where the plan moves it.
pub(crate) fn decide<'a>(
    desired: &Desired<'_>,
    sts: &StatefulSetState,
    slots: &Slots<'a>,
    shape: &Shape,
    cursor: Cursor,
    now: Timestamp,
) -> Drains<'a> {
    let spec = desired.spec;
    let (begin, undo, short) = select(spec, slots, shape, sts, cursor, now);
    let mut d = Drains { short, ..Drains::default() };
    for (i, s) in slots.list.iter().enumerate() {
        let Some(p) = s.pod.filter(|p| !p.terminating) else { continue };
        // What the cursor lets go now goes: its clients are moved, not told to stay.
        let wanted = shape.victim(i).is_some() && !s.pinned() && !undo.contains(&i);
        let going = wanted || lets_go(cursor, sts, i, s);
        match &p.drain {
            Some(_) if !going => d.cancel.push((p.into(), true)),
            // What it is committed to now is no more to be taken off.
            None if begin.iter().any(|v| v.index == i) => {}
            // Asked for no longer: it must not come back when the Kubernetes node is cordoned again.
            None if p.eviction.is_some_and(|e| !e.wanted(now)) => d.forget.push(p.into()),
            // A drain that nobody is committed to: its annotations were stripped by hand.
            None if p.drain_phase().is_some_and(|ph| ph != DrainPhase::None) => {
                d.cancel.push((p.into(), false));
            }
            Some(c) => {
                d.renew.push((p.into(), request(spec, c, release::parting(spec, p, now))));
                if c.drained_at.is_none() && drained_now(spec, p) {
                    d.drained.push((p.into(), now));
                }
            }
            None => {}
        }
    }
    for v in begin {
        let s = &slots.list[v.index];
        let Some(p) = s.pod else { continue };
        let target = match v.reason {
            DrainReason::Rollout => sts.update_revision.clone(),
            // The only pod: the webhook keeps it until the cursor is past it.
            DrainReason::Eviction if v.way == Way::Bottom && v.index == 0 && spec.replicas == 1 => {
                sts.update_revision.clone()
            }
            DrainReason::ScaleDown | DrainReason::Eviction => String::new(),
        };
        let commitment = DrainCommitment {
            reason: v.reason,
            started_at: now,
            deadline: now + SignedDuration::from_secs(spec.drain.timeout_seconds.max(0).into()),
            target,
            initial: p.connections(),
            drained_at: None,
        };
        d.renew.push((p.into(), request(spec, &commitment, false)));
        d.commits.push((s.clone(), commitment));
    }
    let going = slots.list.iter().filter_map(|s| s.pod).filter(|p| p.terminating);
    let rest = going.chain(slots.outside.iter().copied());
    d.renew.extend(rest.filter_map(|p| renew(spec, p, now)));
    d
}

/// Renews every drain under way, and begins none. Those that a person forbids end, whatever else is
/// waited for, unless the cursor has let their pods go.
pub(crate) fn keep(
    spec: &ChannelClusterSpec,
    sts: &StatefulSetState,
    slots: &Slots<'_>,
    now: Timestamp,
) -> Vec<Action> {
    let mut d = Drains::default();
    for (i, s) in slots.list.iter().enumerate() {
        match s.pod.filter(|p| !p.terminating) {
            // Which pods are updated is not told before the controller has acted, so [`lets_go`] can't
            // judge: any above the partition may be one that it replaces.
            Some(p)
                if p.drain.is_some()
                    && (spec.paused || s.pinned())
                    && (i as i32) < sts.partition =>
            {
                d.cancel.push((p.into(), true));
            }
            Some(p) => d.renew.extend(renew(spec, p, now)),
            None => {}
        }
    }
    d.renew.extend(slots.outside.iter().filter_map(|p| renew(spec, p, now)));
    d.actions()
}

fn renew(
    spec: &ChannelClusterSpec,
    p: &PodState,
    now: Timestamp,
) -> Option<(PodRef, DrainRequest)> {
    if p.terminating {
        return release::lingers(spec, p, now).then(|| (p.into(), at_once()));
    }
    let parting = release::parting(spec, p, now);
    p.drain.as_ref().map(|c| (p.into(), request(spec, c, parting)))
}

/// Which drains begin and which are undone to make room for them; and whether too few serving pods
/// are what is in the way.
fn select(
    spec: &ChannelClusterSpec,
    slots: &Slots<'_>,
    shape: &Shape,
    sts: &StatefulSetState,
    cursor: Cursor,
    now: Timestamp,
) -> (Vec<Victim>, Vec<usize>, bool) {
    let rolling = &spec.update_strategy.rolling_update;
    let n = spec.replicas.max(0);
    // Capacity lost to pods that can't be replaced before others are. One that the cursor lets go
    // now does not count: what replaces it is on its way.
    let left = (cursor.ordinals_start - sts.ordinals_start).max(0);
    let stays = left..left + cursor.partition;
    let broken = shape
        .victims
        .iter()
        .filter(|v| stays.contains(&(v.index as i32)) && slots.list[v.index].broken(now))
        .count() as i32;
    let stop = slots.list.iter().any(|s| s.stays_updated() && s.stuck().is_some());

    let mut serving = slots.serving();
    // One that serves nobody and may go holds no slot: it could stand behind those that need it.
    let holds = |s: &Slot<'_>| s.pod.is_some_and(|p| p.ready) || !release::free(spec, s, now);
    let mut active = slots.draining().filter(|(s, _)| holds(s)).count() as i32;
    // One that somebody deletes moves its clients as well.
    active += slots.leaving().count() as i32;
    let coming = cursor.replicas > slots.list.len() as i32;
    let (mut begin, mut undo, mut blocked, mut short) = (Vec::new(), Vec::new(), false, false);
    for v in &shape.victims {
        let s = &slots.list[v.index];
        let committed = s.drain().is_some();
        let evicting = v.reason == DrainReason::Eviction;
        if blocked && committed && s.available && !evicting {
            // Out of turn: it can't go before those ahead of it, and holds their slot.
            undo.push(v.index);
        }
        if committed && s.pinned() {
            blocked = true;
        }
        // Who evicts it waits for a drain's end, also of one that serves nobody.
        if committed || (release::free(spec, s, now) && (v.way != Way::Evicted || s.gone())) {
            continue;
        }
        let (limit, allowance) = match (v.reason, v.way) {
            // What the disruption budget allows; the only pod waits for the one in its place.
            (DrainReason::Eviction, way) => (1, i32::from(way != Way::Bottom || n > 1 || stop)),
            (DrainReason::ScaleDown, _) => (spec.scale_down.max_concurrent_drains, 0),
            (_, Way::InPlace) => (rolling.max_unavailable, rolling.max_unavailable),
            _ => (rolling.max_surge, 0),
        };
        let floor = (n - allowance.max(0) - broken).max(0);
        let ready = s.pod.is_some_and(|p| p.ready);
        // Not Ready for the sake of another container: its clients wait until someone can take them.
        let clients = s.pod.is_some_and(|p| p.connections().is_some_and(|left| left > 0));
        let covered = match ready {
            true => serving - i32::from(s.serving) >= floor,
            false => !clients || serving > 0,
        };
        let stopped = v.reason == DrainReason::Rollout && stop;
        // One that serves nobody costs nothing, and may go ahead of its turn.
        let in_turn = !blocked || (!ready && !clients);
        if active < limit.max(1) && covered && in_turn && !stopped && !s.pinned() {
            begin.push(*v);
            active += i32::from(holds(s));
            serving -= i32::from(s.serving);
        } else {
            short |= in_turn && !covered && !coming && active == 0;
            blocked = true;
        }
    }
    (begin, undo, short)
}

/// Whether the StatefulSet's controller, once it sees `cursor`, deletes or replaces the pod of the
/// slot at `index`.
fn lets_go(cursor: Cursor, sts: &StatefulSetState, index: usize, s: &Slot<'_>) -> bool {
    let at = index as i32 - (cursor.ordinals_start - sts.ordinals_start);
    !(0..cursor.replicas).contains(&at) || (!s.updated && at >= cursor.partition)
}

/// A drain that closes every socket now, with code 1012.
pub fn at_once() -> DrainRequest {
    DrainRequest {
        mode: DrainMode::Immediate,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 1,
        batch_interval_seconds: 0.0,
        ttl_seconds: DRAIN_TTL_SECONDS,
    }
}

fn request(spec: &ChannelClusterSpec, c: &DrainCommitment, parting: bool) -> DrainRequest {
    if parting {
        return at_once();
    }
    let d = &spec.drain;
    let (delay, wait) = quiet(spec, c);
    DrainRequest {
        mode: d.mode,
        initial_delay_seconds: delay as f64,
        wait_seconds: wait as f64,
        batch_size: d.batch_size(),
        batch_interval_seconds: d.batch_interval_seconds().into(),
        ttl_seconds: DRAIN_TTL_SECONDS,
    }
}

/// Seconds of delay and of wait. Of settings that came later than the drain's deadline as much as
/// leaves the batches their time: else all would be moved at once when it is over.
fn quiet(spec: &ChannelClusterSpec, c: &DrainCommitment) -> (i64, i64) {
    let d = &spec.drain;
    let (delay, wait) = (i64::from(d.initial_delay_seconds.max(0)), d.wait_seconds.max(0).into());
    let most = c.deadline.duration_since(c.started_at).as_secs();
    if delay + wait <= most {
        return (delay, wait);
    }
    let batches = c.initial.unwrap_or_default().div_ceil(d.batch_size().max(1).into());
    let batches = i64::try_from(batches).unwrap_or(i64::MAX);
    let closing = match d.mode {
        DrainMode::Batched => batches.saturating_mul(d.batch_interval_seconds().into()),
        DrainMode::Wait | DrainMode::Immediate => 0,
    };
    let room = most.saturating_sub(closing).max(0);
    let delay = delay.min(room);
    (delay, wait.min(room - delay))
}

#[cfg(test)]
mod tests {
    use sluice_crds::TimeoutPolicy;
    use sluice_node_api::admin::NodeStatus;

    use super::*;
    use crate::model::DrainOverride;

    fn pod(deadline: Timestamp) -> PodState {
        let commitment = DrainCommitment {
            reason: DrainReason::Rollout,
            started_at: Timestamp::UNIX_EPOCH,
            deadline,
            target: "new".into(),
            initial: Some(3),
            drained_at: None,
        };
        PodState { drain: Some(commitment), ..PodState::default() }
    }

    fn mode(policy: TimeoutPolicy, deadline: i64) -> DrainMode {
        let mut spec: ChannelClusterSpec = serde_json::from_str("{}").expect("all defaults");
        spec.drain.mode = DrainMode::Wait;
        spec.drain.timeout_policy = policy;
        let at = |s| Timestamp::from_second(s).expect("in range");
        renew(&spec, &pod(at(deadline)), at(100)).expect("it drains").1.mode
    }

    #[test]
    fn whoever_is_left_past_the_deadline_is_moved_at_once_unless_the_pod_is_held() {
        assert_eq!(mode(TimeoutPolicy::Terminate, 101), DrainMode::Wait);
        assert_eq!(mode(TimeoutPolicy::Terminate, 100), DrainMode::Immediate);
        assert_eq!(mode(TimeoutPolicy::Hold, 100), DrainMode::Wait);
    }

    #[test]
    fn a_pod_that_is_deleted_with_clients_is_hurried_past_its_deadline_or_when_a_person_says_so() {
        let at = |s| Timestamp::from_second(s).expect("in range");
        let mut spec: ChannelClusterSpec = serde_json::from_str("{}").expect("all defaults");
        let node = NodeStatus { connections: 3, ..NodeStatus::default() };
        let mut p = PodState { terminating: true, node: Some(node), ..pod(at(100)) };
        let told = |spec: &_, p: &_| renew(spec, p, at(100)).map(|(_, request)| request.mode);
        assert_eq!(told(&spec, &p), Some(DrainMode::Immediate));
        spec.drain.timeout_policy = TimeoutPolicy::Hold;
        assert_eq!(told(&spec, &p), None, "its clients have the grace of the pod");
        p.drain_override = Some(DrainOverride::Release);
        assert_eq!(told(&spec, &p), Some(DrainMode::Immediate));
        p.drain = None;
        assert_eq!(told(&spec, &p), Some(DrainMode::Immediate), "it drains by itself");
        p.node = None;
        assert_eq!(told(&spec, &p), None, "nobody is left, or nobody knows");
    }

    #[test]
    fn settings_that_come_later_leave_the_batches_their_time_before_the_deadline() {
        let mut spec: ChannelClusterSpec = serde_json::from_str("{}").expect("all defaults");
        let at = |s| Timestamp::from_second(s).expect("in range");
        let c = DrainCommitment { initial: Some(23), ..pod(at(20)).drain.expect("committed") };
        (spec.drain.batch_size, spec.drain.batch_interval_seconds) = (Some(5), Some(1));
        (spec.drain.initial_delay_seconds, spec.drain.wait_seconds) = (2, 10);
        assert_eq!(quiet(&spec, &c), (2, 10));
        spec.drain.initial_delay_seconds = 60;
        assert_eq!(quiet(&spec, &c), (15, 0));
        (spec.drain.initial_delay_seconds, spec.drain.wait_seconds) = (2, 60);
        assert_eq!(quiet(&spec, &c), (2, 13));
        spec.drain.mode = DrainMode::Immediate;
        assert_eq!(quiet(&spec, &c), (2, 18));
    }
}
