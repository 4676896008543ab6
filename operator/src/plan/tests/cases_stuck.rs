//! Pods that can't serve for a reason that no template mends: no room for them, or something beside
//! their node that keeps them from being Ready. A rollout must not wait for them for ever.

use super::{
    cases::{pod, settled},
    sim::World,
};
use crate::model::StuckReason;

/// Seconds in which there is room for `most` pods: those above wait for a place.
fn with_room_for(most: usize, w: &mut World, seconds: usize) {
    for _ in 0..seconds {
        w.controller();
        let now = w.now;
        for (at, p) in w.pods.values_mut().enumerate() {
            p.stuck = (at >= most).then_some(StuckReason::Unschedulable);
            if p.stuck.is_some() {
                p.ready_at = now + 5;
            }
        }
        w.reconcile(usize::MAX);
        w.tick();
    }
}

#[test]
fn old_pods_that_go_while_the_new_revision_can_not_start_come_back_as_they_were() {
    for surge in [0, 1] {
        let mut w = settled(3, 10);
        w.calm = false;
        w.spec.update_strategy.rolling_update.max_surge = surge;
        w.bad = [2].into();
        w.template = 2;
        (0..60).for_each(|_| w.step());
        let old: Vec<i32> =
            w.pods.iter().filter(|(_, p)| p.template == 1).map(|(o, _)| *o).collect();
        assert_eq!(old.len() as i32, 2 + surge, "{}", w.brief());
        for o in &old {
            w.kill(*o);
            (0..60).for_each(|_| w.step());
            let serves = |o: &i32| {
                let p = w.pods.get(o);
                p.is_some_and(|p| p.template == 1 && p.ready_since.is_some())
            };
            assert!(old.iter().all(serves), "surge {surge}, chat-{o} deleted: {}", w.brief());
        }
        w.template = 3;
        w.settle(500);
    }
}

#[test]
fn a_surge_pod_without_a_place_goes_once_the_rollout_is_to_be_in_place() {
    for (n, surge, unavailable) in
        [(1, 1, 1), (2, 1, 1), (3, 1, 1), (3, 2, 1), (3, 1, 3), (5, 1, 2)]
    {
        let mut w = settled(n, 10);
        w.calm = false;
        w.spec.update_strategy.rolling_update.max_surge = surge;
        w.template = 2;
        let room = n as usize;
        with_room_for(room, &mut w, 50);
        assert!(w.pods.values().any(|p| p.template == 1), "there is no room to go on");
        w.spec.update_strategy.rolling_update.max_surge = 0;
        w.spec.update_strategy.rolling_update.max_unavailable = unavailable;
        with_room_for(room, &mut w, 600);
        assert!(w.converged(), "{n} pods, surge {surge}, unavailable {unavailable}: {}", w.brief());
    }
}

#[test]
fn a_surge_pod_that_a_quota_forbids_is_given_up_once_the_rollout_is_to_be_in_place() {
    for (n, surge, unavailable) in [(1, 1, 1), (2, 1, 1), (3, 2, 1), (3, 1, 3), (5, 1, 2)] {
        let mut w = settled(n, 10);
        w.calm = false;
        w.spec.update_strategy.rolling_update.max_surge = surge;
        w.quota = Some(n as usize);
        w.template = 2;
        (0..50).for_each(|_| w.step());
        assert!(w.pods.values().all(|p| p.template == 1), "nothing goes: {}", w.brief());
        w.spec.update_strategy.rolling_update.max_surge = 0;
        w.spec.update_strategy.rolling_update.max_unavailable = unavailable;
        (0..600).for_each(|_| w.step());
        assert!(w.converged(), "{n} pods, surge {surge}, unavailable {unavailable}: {}", w.brief());
    }
}

#[test]
fn a_pod_whose_node_serves_but_that_is_never_ready_holds_up_no_rollout_wherever_it_stands() {
    for surge in [0, 1] {
        for ordinal in 0..3 {
            let mut w = settled(3, 10);
            w.calm = false;
            w.spec.update_strategy.rolling_update.max_surge = surge;
            w.template = 2;
            let long_ago = w.now - 100;
            pod(&mut w, ordinal).gated_since = Some(long_ago);
            (0..600).for_each(|_| w.step());
            assert!(w.converged(), "chat-{ordinal}, surge {surge}: {}", w.brief());
            assert!(w.clients.iter().all(|c| c.pod.is_some()));
        }
    }
}

#[test]
fn who_is_not_ready_is_named_when_too_few_are() {
    let mut w = settled(3, 10);
    w.calm = false;
    w.template = 2;
    // Only just: it may be back at once.
    let now = w.now;
    pod(&mut w, 1).gated_since = Some(now);
    (0..20).for_each(|_| w.step());
    let said = w.plan().waiting;
    let named = "too few pods are ready to drain chat-0: chat-1 is not";
    assert!(said.iter().any(|w| w.message == named), "{said:?}");
}
