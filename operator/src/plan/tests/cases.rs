//! The table of edge cases, row by row.

use sluice_crds::{Reason, TimeoutPolicy};

use super::{
    sim::{SimPod, World},
    spec,
};
use crate::model::{Action, DrainOverride};

/// A settled cluster of `n` pods with `per_pod` clients each.
pub(super) fn settled(n: i32, per_pod: usize) -> World {
    let mut w = World::new(spec(n), per_pod * n as usize);
    w.settle(100);
    w.spread_evenly();
    w
}

/// Steps until `until` holds.
pub(super) fn until(w: &mut World, what: &str, mut until: impl FnMut(&World) -> bool) {
    for _ in 0..500 {
        if until(w) {
            return;
        }
        w.step();
    }
    panic!("never: {what} {}", w.brief());
}

pub(super) fn draining(w: &World) -> Vec<i32> {
    w.pods
        .iter()
        .filter(|(_, p)| p.annotations.is_some() && !p.terminating)
        .map(|(o, _)| *o)
        .collect()
}
fn closing(w: &World) -> bool {
    w.pods
        .values()
        .any(|p| p.draining.is_some() && !p.terminating && (1..8).contains(&w.load(p.uid)))
}
pub(super) fn uids(w: &World) -> Vec<u32> {
    w.pods.values().map(|p| p.uid).collect()
}
pub(super) fn pod(w: &mut World, ordinal: i32) -> &mut SimPod {
    w.pods.get_mut(&ordinal).expect("the pod is there")
}
fn rolling_and_closing(n: i32) -> World {
    let mut w = settled(n, 10);
    w.template = 2;
    until(&mut w, "a drain that closes", closing);
    w
}

#[test]
fn operator_dies_mid_drain_and_its_successor_keeps_the_deadline() {
    let mut w = rolling_and_closing(3);
    let before = pod(&mut w, 0).annotations.clone();
    for _ in 0..5 {
        w.controller();
        w.tick();
    }
    assert_eq!(w.load(w.pods[&0].uid), 0, "the node drains on by itself");
    w.reconcile(usize::MAX);
    let after = pod(&mut w, 0).annotations.clone();
    assert_eq!(after.map(|a| a.deadline), before.map(|a| a.deadline));
    w.settle(500);
    assert!(w.clients.iter().all(|c| c.moves == 1));
}

#[test]
fn operator_absent_for_long_releases_nothing_and_the_node_serves_again() {
    let mut w = rolling_and_closing(3);
    let there = uids(&w);
    for _ in 0..400 {
        w.controller();
        w.tick();
    }
    assert_eq!(uids(&w), there);
    assert!(w.pods.values().all(|p| p.draining.is_none()), "the TTL is over");
    w.settle(1000);
}

#[test]
fn spec_changed_mid_rollout_retargets_and_the_drain_in_flight_keeps_its_slot() {
    let mut w = rolling_and_closing(3);
    let before = pod(&mut w, 0).clone();
    w.template = 3;
    until(&mut w, "the first pod is gone", |w| {
        if let Some(p) = w.pods.get(&0) {
            assert!(p.uid == before.uid && p.annotations.is_some(), "the drain was undone");
        }
        !w.pods.contains_key(&0)
    });
    w.settle(500);
    assert!(w.pods.values().all(|p| p.template == 3));
}

#[test]
fn rollback_mid_rollout_drains_only_what_had_changed() {
    let mut w = rolling_and_closing(3);
    until(&mut w, "the second pod drains", |w| draining(w) == [1] && closing(w));
    let stay: Vec<u32> = [1, 2].iter().map(|o| w.pods[o].uid).collect();
    w.template = 1;
    w.settle(500);
    assert!(stay.iter().all(|uid| uids(&w).contains(uid)), "old pods stay: {}", w.brief());
    assert!(w.clients.iter().all(|c| c.moves <= 2));
}

#[test]
fn rollback_without_unavailability_allowed_still_ends() {
    let mut w = settled(3, 10);
    w.spec.update_strategy.rolling_update.max_unavailable = 0;
    w.template = 2;
    until(&mut w, "the second pod drains", |w| draining(w) == [1]);
    w.template = 1;
    w.settle(1000);
}

#[test]
fn new_pod_never_ready_stops_after_one_pod_and_a_fixed_spec_proceeds_at_once() {
    let mut w = settled(3, 10);
    let old = uids(&w);
    w.bad = [2].into();
    w.template = 2;
    for _ in 0..100 {
        w.step();
    }
    assert_eq!(w.pods.values().filter(|p| p.template == 2).count(), 1);
    assert!(old.iter().all(|u| uids(&w).contains(u)) && draining(&w).is_empty());
    assert_eq!(w.plan().waiting[0].reason, Reason::PodStuck);
    let created = w.next_uid;
    w.template = 3;
    until(&mut w, "the stuck pod is replaced", |w| w.pods.values().any(|p| p.template == 3));
    assert!(w.now - 1_000_000 < 140 && w.next_uid == created + 1);
    w.settle(500);
    let moves: Vec<u32> = w.clients.iter().map(|c| c.moves).collect();
    assert!(moves.iter().all(|m| *m == 1), "{moves:?}");
}

#[test]
fn scaled_10_9_10_cancels_the_drain() {
    let mut w = settled(10, 4);
    let before = uids(&w);
    w.spec.replicas = 9;
    until(&mut w, "the top pod drains", |w| draining(w) == [9] && w.pods[&9].draining.is_some());
    w.spec.replicas = 10;
    let p = w.plan();
    let undone = |two: &[Action]| {
        matches!(&two[0], Action::CancelDrain { pod } if pod.name == "chat-9")
            && matches!(&two[1], Action::StripAnnotations { pod } if pod.name == "chat-9")
    };
    assert!(p.actions.windows(2).any(undone), "{p:?}");
    w.settle(50);
    assert_eq!(uids(&w), before);
}

#[test]
fn scale_down_in_a_rollout_never_updates_a_pod_just_to_delete_it() {
    let mut w = settled(5, 4);
    w.template = 2;
    until(&mut w, "the first pod drains", |w| draining(w) == [0]);
    let created = w.next_uid;
    w.spec.replicas = 2;
    w.settle(500);
    assert!(w.next_uid - created <= 1, "the surge pod was there, one more is wanted");
}

#[test]
fn scaled_to_zero_every_pod_drains_then_goes() {
    let mut w = settled(3, 4);
    w.spec.replicas = 0;
    w.settle(200);
    assert!(w.pods.is_empty() && w.clients.iter().all(|c| c.pod.is_none()));
    w.spec.replicas = 2;
    w.settle(100);
    w.step();
    assert!(w.clients.iter().all(|c| c.pod.is_some()));
}

#[test]
fn a_single_replica_is_replaced_without_a_gap() {
    let mut w = settled(1, 10);
    w.template = 2;
    until(&mut w, "it is replaced", |w| {
        assert!(
            w.pods.values().any(|p| p.accepting && p.ready_since.is_some() && !p.terminating),
            "a gap: {}",
            w.brief()
        );
        w.pods.values().all(|p| p.template == 2)
    });
    w.settle(100);
}

#[test]
fn paused_mid_drain_undrains_and_begins_nothing() {
    let mut w = rolling_and_closing(3);
    let there = uids(&w);
    w.spec.paused = true;
    for _ in 0..60 {
        w.step();
    }
    assert!(draining(&w).is_empty() && w.pods.values().all(|p| p.draining.is_none()));
    assert_eq!(uids(&w), there);
    w.template = 3;
    for _ in 0..20 {
        w.step();
    }
    assert_eq!(uids(&w), there);
    w.spec.paused = false;
    w.settle(1000);
}

#[test]
fn paused_while_the_controller_is_away_drains_end_all_the_same() {
    let mut w = rolling_and_closing(3);
    w.set.as_mut().expect("it is there").generation += 1;
    w.spec.paused = true;
    for _ in 0..3 {
        w.reconcile(usize::MAX);
        w.tick();
    }
    assert!(draining(&w).is_empty() && w.pods.values().all(|p| p.draining.is_none()));
    w.spec.paused = false;
    w.settle(1000);
}

#[test]
fn paused_it_still_grows() {
    let mut w = settled(3, 4);
    w.spec.paused = true;
    w.spec.replicas = 5;
    w.settle(50);
}

#[test]
fn pod_deleted_by_a_person_counts_against_the_budget() {
    let mut w = rolling_and_closing(3);
    until(&mut w, "the second pod drains", |w| draining(w) == [1]);
    w.calm = false;
    let new = *w.pods.keys().next_back().expect("a pod");
    w.kill(new);
    w.step();
    for _ in 0..3 {
        assert!(draining(&w).len() <= 1, "{}", w.brief());
        w.step();
    }
    w.settle(500);
}

#[test]
fn drain_endpoint_unreachable_waits_for_the_deadline() {
    let mut w = rolling_and_closing(3);
    w.calm = false;
    let deadline = w.pods[&0].annotations.as_ref().expect("committed").deadline;
    pod(&mut w, 0).silent_until = i64::MAX;
    let left = |w: &World| !w.pods.contains_key(&0) || w.pods[&0].terminating;
    until(&mut w, "it is let go", left);
    assert!(w.now >= deadline, "{} < {deadline}", w.now);
    w.settle(1000);
}

#[test]
fn drain_endpoint_unreachable_is_said() {
    let mut w = rolling_and_closing(3);
    pod(&mut w, 0).silent_until = i64::MAX;
    w.step();
    assert!(w.plan().waiting.iter().any(|x| x.reason == Reason::DrainEndpointUnreachable));
}

#[test]
fn a_pod_that_is_not_ready_and_has_no_sockets_goes_at_once() {
    let mut w = settled(3, 10);
    w.calm = false;
    w.template = 2;
    w.step();
    pod(&mut w, 0).down_until = w.now + 1000;
    let gone = w.now;
    until(&mut w, "it is gone", |w| !w.pods.contains_key(&0));
    assert!(w.now < gone + 8);
    w.settle(500);
}

#[test]
fn a_pod_that_was_let_go_and_is_back_takes_nobody_before_it_is_kept() {
    let mut w = settled(2, 2);
    w.calm = false;
    w.spec.update_strategy.rolling_update.max_surge = 0;
    w.template = 2;
    until(&mut w, "one is made anew", |w| w.pods.get(&1).is_some_and(|p| p.template == 2));
    // The other one crashes, and is let go; but the controller waits for the one it has begun with.
    (pod(&mut w, 1).ready_at, pod(&mut w, 0).down_until) = (w.now + 8, w.now + 3);
    until(&mut w, "the other one is let go", |w| w.set.as_ref().unwrap().partition == 0);
    let is_back = |w: &World| w.pods[&0].ready_since.is_some() && w.pods[&0].template == 1;
    while !is_back(&w) {
        w.controller();
        w.tick();
    }
    // An operator that is killed after its first write has led no client there.
    w.reconcile(1);
    while w.pods[&1].ready_since.is_none() {
        w.tick();
    }
    w.settle(200);
}

#[test]
fn deadline_over_and_hold_keeps_the_pod_until_a_person_decides() {
    let mut w = settled(3, 10);
    w.spec.drain.timeout_policy = TimeoutPolicy::Hold;
    w.spec.drain.wait_seconds = 200;
    w.spec.drain.timeout_seconds = 30;
    w.template = 2;
    for _ in 0..100 {
        w.step();
    }
    assert_eq!(draining(&w), [0]);
    assert!(w.plan().waiting.iter().any(|x| x.reason == Reason::DrainHeld));
    pod(&mut w, 0).pin = Some(DrainOverride::Release);
    until(&mut w, "it is let go", |w| !w.pods.contains_key(&0));
}

#[test]
fn annotated_release_before_its_drain_a_pod_drains_as_any_other() {
    let mut w = settled(3, 10);
    pod(&mut w, 0).pin = Some(DrainOverride::Release);
    w.template = 2;
    until(&mut w, "its drain's end", |w| {
        let drained = |p: &SimPod| p.annotations.as_ref().is_some_and(|a| a.drained.is_some());
        let paced = w.pods.get(&0).is_none_or(|p| !p.at_once || drained(p));
        assert!(paced, "all at once {}", w.brief());
        !w.pods.contains_key(&0)
    });
    w.settle(500);
}

#[test]
fn annotated_cancel_a_pod_is_left_alone() {
    let mut w = rolling_and_closing(3);
    pod(&mut w, 0).pin = Some(DrainOverride::Cancel);
    for _ in 0..50 {
        w.step();
    }
    assert!(draining(&w).is_empty() && w.pods.contains_key(&0));
    assert!(w.plan().waiting.iter().any(|x| x.reason == Reason::DrainHeld));
    pod(&mut w, 0).pin = None;
    w.settle(500);
}

#[test]
fn deadline_over_and_terminate_lets_the_pod_go() {
    let mut w = settled(2, 10);
    w.spec.drain.mode = sluice_crds::DrainMode::Wait;
    w.spec.drain.wait_seconds = 10_000;
    w.spec.drain.timeout_seconds = 20;
    w.template = 2;
    w.settle(500);
}

#[test]
fn container_restarted_while_draining_is_drained_again() {
    let mut w = rolling_and_closing(3);
    w.calm = false;
    let uid = w.pods[&0].uid;
    pod(&mut w, 0).down_until = w.now + 3;
    w.tick();
    until(&mut w, "it is gone", |w| {
        w.pods.get(&0).is_none_or(|p| {
            assert!(p.uid == uid && p.annotations.is_some());
            false
        })
    });
    w.settle(500);
}

#[test]
fn an_edited_statefulset_is_put_right() {
    let mut w = settled(3, 4);
    let set = w.set.as_mut().expect("it is there");
    (set.replicas, set.partition, set.generation) = (5, 0, set.generation + 1);
    w.settle(200);
    assert_eq!(w.pods.len(), 3);
}
