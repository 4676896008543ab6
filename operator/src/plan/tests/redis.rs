//! Redis away, back, and out of reach for some: who takes clients, and what goes on.

use jiff::SignedDuration;
use sluice_crds::{Adapter, Reason};

use super::{
    cases::{draining, pod, settled, until},
    sim::World,
    spec,
};
use crate::{
    model::{Action, Observed, Plan},
    plan::plan,
};

/// A settled cluster of `n` pods on Redis, with 10 clients each.
fn on_redis(n: i32) -> World {
    let mut w = settled(n, 10);
    w.spec.pubsub.adapter = Adapter::Redis;
    w.redis = Some(true);
    w.settle(10);
    w
}

/// The ordinals of the pods that take clients. One that is deleted keeps its label to its end.
fn taking(w: &World) -> Vec<i32> {
    w.pods.iter().filter(|(_, p)| p.accepting && !p.terminating).map(|(o, _)| *o).collect()
}

fn steps(w: &mut World, n: usize) {
    (0..n).for_each(|_| w.step());
}

#[test]
fn without_redis_pods_that_come_back_take_clients_again() {
    let mut w = on_redis(3);
    w.redis = Some(false);
    w.calm = false;
    w.kill(1);
    w.kill(2);
    steps(&mut w, 2);
    assert_eq!(taking(&w), [0]);
    until(&mut w, "all take clients", |w| taking(w) == [0, 1, 2]);
    w.settle(20);
    assert!(w.plan().waiting.is_empty(), "{:?}", w.plan().waiting);
    // Nor does anything change for them when it is back.
    let before = w.observe().pods;
    w.redis = Some(true);
    assert!(w.plan().actions.is_empty(), "{before:?}");
}

#[test]
fn a_cluster_made_without_redis_takes_clients_on_all_its_pods_and_grows() {
    let mut w = World::new(spec(3), 30);
    w.spec.pubsub.adapter = Adapter::Redis;
    w.redis = Some(false);
    w.settle(50);
    assert_eq!(taking(&w), [0, 1, 2]);
    w.spec.replicas = 5;
    w.settle(50);
    assert_eq!(taking(&w), [0, 1, 2, 3, 4]);
    w.spec.replicas = 2;
    w.settle(200);
}

#[test]
fn without_redis_a_deploy_goes_on_and_moves_each_client_once() {
    for surge in [1, 0] {
        let mut w = on_redis(3);
        w.redis = Some(false);
        w.spec.update_strategy.rolling_update.max_surge = surge;
        w.template = 2;
        w.settle(500);
        let moves: Vec<u32> = w.clients.iter().map(|c| c.moves).collect();
        let most = if surge > 0 { 1 } else { 3 };
        assert!(moves.iter().all(|m| (1..=most).contains(m)), "surge {surge}: {moves:?}");
    }
}

#[test]
fn redis_that_goes_and_comes_back_amid_a_deploy_changes_nothing_about_it() {
    for back in 1..30 {
        let mut w = on_redis(3);
        w.template = 2;
        steps(&mut w, 8);
        w.redis = Some(false);
        steps(&mut w, back);
        w.redis = Some(true);
        w.settle(500);
        assert!(w.clients.iter().all(|c| c.moves == 1), "back after {back}");
    }
}

#[test]
fn a_redis_that_stays_away_is_waited_for_with_less_and_less_effort() {
    let soon = Some(SignedDuration::from_secs(1));
    let mut w = on_redis(3);
    w.redis = Some(false);
    w.calm = false;
    w.kill(1);
    until(&mut w, "it is back", |w| w.pods.get(&1).is_some_and(|p| p.ready_since == Some(w.now)));
    steps(&mut w, 25);
    assert_eq!(w.plan().requeue_after, soon, "a pod that comes gets its label soon");
    steps(&mut w, 30);
    let later = w.plan().requeue_after;
    assert!(later > soon && later < Some(SignedDuration::from_secs(10)), "{later:?}");
    steps(&mut w, 100);
    assert_eq!(w.plan().requeue_after, None);

    // What moves is not: drains are paced from here.
    w.spec.replicas = 2;
    w.step();
    assert_eq!(w.plan().requeue_after, soon);
    w.settle(200);
    w.template = 2;
    steps(&mut w, 3);
    assert_eq!(w.plan().requeue_after, soon);
    w.settle(500);
}

#[test]
fn a_node_cut_off_from_redis_takes_no_clients_while_others_do() {
    let mut w = on_redis(3);
    w.cut_off = [1].into();
    w.step();
    assert_eq!(taking(&w), [0, 2]);
    steps(&mut w, 30);
    assert!(w.clients.iter().all(|c| c.moves == 0), "those that it has stay");
    assert!(draining(&w).is_empty());
    let told = w.plan().waiting;
    assert!(told.iter().any(|x| x.message == "waiting for chat-1 to reach Redis"), "{told:?}");

    // Nor when it comes anew.
    w.calm = false;
    w.kill(1);
    steps(&mut w, 30);
    assert_eq!(taking(&w), [0, 2]);
    w.cut_off.clear();
    w.settle(20);
    assert_eq!(taking(&w), [0, 1, 2]);
}

#[test]
fn whoever_reaches_redis_first_does_not_get_everybody() {
    let mut w = on_redis(3);
    w.redis = Some(false);
    steps(&mut w, 5);
    w.redis = Some(true);
    w.cut_off = [0, 2].into();
    steps(&mut w, 5);
    assert_eq!(taking(&w), [0, 1, 2]);
    // One that comes now waits for the link that another has.
    w.calm = false;
    w.kill(2);
    steps(&mut w, 20);
    assert_eq!(taking(&w), [0, 1]);
    w.cut_off.clear();
    w.settle(20);
}

#[test]
fn nobody_is_left_without_a_pod_when_the_one_that_reaches_redis_drains() {
    let mut w = on_redis(2);
    w.cut_off = [1].into();
    w.spec.drain.wait_seconds = 100;
    pod(&mut w, 0).cordoned = true;
    pod(&mut w, 0).unwanted = true;
    until(&mut w, "the other takes clients", |w| taking(w) == [1]);
}

/// What is planned for a rollout whose one new pod is ready, with what the nodes tell of Redis.
fn rollout(old: Option<bool>, new: Option<bool>) -> Plan {
    let mut w = settled(3, 10);
    w.template = 2;
    until(&mut w, "the new pod is ready", |w| {
        w.pods.get(&3).is_some_and(|p| p.ready_since.is_some_and(|t| w.now > t + 1))
    });
    let mut o: Observed = w.observe();
    for p in &mut o.pods {
        p.drain = None;
        p.accepting = p.ordinal != 3;
        let node = p.node.as_mut().unwrap();
        node.drain = Default::default();
        node.redis_connected = if p.ordinal == 3 { new } else { old };
    }
    plan(&w.desired(), &o, w.timestamp())
}

#[test]
fn a_deploy_to_a_redis_that_is_out_of_reach_stops_at_its_first_pod() {
    let goes_on = |p: &Plan| p.actions.iter().any(|a| matches!(a, Action::Commit { .. }));
    // From the mesh, and from a Redis that the pods before reach.
    for old in [None, Some(true)] {
        let p = rollout(old, Some(false));
        assert!(!goes_on(&p), "from {old:?}: {p:?}");
        assert!(p.waiting.iter().any(|x| x.reason == Reason::WaitingForLinks), "{p:?}");
    }
    // What mends it, or is no worse, is not held up.
    for new in [None, Some(true), Some(false)] {
        assert!(goes_on(&rollout(Some(false), new)), "to {new:?}");
    }
}
