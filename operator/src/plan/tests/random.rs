//! Random histories: the spec changes, pods die, nodes fall silent, the operator is killed between
//! any two steps. The promises hold throughout, and once the faults stop everything settles.

use proptest::prelude::*;

use super::{sim::World, spec};

/// What happens between two looks.
#[derive(Clone, Debug)]
enum Event {
    Steps(u8),
    Template(u32),
    Replicas(i32),
    Pause(bool),
    Surge(i32),
    Unavailable(i32),
    Partition(i32),
    Concurrent(i32),
    Hold(bool),
    Kill(u8),
    Crash(u8),
    /// Its Kubernetes node is drained.
    Evict(u8),
    Uncordon(u8),
    /// Whoever drains it has enough, and leaves it cordoned.
    GiveUp(u8),
    Silent(u8, u8),
    NodeDown(u8, u8),
    /// The operator dies after so many steps of its plan.
    DieAfter(u8),
    /// The operator is away; everything else goes on.
    Absent(u16),
    /// The StatefulSet controller is away, the operator is not.
    SlowController(u8),
    /// Redis comes or goes.
    Redis(bool),
    /// A node does not reach it.
    CutOff(u8),
}

fn calm_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1u8..40).prop_map(Event::Steps),
        4 => (1u32..4).prop_map(Event::Template),
        4 => (0i32..7).prop_map(Event::Replicas),
        1 => any::<bool>().prop_map(Event::Pause),
        1 => (0i32..4).prop_map(Event::Surge),
        1 => (0i32..3).prop_map(Event::Unavailable),
        1 => (0i32..4).prop_map(Event::Partition),
        1 => (1i32..4).prop_map(Event::Concurrent),
        2 => any::<u8>().prop_map(Event::Evict),
        1 => any::<u8>().prop_map(Event::Uncordon),
        1 => any::<u8>().prop_map(Event::GiveUp),
        3 => (0u8..6).prop_map(Event::DieAfter),
        2 => (1u16..20).prop_map(Event::Absent),
        2 => (1u8..5).prop_map(Event::SlowController),
        1 => any::<bool>().prop_map(Event::Redis),
    ]
}

fn fault() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => calm_event(),
        1 => any::<u8>().prop_map(Event::Kill),
        1 => any::<u8>().prop_map(Event::Crash),
        1 => (any::<u8>(), 1u8..60).prop_map(|(p, t)| Event::Silent(p, t)),
        1 => (any::<u8>(), 1u8..60).prop_map(|(p, t)| Event::NodeDown(p, t)),
        1 => any::<u8>().prop_map(Event::CutOff),
        1 => (4u32..6).prop_map(Event::Template),
        1 => any::<bool>().prop_map(Event::Hold),
        1 => (100u16..400).prop_map(Event::Absent),
    ]
}

fn happen(w: &mut World, e: &Event) {
    let nth = |w: &World, i: u8| {
        let n = w.pods.len().max(1);
        w.pods.keys().copied().nth(usize::from(i) % n)
    };
    let rolling = &mut w.spec.update_strategy.rolling_update;
    match *e {
        Event::Steps(n) => (0..n).for_each(|_| w.step()),
        Event::Template(t) => w.template = t,
        Event::Replicas(n) => w.spec.replicas = n,
        Event::Pause(p) => w.spec.paused = p,
        Event::Surge(n) => {
            rolling.max_surge = n;
            rolling.max_unavailable = rolling.max_unavailable.max(i32::from(n == 0));
        }
        Event::Unavailable(n) => {
            rolling.max_unavailable = n;
            rolling.max_surge = rolling.max_surge.max(i32::from(n == 0));
        }
        Event::Partition(n) => rolling.partition = n,
        Event::Concurrent(n) => w.spec.scale_down.max_concurrent_drains = n,
        Event::Hold(h) => {
            w.spec.drain.timeout_policy = match h {
                true => sluice_crds::TimeoutPolicy::Hold,
                false => sluice_crds::TimeoutPolicy::Terminate,
            };
        }
        Event::Kill(i) => {
            w.calm = false;
            if let Some(o) = nth(w, i) {
                w.kill(o);
            }
        }
        Event::Crash(i) | Event::Silent(i, _) | Event::NodeDown(i, _) => {
            w.calm = false;
            let (now, at) = (w.now, nth(w, i));
            if let Some(p) = at.and_then(|o| w.pods.get_mut(&o)) {
                match *e {
                    Event::Silent(_, t) => p.silent_until = now + i64::from(t),
                    Event::NodeDown(_, t) => p.node_down_until = now + i64::from(t),
                    _ => p.down_until = now + 3,
                }
            }
        }
        Event::Evict(i) | Event::Uncordon(i) | Event::GiveUp(i) => {
            if let Some(p) = nth(w, i).and_then(|o| w.pods.get_mut(&o)) {
                p.unwanted = matches!(e, Event::Evict(_));
                p.cordoned = p.unwanted || (p.cordoned && matches!(e, Event::GiveUp(_)));
            }
        }
        Event::Redis(there) => {
            w.redis = w.redis.map(|_| there);
            w.cut_off.clear();
        }
        Event::CutOff(i) => {
            w.calm = false;
            w.cut_off.extend(nth(w, i));
        }
        Event::DieAfter(k) => {
            w.controller();
            w.reconcile(usize::from(k));
            w.tick();
        }
        Event::Absent(n) => {
            for _ in 0..n {
                w.controller();
                w.tick();
            }
        }
        Event::SlowController(n) => {
            for _ in 0..n {
                w.reconcile(usize::MAX);
                w.tick();
            }
        }
    }
}

fn run(seed: u64, clients: usize, replicas: i32, events: &[Event]) -> World {
    let mut w = World::new(spec(replicas), clients);
    w.seed(seed);
    if seed.is_multiple_of(2) {
        w.spec.rebalance.mode = sluice_crds::RebalanceMode::Auto;
    }
    if seed.is_multiple_of(3) {
        w.redis = Some(true);
    }
    // Templates whose pods never start.
    w.bad = [4, 5].into();
    w.settle(100);
    for e in events {
        happen(&mut w, e);
    }
    // Redis stays as it is: all settles without it, too.
    w.cut_off.clear();
    w.spec.paused = false;
    w.spec.drain.timeout_policy = sluice_crds::TimeoutPolicy::Terminate;
    if w.bad.contains(&w.template) {
        w.template = 3;
    }
    let current = w.set.as_ref().map(|set| set.current);
    if !w.calm || current.is_some_and(|current| w.bad.contains(&current)) {
        // A canary whose pods a fault took, or that keeps pods of a revision that never started: only a
        // person may end that.
        w.spec.update_strategy.rolling_update.partition = 0;
    }
    w.settle(6000);
    w
}

/// As many as `PROPTEST_CASES` says, or enough to be worth while.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

#[test]
fn a_drain_that_a_surge_has_overtaken_gives_up_its_place() {
    use Event::{DieAfter, Partition, Replicas, Steps, Template};
    let first = [Template(3), Steps(7), Replicas(5), Template(2), Steps(19)];
    let then = [Template(1), Steps(32), Replicas(1), Partition(1), DieAfter(2)];
    run(706, 15, 1, &[first, then].concat());
}

#[test]
fn a_canary_does_not_keep_a_pod_of_an_ended_rollout_that_can_not_start() {
    use Event::{Evict, Partition, Steps, Template};
    let w = run(1, 0, 1, &[Evict(0), Template(4), Steps(6), Partition(1)]);
    assert!(w.pods.values().all(|p| p.template != 4), "{}", w.brief());
}

#[test]
fn two_evicted_pods_that_serve_nobody_are_told_of_in_one_plan() {
    use Event::{Crash, Evict, Replicas, Steps, Template};
    let begun = [Template(2), Replicas(6), Steps(3), Template(1), Steps(3), Crash(164)];
    run(1, 11, 0, &[&begun[..], &[Template(2), Replicas(4), Evict(66)]].concat());
}

#[test]
fn an_eviction_that_the_budget_denies_for_a_pod_that_can_not_start_keeps_no_rollout_waiting() {
    use Event::{Evict, Replicas, Steps, Template};
    run(1, 0, 3, &[Evict(1), Template(4), Replicas(6), Steps(3), Evict(96)]);
}

#[test]
fn a_node_that_is_the_last_to_take_clients_begins_no_drain_more() {
    use Event::{Concurrent, Crash, CutOff, NodeDown, Replicas, Steps};
    let begun = [CutOff(131), NodeDown(147, 17), Replicas(3), Steps(17)];
    run(90, 2, 5, &[&begun[..], &[Concurrent(3), Replicas(1), Crash(92), Steps(1)]].concat());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_and_restarts_keep_the_promises(
        seed in 1u64..1000, clients in 0usize..60, n in 0i32..6,
        events in prop::collection::vec(calm_event(), 0..25),
    ) {
        run(seed, clients, n, &events);
    }

    #[test]
    fn faults_keep_the_promises(
        seed in 1u64..1000, clients in 0usize..60, n in 0i32..6,
        events in prop::collection::vec(fault(), 0..25),
    ) {
        run(seed, clients, n, &events);
    }
}
