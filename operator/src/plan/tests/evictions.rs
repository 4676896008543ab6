//! `kubectl drain`: pods on a cordoned Kubernetes node move their clients before they are evicted.

use sluice_crds::{DrainReason, TimeoutPolicy};

use super::{
    cases::{draining, pod, settled, uids, until},
    sim::World,
};
use crate::model::{DrainOverride, StuckReason};

fn evict(w: &mut World, ordinal: i32) {
    let p = pod(w, ordinal);
    (p.cordoned, p.unwanted) = (true, true);
}
fn uncordon(w: &mut World, ordinal: i32) {
    let p = pod(w, ordinal);
    (p.cordoned, p.unwanted) = (false, false);
}
fn moves(w: &World) -> Vec<u32> {
    let mut moves: Vec<u32> = w.clients.iter().map(|c| c.moves).collect();
    moves.sort_unstable();
    moves
}

#[test]
fn an_evicted_pod_moves_its_clients_once_and_comes_back_elsewhere() {
    let mut w = settled(3, 10);
    let before = uids(&w);
    evict(&mut w, 1);
    until(&mut w, "a drain", |w| draining(w) == [1]);
    assert_eq!(w.pods[&1].annotations.as_ref().map(|a| a.reason), Some(DrainReason::Eviction));
    w.settle(500);
    assert_eq!(moves(&w), [vec![0; 20], vec![1; 10]].concat());
    let after = uids(&w);
    assert_eq!((before[0], before[2]), (after[0], after[2]));
    assert_ne!(before[1], after[1]);
}

#[test]
fn all_pods_of_one_kubernetes_node_go_one_after_the_other() {
    let mut w = settled(4, 10);
    (0..3).for_each(|o| evict(&mut w, o));
    for _ in 0..500 {
        w.step();
        assert!(draining(&w).len() <= 1, "{}", w.brief());
    }
    assert!(w.converged(), "{}", w.brief());
}

#[test]
fn pods_whose_nodes_serve_while_another_container_fails_are_drained_one_by_one() {
    let mut w = settled(4, 10);
    w.calm = false;
    for o in 1..3 {
        let now = w.now;
        let p = pod(&mut w, o);
        (p.gated_since, p.stuck) = (Some(now), Some(StuckReason::ImagePull));
        evict(&mut w, o);
    }
    let there = uids(&w);
    for _ in 0..500 {
        w.step();
        let going: Vec<_> = w.pods.values().filter(|p| p.terminating).collect();
        assert!(going.iter().all(|p| w.load(p.uid) == 0), "{}", w.brief());
        assert!(draining(&w).len() <= 1, "{}", w.brief());
    }
    let after = uids(&w);
    assert!(there[1] != after[1] && there[2] != after[2], "{}", w.brief());
    w.settle(500);
}

#[test]
fn two_nodes_emptied_at_once_fill_the_pod_that_is_back_before_those_that_are_full() {
    for seed in 0..20 {
        let mut w = settled(3, 20);
        w.seed(seed);
        (0..2).for_each(|o| evict(&mut w, o));
        w.settle(500);
        // The first goes to the only one that stays, the second to the first, which is back.
        assert!(w.peak <= 42, "one pod had {} of 60 clients (seed {seed})", w.peak);
        assert!(w.clients.iter().all(|c| c.moves <= 1), "{:?}", moves(&w));
    }
}

#[test]
fn the_only_pod_is_replaced_before_it_goes() {
    let mut w = settled(1, 10);
    evict(&mut w, 0);
    until(&mut w, "a drain", |w| draining(w) == [0]);
    assert!(w.pods[&1].ready_since.is_some(), "{}", w.brief());
    w.settle(500);
    assert_eq!(w.pods.keys().collect::<Vec<_>>(), [&1]);
    assert_eq!(moves(&w), [1; 10]);
}

#[test]
fn the_only_pod_goes_anyway_when_the_one_in_its_place_never_starts() {
    let mut w = settled(1, 10);
    w.bad.insert(2);
    w.template = 2;
    until(&mut w, "a stuck surge", |w| w.pods.contains_key(&1));
    w.step();
    evict(&mut w, 0);
    until(&mut w, "its end", |w| !w.pods.contains_key(&0));
    assert_eq!(moves(&w), [1; 10]);
}

#[test]
fn a_drain_whose_time_is_over_is_not_undone_for_an_eviction() {
    let mut w = settled(3, 4);
    w.calm = false;
    w.spec.drain.timeout_seconds = 10;
    w.spec.replicas = 2;
    until(&mut w, "a drain", |w| draining(w) == [2]);
    // It can't be told that another goes first, until it goes itself.
    pod(&mut w, 2).silent_until = i64::MAX;
    evict(&mut w, 0);
    until(&mut w, "its end", |w| {
        let there = w.pods.get(&2);
        assert!(there.is_none_or(|p| p.annotations.is_some()), "{}", w.brief());
        there.is_none()
    });
    w.settle(500);
}

#[test]
fn a_surplus_surge_pod_drains_to_its_deadline_though_the_only_other_is_evicted() {
    let mut w = settled(1, 4);
    w.spec.drain.timeout_seconds = 10;
    w.template = 2;
    until(&mut w, "clients on the new pod", |w| {
        w.pods.get(&1).is_some_and(|p| (1..4).contains(&w.load(p.uid)))
    });
    w.calm = false;
    pod(&mut w, 1).silent_until = i64::MAX;
    w.spec.update_strategy.rolling_update.partition = 1;
    until(&mut w, "its drain", |w| draining(w).contains(&1));
    let deadline = w.pods[&1].annotations.as_ref().map(|a| a.deadline);
    evict(&mut w, 0);
    until(&mut w, "its end", |w| w.pods.get(&1).is_none_or(|p| p.terminating));
    let committed = w.pods.get(&1).and_then(|p| p.annotations.as_ref());
    assert_eq!(committed.map(|a| a.deadline), deadline, "{}", w.brief());
    assert!(deadline.is_some_and(|end| w.now >= end), "{}", w.brief());
    w.settle(500);
    assert!(w.pods.values().all(|p| p.template == 1), "{}", w.brief());
}

#[test]
fn uncordoning_undoes_the_drain_and_forgets_the_request() {
    let mut w = settled(3, 10);
    let before = uids(&w);
    evict(&mut w, 1);
    until(&mut w, "clients on their way", |w| w.load(w.pods[&1].uid) < 10);
    uncordon(&mut w, 1);
    w.settle(10);
    assert_eq!(uids(&w), before);
    assert!(w.clients.iter().any(|c| c.moves == 0 && c.pod == Some(before[1])));
}

#[test]
fn a_request_that_nobody_repeats_is_forgotten() {
    let mut w = settled(3, 10);
    let before = uids(&w);
    evict(&mut w, 1);
    until(&mut w, "a drain", |w| draining(w) == [1]);
    pod(&mut w, 1).unwanted = false;
    w.settle(400);
    assert_eq!(uids(&w), before);
    assert!(w.pods[&1].cordoned && w.pods[&1].accepting);
}

#[test]
fn a_pod_that_is_pinned_or_paused_does_not_drain() {
    let mut w = settled(3, 10);
    w.spec.paused = true;
    evict(&mut w, 1);
    let there = uids(&w);
    until(&mut w, "its end", |w| uids(w) != there);
    assert!(draining(&w).is_empty());
    w.spec.paused = false;
    w.settle(500);

    w.calm = false; // A person says that it may go as it is.
    pod(&mut w, 2).pin = Some(DrainOverride::Cancel);
    evict(&mut w, 2);
    let there = uids(&w);
    until(&mut w, "its end", |w| uids(w) != there);
    assert!(draining(&w).is_empty());
}

#[test]
fn a_held_pod_is_evicted_once_a_person_lets_it() {
    let mut w = settled(3, 10);
    w.spec.drain.timeout_policy = TimeoutPolicy::Hold;
    w.spec.drain.wait_seconds = 10_000;
    evict(&mut w, 1);
    let there = uids(&w);
    (0..500).for_each(|_| w.step());
    assert_eq!(uids(&w), there);
    w.calm = false;
    pod(&mut w, 1).pin = Some(DrainOverride::Release);
    until(&mut w, "its end", |w| uids(w) != there);
}

#[test]
fn an_eviction_amid_a_rollout_goes_first_and_the_rollout_goes_on() {
    let mut w = settled(3, 10);
    w.template = 2;
    until(&mut w, "a rollout's drain", |w| draining(w) == [0]);
    evict(&mut w, 2);
    w.settle(1000);
    assert!(w.pods.values().all(|p| p.template == 2));
    assert!(w.clients.iter().all(|c| c.moves <= 3), "{:?}", moves(&w));
}
