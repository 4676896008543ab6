//! Rebalancing: it gets there, it stops there, and it moves hardly a client twice.

use proptest::prelude::*;
use sluice_crds::RebalanceMode;

use super::{sim::World, spec};
use crate::model::Action;

fn world(n: i32, clients: usize, seed: u64) -> World {
    let mut w = World::new(spec(n), clients);
    w.seed(seed);
    w.settle(300);
    w.spread_evenly();
    w.spec.rebalance.mode = RebalanceMode::Auto;
    w
}

/// Puts so many clients on each pod, in order; the rest stay where they are.
fn lay(w: &mut World, loads: &[usize]) {
    let uids: Vec<u32> = w.pods.values().map(|p| p.uid).collect();
    let mut clients = w.clients.iter_mut();
    for (uid, load) in uids.iter().zip(loads) {
        for c in clients.by_ref().take(*load) {
            c.pod = Some(*uid);
            c.moves = 0;
        }
    }
}

fn loads(w: &World) -> Vec<usize> {
    w.pods.values().map(|p| w.load(p.uid)).collect()
}

fn even(w: &World) -> bool {
    let mean = w.clients.len() as f64 / w.pods.len() as f64;
    let bound = (mean * 1.1).max(mean + 2.0);
    loads(w).iter().all(|n| *n as f64 <= bound)
}

fn moves(w: &World) -> usize {
    w.clients.iter().map(|c| c.moves as usize).sum()
}

/// Clients above the mean, over all pods.
fn excess(w: &World) -> usize {
    let mean = w.clients.len() as f64 / w.pods.len() as f64;
    loads(w).iter().map(|n| (*n as f64 - mean).max(0.0).ceil() as usize).sum()
}

/// Steps until nothing is under way and nothing left to do; the seconds it took.
fn settle(w: &mut World, at_most: usize) -> usize {
    for took in 0..at_most {
        if w.converged() && w.pods.values().all(|p| p.shed.is_none()) {
            return took;
        }
        w.step();
    }
    panic!("after {at_most} steps {:?} {}", loads(w), w.brief());
}

#[test]
fn a_scale_up_ends_even() {
    let mut w = world(2, 60, 7);
    w.spec.replicas = 4;
    settle(&mut w, 60);
    assert!(even(&w), "{:?}", loads(&w));
    assert!(w.clients.iter().all(|c| c.moves <= 2), "{:?}", w.clients);
    assert!(moves(&w) <= 30 + 10, "{}", moves(&w));
}

#[test]
fn a_release_on_a_pod_that_does_not_drain_keeps_nothing_from_becoming_even() {
    let mut w = world(1, 60, 7);
    super::cases::pod(&mut w, 0).pin = Some(crate::model::DrainOverride::Release);
    w.spec.replicas = 3;
    settle(&mut w, 60);
    assert!(even(&w), "{:?}", loads(&w));
}

#[test]
fn the_labels_come_first_then_the_shed_with_its_rate_and_delay() {
    let mut w = world(4, 60, 1);
    w.spec.rebalance.rate_per_second = 7;
    lay(&mut w, &[30, 10, 10, 10]);
    let p = w.plan();
    assert!(
        matches!(&p.actions[..], [Action::SetAccepting { pods, .. }, Action::Cordon { pod, .. }]
            if pod.name == "chat-0" && pods.len() == 1 && pods[0].0.name == "chat-0" && !pods[0].1),
        "{p:?}"
    );
    w.reconcile(usize::MAX);
    let p = w.plan();
    let [Action::Shed { pod, request }] = &p.actions[..] else { panic!("{p:?}") };
    assert_eq!((pod.name.as_str(), request.count, request.rate_per_second), ("chat-0", 15, 7));
    assert!((request.delay_seconds - 2.0).abs() < 0.1, "balancers hear of the labels first");
    w.reconcile(usize::MAX);
    assert_eq!(w.plan().actions, [], "one at a time");
    assert!(w.plan().requeue_after.is_some());
}

#[test]
fn nothing_is_moved_when_it_is_off_or_nearly_even_or_something_else_is_under_way() {
    let uneven = || {
        let mut w = world(3, 60, 1);
        lay(&mut w, &[40, 10, 10]);
        w
    };
    let idle = |w: &World| {
        let p = w.plan();
        assert!(!p.actions.iter().any(|a| matches!(a, Action::Shed { .. })), "{p:?}");
    };
    let steered = |mut w: World| {
        w.reconcile(usize::MAX);
        assert!(w.plan().actions.iter().any(|a| matches!(a, Action::Shed { .. })), "it would");
        w
    };
    let mut w = steered(uneven());
    w.spec.rebalance.mode = RebalanceMode::Off;
    idle(&w);
    let mut w = steered(uneven());
    w.spec.service.session_affinity = sluice_crds::SessionAffinity::ClientIP;
    idle(&w);
    let mut w = steered(uneven());
    w.spec.paused = true;
    idle(&w);
    let mut w = steered(uneven());
    w.template = 2;
    idle(&w);
    let mut w = steered(uneven());
    w.spec.replicas = 4;
    idle(&w);
    let mut w = steered(uneven());
    w.pods.get_mut(&1).unwrap().silent_until = w.now + 5;
    idle(&w);
    let mut w = world(3, 60, 1);
    lay(&mut w, &[22, 19, 19]);
    assert_eq!(w.plan().actions, [], "two more than the mean are fine");
    let mut w = world(3, 600, 1);
    lay(&mut w, &[220, 190, 190]);
    assert_eq!(w.plan().actions, [], "10 % more than the mean are fine");
}

#[test]
fn fewer_clients_than_pods_are_spread_as_well() {
    let mut w = world(4, 3, 1);
    lay(&mut w, &[0, 0, 3, 0]);
    settle(&mut w, 130);
    assert!(even(&w), "{:?}", loads(&w));
}

#[test]
fn a_shed_that_is_not_wanted_any_more_is_ended() {
    let mut w = world(3, 600, 1);
    w.spec.rebalance.rate_per_second = 1;
    lay(&mut w, &[400, 100, 100]);
    (0..5).for_each(|_| w.step());
    assert!(w.pods[&0].shed.is_some());
    w.spec.rebalance.mode = RebalanceMode::Off;
    w.step();
    assert!(w.pods[&0].shed.is_none());
    let before = moves(&w);
    w.settle(20);
    assert!(moves(&w) == before && before < 10, "{before}");
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    /// From any load: even within 2 minutes and the time that the rate costs, then nobody is
    /// moved any more. All in all at most 1.5 times as many moves as clients were above the mean,
    /// and a few.
    #[test]
    fn any_load_becomes_even_and_stays(
        seed in 1u64..1000, weights in prop::collection::vec(0usize..100, 2..8),
        clients in 0usize..800, rate in 1i32..200,
    ) {
        let n = weights.len();
        let mut w = world(n as i32, clients, seed);
        w.spec.rebalance.rate_per_second = rate;
        let all = weights.iter().sum::<usize>().max(1);
        let parts: Vec<usize> = weights.iter().map(|x| x * clients / all).collect();
        lay(&mut w, &parts);
        let too_many = excess(&w);
        settle(&mut w, 120 + 2 * too_many / rate as usize);
        prop_assert!(even(&w), "{:?}", loads(&w));
        let moved = moves(&w);
        prop_assert!(moved <= too_many * 7 / 4 + 5 * n, "{moved} moves, {too_many} above the mean");
        (0..60).for_each(|_| w.step());
        prop_assert_eq!(moves(&w), moved, "moved on although it was even");
    }
}
