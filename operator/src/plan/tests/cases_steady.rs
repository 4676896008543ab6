//! The table of edge cases, the rest: Redis, stuck pods, in place, canary, steering.

use sluice_crds::{Adapter, ExternalTrafficPolicy, OperatorUpgradePolicy, Reason};

use super::{
    cases::{draining, pod, settled, uids, until},
    sim::{SimPod, World},
    spec,
};
use crate::{
    model::{Action, Observed, PodState, TemplateStep},
    plan::{create, plan},
};

#[test]
fn redis_down_takes_nobody_out_and_rolls_nothing() {
    let mut w = settled(3, 4);
    w.spec.pubsub.adapter = Adapter::Redis;
    let mut o = w.observe();
    for p in &mut o.pods {
        if let Some(n) = &mut p.node {
            n.redis_connected = Some(false);
        }
    }
    let p = plan(&w.desired(), &o, w.timestamp());
    assert!(p.actions.is_empty() && p.cursor == crate::plan::at(o.statefulset.as_ref().unwrap()));
}

#[test]
fn stuck_old_pods_go_without_drain_and_without_budget() {
    for at in 0..3 {
        let mut w = settled(3, 10);
        w.template = 2;
        w.step();
        let mut o = w.observe();
        // The freeze has been applied; the controller tells of the new revision.
        w.controller();
        o.statefulset = w.observe().statefulset;
        o.pods[at].ready = false;
        o.pods[at].ready_since = None;
        o.pods[at].running = false;
        o.pods[at].stuck = Some(crate::model::StuckReason::CrashLoopBackOff);
        let p = plan(&w.desired(), &o, w.timestamp());
        let drains = p
            .actions
            .iter()
            .any(|a| matches!(a, Action::Commit { pod, .. } if pod.ordinal() == at));
        assert!(!drains, "{p:?}");
        match at {
            0 => assert_eq!(p.cursor.ordinals_start, 1),
            2 => assert_eq!(p.cursor.partition, 2),
            _ => assert_eq!((p.cursor.ordinals_start, p.cursor.partition), (0, 3)),
        }
    }
}

impl crate::model::PodRef {
    fn ordinal(&self) -> usize {
        self.name.rsplit('-').next().and_then(|o| o.parse().ok()).unwrap_or(usize::MAX)
    }
}

#[test]
fn max_surge_zero_rolls_in_place_from_the_top() {
    for n in [2, 3, 5] {
        let mut w = settled(n, 20);
        w.spec.update_strategy.rolling_update.max_surge = 0;
        w.template = 2;
        let mut order: Vec<i32> = Vec::new();
        until(&mut w, "it is rolled", |w| {
            assert!(w.pods.len() as i32 <= n);
            for o in draining(w) {
                if order.last() != Some(&o) {
                    order.push(o);
                }
            }
            w.converged()
        });
        assert_eq!(order, (0..n).rev().collect::<Vec<_>>());
        let moves: u32 = w.clients.iter().map(|c| c.moves).sum();
        let per_client = f64::from(moves) / w.clients.len() as f64;
        println!("n {n}: {per_client:.2} moves a client, in place");
        assert!(per_client <= 1.0 + 1.0 / f64::from(n) + 0.15, "n {n}: {per_client}");
    }
}

#[test]
fn a_canary_stands_at_the_partition_and_goes_on_when_it_is_lowered() {
    let mut w = settled(3, 10);
    w.spec.update_strategy.rolling_update.partition = 2;
    w.template = 2;
    w.settle(500);
    let old = |w: &World| w.pods.values().filter(|p| p.template == 1).count();
    assert_eq!(old(&w), 2);
    assert!(w.pods.values().all(|p| p.accepting), "all take clients while it stands");
    w.spec.replicas = 5;
    w.settle(500);
    assert_eq!(old(&w), 2, "new pods come at the new revision");
    w.spec.update_strategy.rolling_update.partition = 0;
    w.settle(500);
}

/// The pods' templates, from the lowest ordinal up.
fn templates(w: &World) -> Vec<u32> {
    w.pods.values().map(|p| p.template).collect()
}

/// A canary at template 2 stands, in place and with a surge; then this template is wanted. The pods
/// before it stay.
fn after_a_canary(wanted: u32, expected: [u32; 3]) {
    for surge in [0, 1] {
        let mut w = settled(3, 4);
        let rolling = &mut w.spec.update_strategy.rolling_update;
        (rolling.partition, rolling.max_surge, rolling.max_unavailable) = (2, surge, 1 - surge);
        w.template = 2;
        w.settle(300);
        assert_eq!(templates(&w), [1, 1, 2]);
        let kept: Vec<u32> = w.pods.values().filter(|p| p.template == 1).map(|p| p.uid).collect();
        w.template = wanted;
        w.settle(300);
        assert_eq!(templates(&w), expected);
        assert!(kept.iter().all(|uid| uids(&w).contains(uid)), "surge {surge}: {}", w.brief());
    }
}

#[test]
fn a_canary_that_is_rolled_back_goes_and_the_pods_before_it_stay() {
    after_a_canary(1, [1, 1, 1]);
}

#[test]
fn another_canary_takes_the_place_of_the_one_that_stands() {
    after_a_canary(3, [1, 1, 3]);
}

#[test]
fn a_canary_of_a_rollout_that_is_not_quite_over_keeps_pods_of_that_one() {
    let mut w = settled(3, 4);
    w.template = 2;
    until(&mut w, "the last pod is there, and not ready", |w| {
        let last = w.pods.values().filter(|p| p.template == 2).count() == 3;
        last && w.pods.values().any(|p| p.ready_since.is_none())
    });
    w.template = 3;
    w.spec.update_strategy.rolling_update.partition = 2;
    w.settle(500);
    let at = |template| w.pods.values().filter(|p| p.template == template).count();
    assert_eq!(at(3), 1, "{:?}", templates(&w));
}

#[test]
fn a_canary_gives_up_a_pod_that_cannot_start_before_one_that_serves() {
    let mut w = settled(3, 10);
    w.bad = [4].into();
    w.spec.update_strategy.rolling_update.partition = 2;
    w.template = 4;
    until(&mut w, "the new pod is there, and can't start", |w| w.pods.len() == 4);
    (0..30).for_each(|_| w.step());
    assert!(w.pods.values().any(|p| p.template == 4), "nobody leaves for it");
    w.template = 3;
    w.settle(500);
    let at = |template| w.pods.values().filter(|p| p.template == template).count();
    assert_eq!((at(1), at(3), at(4)), (2, 1, 0));
}

#[test]
fn a_partition_holds_back_pods_that_are_yet_to_come() {
    let mut w = settled(2, 4);
    w.spec.update_strategy.rolling_update.partition = 5;
    w.template = 2;
    w.settle(300);
    w.spec.replicas = 4;
    w.settle(300);
    assert_eq!(templates(&w), [1, 1, 1, 1]);
    w.spec.update_strategy.rolling_update.partition = 0;
    w.settle(500);
    assert_eq!(templates(&w), [2, 2, 2, 2]);
}

#[test]
fn a_canary_outlives_a_scale_down_to_one_pod_but_not_to_none() {
    let mut w = settled(3, 4);
    w.spec.update_strategy.rolling_update.partition = 2;
    w.template = 2;
    w.settle(300);
    for (fewest, then) in [(1, [1, 1, 2]), (0, [2, 2, 2])] {
        w.spec.replicas = fewest;
        w.settle(300);
        w.spec.replicas = 3;
        w.settle(300);
        // With no pod left to be old, the StatefulSet's controller takes its rollout for done, and
        // forgets the revision before.
        assert_eq!(templates(&w), then, "from {fewest} pods");
    }
}

#[test]
fn pods_that_serve_while_another_container_of_theirs_can_not_start_keep_their_clients() {
    let mut w = settled(3, 30);
    w.spread_evenly();
    w.template = 2;
    w.step();
    w.controller();
    let mut o = w.observe();
    for pod in &mut o.pods {
        (pod.ready, pod.ready_since) = (false, None);
        pod.stuck = Some(crate::model::StuckReason::CrashLoopBackOff);
    }
    let p = plan(&w.desired(), &o, w.timestamp());
    let sts = o.statefulset.as_ref().unwrap();
    assert_eq!(p.cursor.ordinals_start, sts.ordinals_start);
    assert!(p.cursor.partition >= 3 && p.cursor.replicas > 3, "{:?}", p.cursor);
    let drains = p.actions.iter().filter(|a| matches!(a, Action::Commit { .. }));
    assert_eq!(drains.count(), 0, "nobody could take their clients");
}

#[test]
fn an_operator_upgrade_rolls_nothing_unless_told_to() {
    let mut w = settled(3, 4);
    let o = w.observe();
    let mut d = w.desired();
    d.template_hash = "as another operator renders it".into();
    let p = plan(&d, &o, w.timestamp());
    assert_eq!(p.cursor.template, TemplateStep::Keep);
    assert!(crate::plan::requires_update(&d, o.statefulset.as_ref().unwrap()));
    w.spec.update_strategy.operator_upgrade_policy = OperatorUpgradePolicy::Automatic;
    let mut d = w.desired();
    d.template_hash = "as another operator renders it".into();
    let p = plan(&d, &o, w.timestamp());
    assert_eq!((p.cursor.template, p.cursor.partition), (TemplateStep::Apply, 3));
}

#[test]
fn a_template_whose_record_is_lost_is_applied_anew_unless_it_is_in_force() {
    let mut w = settled(3, 4);
    let mut o = w.observe();
    o.statefulset.as_mut().unwrap().template_lost = true;
    let now = w.timestamp();
    assert_eq!(plan(&w.desired(), &o, now).cursor.template, TemplateStep::Keep);
    let otherwise = |w: &World| {
        let mut d = w.desired();
        d.template_hash = "as another operator renders it".into();
        plan(&d, &o, now).cursor
    };
    let cursor = otherwise(&w);
    assert_eq!((cursor.template, cursor.partition), (TemplateStep::Apply, 3), "no pod goes for it");
    w.spec.paused = true;
    assert_eq!(otherwise(&w).template, TemplateStep::Keep);
}

#[test]
fn an_operator_upgrade_mends_a_cluster_of_which_no_pod_can_start() {
    let mut w = World::new(spec(3), 0);
    w.bad = [1].into();
    for _ in 0..30 {
        w.step();
    }
    let mut o = w.observe();
    assert!(o.pods.iter().all(|p| p.stuck.is_some() && !p.running), "{o:?}");
    let mut d = w.desired();
    d.template_hash = "with another default image".into();
    let now = w.timestamp();
    assert_eq!(plan(&d, &o, now).cursor.template, TemplateStep::Apply);
    // One that serves clients is not to be disturbed.
    o.pods[0].stuck = None;
    o.pods[0].running = true;
    assert_eq!(plan(&d, &o, now).cursor.template, TemplateStep::Keep);
}

#[test]
fn a_lost_kubernetes_node_counts_as_unavailable_and_nothing_is_deleted_for_it() {
    let mut w = settled(3, 4);
    w.calm = false;
    pod(&mut w, 1).node_down_until = w.now + 50;
    let there = uids(&w);
    for _ in 0..40 {
        w.step();
    }
    assert_eq!(uids(&w), there);
    assert_eq!(w.plan().waiting[0].reason, Reason::NodeUnreachable);
    w.settle(100);
}

#[test]
fn a_new_pod_that_is_not_linked_takes_no_clients() {
    let mut w = settled(3, 10);
    w.template = 2;
    until(&mut w, "the new pod is ready", |w| {
        w.pods.get(&3).is_some_and(|p| p.ready_since.is_some_and(|t| w.now > t + 1))
    });
    let mut o = w.observe();
    for p in &mut o.pods {
        p.drain = None;
        p.accepting = p.ordinal != 3;
        if let (3, Some(n)) = (p.ordinal, &mut p.node) {
            n.peers[0].inbound = false;
            n.drain = Default::default();
        }
    }
    let p = plan(&w.desired(), &o, w.timestamp());
    let on = |a: &Action| matches!(a, Action::SetAccepting { pods, .. } if pods.iter().any(|(r, on)| r.name == "chat-3" && *on));
    assert!(!p.actions.iter().any(|a| on(a) || matches!(a, Action::Commit { .. })), "{p:?}");
    assert!(p.waiting.iter().any(|x| x.reason == Reason::WaitingForLinks), "{p:?}");
}

#[test]
fn a_node_that_is_silent_for_a_moment_keeps_its_label() {
    let mut w = settled(3, 4);
    pod(&mut w, 1).silent_until = w.now + 3;
    assert!(w.plan().actions.is_empty());
}

#[test]
fn scaled_down_no_client_is_moved_twice() {
    let mut w = settled(5, 20);
    w.spec.replicas = 2;
    w.settle(500);
    assert!(w.clients.iter().all(|c| c.moves <= 1));
}

#[test]
fn clients_that_all_sat_on_one_pod_do_not_all_move_to_the_one_new_pod() {
    let mut w = settled(3, 20);
    let first = w.pods[&0].uid;
    for c in &mut w.clients {
        c.pod = Some(first);
    }
    w.peak = 0;
    w.template = 2;
    until(&mut w, "the first has drained", |w| w.load(first) == 0);
    let most = w.pods.values().map(|p| w.load(p.uid)).max().unwrap_or_default();
    assert!(most as f64 <= 20.0 * 1.3, "{most}: {}", w.brief());
    w.settle(1000);
}

#[test]
fn before_the_links_are_up_one_pod_takes_clients_and_that_is_no_rest() {
    let w = settled(3, 0);
    let mut o = w.observe();
    for p in &mut o.pods {
        p.accepting = false;
        p.node.as_mut().expect("every node answers").peers.clear();
    }
    let first = plan(&w.desired(), &o, w.timestamp());
    let Some(Action::SetAccepting { pods, .. }) = first.actions.first() else {
        panic!("nobody is let take clients: {first:?}")
    };
    assert_eq!(pods.len(), 1, "two that are not linked would not hear each other's clients");
    assert!(first.waiting.iter().any(|w| w.reason == Reason::WaitingForLinks), "{first:?}");

    // Also once they take clients: a cluster whose nodes are cut off from each other is not Ready.
    o.pods.iter_mut().for_each(|p| p.accepting = true);
    let then = plan(&w.desired(), &o, w.timestamp());
    assert!(then.waiting.iter().any(|w| w.reason == Reason::WaitingForLinks), "{then:?}");
}

#[test]
fn a_statefulset_made_anew_takes_over_the_pods_that_the_last_one_left() {
    let pod = |(ordinal, terminating): (i32, bool)| PodState {
        ordinal,
        terminating,
        ..PodState::default()
    };
    for (pods, start, replicas) in [
        (vec![], 0, 3),
        (vec![(5, false), (6, false), (7, false)], 5, 3),
        // In the middle of a rollout, with its surge.
        (vec![(5, true), (6, false), (7, false), (8, false), (9, false)], 6, 4),
        // One was lost meanwhile: it comes back in its place, or at the top.
        (vec![(5, false), (7, false)], 5, 3),
        (vec![(6, false), (7, false)], 6, 3),
        // All go: their names are not waited for.
        (vec![(5, true), (7, true)], 8, 3),
        // One far off does not make dozens in between.
        (vec![(0, false), (90, false)], 84, 7),
    ] {
        let observed =
            Observed { pods: pods.iter().copied().map(pod).collect(), ..Observed::default() };
        let cursor = create(&spec(3), &observed).cursor;
        assert_eq!(
            (cursor.ordinals_start, cursor.replicas, cursor.partition),
            (start, replicas, replicas),
            "{pods:?}"
        );
    }
}

#[test]
fn with_local_traffic_each_kubernetes_node_has_a_pod_that_takes_clients_as_long_as_it_can() {
    let mut w = settled(3, 20);
    w.kubernetes_nodes = 3;
    w.spec.service.external_traffic_policy = Some(ExternalTrafficPolicy::Local);
    w.template = 2;
    let mut steps = 0;
    while !(steps > 0 && w.converged()) {
        w.step();
        steps += 1;
        assert!(steps < 500, "{}", w.brief());
        let set = w.set.clone().expect("it is there");
        let here =
            |o: i32, node: i32| o % 3 == node && (set.start..set.start + set.replicas).contains(&o);
        for node in 0..3 {
            let mut pods = w.pods.iter().filter(|(o, _)| here(**o, node)).map(|(_, p)| p);
            let stays = |p: &SimPod| p.template == 1 && p.annotations.is_none() && !p.terminating;
            if pods.clone().any(stays) {
                assert!(pods.any(|p| p.accepting), "nobody on node-{node}: {}", w.brief());
            }
        }
    }
}
