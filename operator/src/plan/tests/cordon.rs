//! Cordons: they keep clients from pods that are next to drain, and never turn anyone away for
//! whom there is no other place.

use super::{sim::World, spec};
use crate::model::Action;

/// A rollout of three pods, up to where the new pod takes clients and the first old one drains.
fn rolling() -> World {
    let mut w = World::new(spec(3), 60);
    w.settle(50);
    w.spread_evenly();
    w.template = 2;
    for _ in 0..20 {
        if w.pods.values().any(|p| p.annotations.is_some()) {
            return w;
        }
        w.step();
    }
    panic!("no drain begins: {}", w.brief());
}

fn cordons(w: &World) -> Vec<String> {
    let name = |a: &Action| match a {
        Action::Cordon { pod, .. } => Some(pod.name.clone()),
        _ => None,
    };
    w.plan().actions.iter().filter_map(name).collect()
}

fn cordoned(w: &World) -> Vec<i32> {
    w.pods.iter().filter(|(_, p)| w.cordoned(p)).map(|(o, _)| *o).collect()
}

#[test]
fn clients_are_moved_once_though_balancers_are_late() {
    for (n, surge, lag) in [(3, 1, 3), (3, 2, 3), (5, 1, 4), (5, 2, 4)] {
        let mut s = spec(n);
        s.update_strategy.rolling_update.max_surge = surge;
        let mut w = World::new(s, 40 * n as usize);
        w.lag = lag;
        w.settle(100);
        w.spread_evenly();
        w.template = 2;
        w.settle(4000);
        let moves: Vec<u32> = w.clients.iter().map(|c| c.moves).collect();
        assert!(moves.iter().all(|&m| m == 1), "n {n} surge {surge} lag {lag}: {moves:?}");
    }
}

#[test]
fn those_that_wait_for_their_drain_are_cordoned_until_they_take_clients_again() {
    let mut w = rolling();
    assert_eq!(cordons(&w), ["chat-1", "chat-2"], "{}", w.brief());
    w.step();
    assert_eq!((cordons(&w), cordoned(&w)), (vec![], vec![1, 2]));
    w.template = 1;
    let lifts = |w: &World| {
        let actions = w.plan().actions;
        actions.iter().any(|a| matches!(a, Action::Uncordon { .. })).then_some(actions)
    };
    let actions = (0..5).find_map(|_| {
        w.reconcile(usize::MAX);
        w.tick();
        w.controller();
        lifts(&w)
    });
    let actions = actions.expect("the cordons are lifted");
    let at = |wanted: fn(&Action) -> bool| actions.iter().position(wanted);
    let lifted = at(|a| matches!(a, Action::Uncordon { .. })).expect("lifted");
    let labels = at(|a| matches!(a, Action::SetAccepting { .. })).expect("labels");
    assert!(lifted < labels, "the node takes clients before they are led there: {actions:?}");
    w.settle(100);
    assert_eq!(cordoned(&w), [0; 0]);
}

#[test]
fn a_cordon_is_renewed_below_half_of_its_time_and_ends_by_itself() {
    let mut w = rolling();
    w.step();
    let mut left = |seconds: i64| {
        let end = w.now + seconds;
        w.pods.get_mut(&1).unwrap().cordon = Some(end);
        cordons(&w)
    };
    assert_eq!(left(150), [""; 0]);
    assert_eq!(left(149), ["chat-1"]);
    w.calm = false;
    (0..310).for_each(|_| w.tick());
    assert_eq!(cordoned(&w), [0; 0], "the operator is gone for good");
}

#[test]
fn without_a_pod_that_surely_takes_clients_nobody_is_cordoned() {
    let mut w = rolling();
    assert_eq!(cordons(&w).len(), 2);
    let new = w.pods.keys().copied().max().unwrap();
    let mut silent = w.clone();
    silent.pods.get_mut(&new).unwrap().silent_until = w.now + 60;
    assert_eq!(cordons(&silent), [""; 0], "it does not answer");
    let mut refusing = w.clone();
    refusing.pods.get_mut(&new).unwrap().cordon = Some(w.now + 60);
    assert_eq!(cordons(&refusing), [""; 0], "it refuses clients itself, as yet");
    w.spec.drain.initial_delay_seconds = 60;
    assert_eq!(cordons(&w), [""; 0], "its balancers are slow");
}
