//! The straight path: each client is moved once, no pod is overloaded, every step is the one that
//! was tried by hand on a real StatefulSet controller.

use super::{
    cases::{draining, settled, until},
    sim::{SimSet, World},
    spec,
};

/// Where the StatefulSet stood, each time that it changed: replicas, start, partition.
fn cursors(w: &mut World, steps: usize) -> Vec<(i32, i32, i32)> {
    let at = |s: &SimSet| (s.replicas, s.start, s.partition);
    let mut seen = vec![at(w.set.as_ref().unwrap())];
    for _ in 0..steps {
        if w.converged() {
            return seen;
        }
        w.step();
        let now = at(w.set.as_ref().unwrap());
        if seen.last() != Some(&now) {
            seen.push(now);
        }
    }
    panic!("not converged: {w:#?}");
}

#[test]
fn the_cursor_moves_as_tried_on_a_real_controller() {
    let mut w = World::new(spec(3), 60);
    w.settle(50);
    w.spread_evenly();
    w.template = 2;
    assert_eq!(
        cursors(&mut w, 500),
        [(3, 0, 3), (4, 0, 3), (4, 1, 2), (4, 2, 1), (3, 3, 0), (3, 3, 3)]
    );
}

#[test]
fn every_client_is_moved_exactly_once_and_no_pod_is_overloaded() {
    for (n, surge) in [(1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (4, 1), (5, 1), (5, 2), (8, 3)] {
        for seed in 1..6 {
            let mut s = spec(n);
            s.update_strategy.rolling_update.max_surge = surge;
            let mut w = World::new(s, 100 * n as usize);
            w.seed(seed);
            w.settle(100);
            w.spread_evenly();
            w.template = 2;
            w.settle(4000);
            let moves: Vec<u32> = w.clients.iter().map(|c| c.moves).collect();
            assert!(moves.iter().all(|&m| m == 1), "n {n} surge {surge}: {moves:?}");
            let peak = w.peak as f64 / 100.0;
            assert!(peak <= 1.06, "n {n} surge {surge} seed {seed}: peak {peak}");
        }
    }
}

#[test]
fn an_uneven_load_gets_no_higher_and_only_what_is_too_much_is_moved_twice() {
    for (loads, surge) in [([150, 75, 75], 1), ([75, 150, 75], 1), ([60, 90, 150], 2)] {
        let mut s = spec(3);
        s.update_strategy.rolling_update.max_surge = surge;
        let mut w = World::new(s, 300);
        w.settle(100);
        w.spread_evenly();
        let uids: Vec<u32> = w.pods.values().map(|p| p.uid).collect();
        let mut clients = w.clients.iter_mut();
        for (uid, load) in uids.iter().zip(loads) {
            clients.by_ref().take(load).for_each(|c| c.pod = Some(*uid));
        }
        w.template = 2;
        w.settle(4000);
        let moves: usize = w.clients.iter().map(|c| c.moves as usize).sum();
        assert!(w.peak <= 150, "{loads:?}: a pod had {}", w.peak);
        assert!(moves <= 300 + 50, "{loads:?}: {moves} moves of 300 clients");
    }
}

#[test]
fn rollouts_and_scale_downs_each_drain_as_many_at_a_time_as_their_own_limit_says() {
    let most = |surge: i32, concurrent: i32, change: fn(&mut World)| {
        let mut w = settled(6, 4);
        w.spec.update_strategy.rolling_update.max_surge = surge;
        w.spec.scale_down.max_concurrent_drains = concurrent;
        change(&mut w);
        let mut most = 0;
        until(&mut w, "its end", |w| {
            most = most.max(draining(w).len());
            w.converged()
        });
        most
    };
    assert_eq!(most(1, 3, |w| w.template = 2), 1);
    assert_eq!(most(3, 1, |w| w.template = 2), 3);
    assert_eq!(most(1, 3, |w| w.spec.replicas = 2), 3);
    assert_eq!(most(3, 1, |w| w.spec.replicas = 2), 1);
}
