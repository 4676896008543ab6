//! The report at each stage of a cluster's life, and the story that its events tell.

mod leftover;
mod told;
mod trouble;

use jiff::Timestamp;
use sluice_crds::{ConditionType, DrainReportPhase, Reason};

use self::told::{Told, condition, is, tell};
use super::{EventReason, find};
use crate::plan::tests::{sim::World, spec};

#[test]
fn a_settled_cluster_is_ready() {
    let t = Told::new(3, 60);
    let message = is(t.condition(ConditionType::Ready), "True", Reason::AllReplicasUpdated);
    assert_eq!(message, "3 of 3 pods are ready");
    is(t.condition(ConditionType::Stalled), "False", Reason::AsExpected);
    is(t.condition(ConditionType::Available), "True", Reason::AsExpected);
    is(t.condition(ConditionType::Progressing), "False", Reason::AllReplicasUpdated);
    is(t.condition(ConditionType::Draining), "False", Reason::AsExpected);
    is(t.condition(ConditionType::Paused), "False", Reason::AsExpected);
    is(t.condition(ConditionType::RequiresUpdate), "False", Reason::AsExpected);
    is(t.condition(ConditionType::ClusterFormed), "True", Reason::AsExpected);
    let s = t.status.unwrap();
    assert_eq!(
        (s.replicas, s.ready_replicas, s.available_replicas, s.updated_replicas),
        (3, 3, 3, 3)
    );
    assert_eq!((s.connections, s.observed_generation, s.rollout), (60, Some(1), None));
    assert_eq!(s.selector, "sluice.dev/cluster=chat,app.kubernetes.io/component=node");
    assert!(find(&s.conditions, ConditionType::RedisReady).is_none());
}

#[test]
fn before_anything_is_there_nothing_is_ready() {
    let w = World::new(spec(3), 0);
    let s = tell(&w, &w.desired(), &w.observe(), None).status;
    is(condition(&s, ConditionType::Ready), "False", Reason::ScalingUp);
    is(condition(&s, ConditionType::Available), "False", Reason::WaitingForPodReady);
    is(condition(&s, ConditionType::Progressing), "True", Reason::ScalingUp);
}

#[test]
fn a_rollout_reads_as_a_story() {
    let mut t = Told::new(3, 60);
    t.w.template = 2;
    t.look();
    assert_ne!(t.condition(ConditionType::Ready).0, "True", "it must not look done at any moment");
    t.until(|_, s| s.drains.iter().any(|d| d.phase == DrainReportPhase::Closing));
    let message = is(t.condition(ConditionType::Ready), "False", Reason::WaitingForDrain);
    assert!(message.contains("1 of 3 pods at revision r2, draining chat-0: "), "{message}");
    is(t.condition(ConditionType::Draining), "True", Reason::WaitingForDrain);
    is(t.condition(ConditionType::Progressing), "True", Reason::RolloutInProgress);
    is(t.condition(ConditionType::Available), "True", Reason::AsExpected);
    let s = t.status.clone().unwrap();
    let rollout = s.rollout.unwrap();
    assert_eq!(
        (rollout.target_revision.as_str(), rollout.current_pod.as_deref()),
        ("r2", Some("chat-0"))
    );
    assert_eq!((s.draining_replicas, s.drains[0].pod_name.as_str()), (1, "chat-0"));
    assert_eq!(s.draining_connections, s.drains[0].remaining_connections);
    let mut moved = rollout.moved_connections;
    assert_eq!(moved, 20 - s.drains[0].remaining_connections);
    t.until(|w, s| {
        let told = s.rollout.as_ref().map_or(moved, |r| r.moved_connections);
        assert!(told >= moved, "{told} after {moved}");
        moved = told;
        w.converged()
    });
    assert_eq!(moved, 60);
    is(t.condition(ConditionType::Ready), "True", Reason::AllReplicasUpdated);
    use EventReason::*;
    assert_eq!(
        t.reasons(),
        [
            RolloutStarted,
            DrainStarted,
            DrainCompleted,
            DrainStarted,
            DrainCompleted,
            DrainStarted,
            DrainCompleted,
            RolloutCompleted
        ]
    );
    let text: Vec<&str> = t.events.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(text[1], "Draining chat-0 with 20 connections: another revision takes its place");
    assert_eq!(text[2], "chat-0 has drained, 20 connections moved");
    assert_eq!(text[7], "3 pods at revision r2");
    assert!(t.events.iter().all(|e| !e.reason.is_warning()));
    assert_eq!(t.events[1].pod.as_ref().unwrap().0, "chat-0");
}

#[test]
fn ready_stays_false_throughout_a_rollout() {
    let mut t = Told::new(3, 12);
    t.w.template = 2;
    t.until(|w, s| {
        let ready = condition(s, ConditionType::Ready).0 == "True";
        let new = w.pods.values().filter(|p| p.template == 2 && p.ready_since.is_some()).count();
        assert!(!ready || new == 3, "Ready with {new} new pods {}", w.brief());
        w.converged()
    });
}

#[test]
fn another_spec_mid_rollout_supersedes_it() {
    let mut t = Told::new(3, 12);
    t.w.template = 2;
    t.until(|_, s| s.draining_replicas == 1);
    t.w.template = 3;
    t.until(|w, _| w.converged());
    let r = t.reasons();
    assert!(r.contains(&EventReason::RolloutSuperseded), "{r:?}");
    assert_eq!(r.iter().filter(|r| **r == EventReason::RolloutStarted).count(), 1);
    assert_eq!(r.iter().filter(|r| **r == EventReason::RolloutCompleted).count(), 1);
}

#[test]
fn a_rollout_that_is_given_up_is_not_told_as_done() {
    let mut t = Told::new(2, 8);
    t.w.bad = [2].into();
    t.w.template = 2;
    t.until(|w, _| w.pods.values().any(|p| p.template == 2));
    t.w.template = 1;
    t.until(|w, _| w.converged());
    let r = t.reasons();
    use EventReason::*;
    assert_eq!(r.first(), Some(&RolloutStarted), "{r:?}");
    let back: Vec<_> = t.events.iter().filter(|e| e.reason == RolloutSuperseded).collect();
    assert_eq!(back.len(), 1, "{r:?}");
    assert_eq!(back[0].message, "Rolling to revision r1 instead of r2");
    let done = t.events.iter().filter(|e| e.reason == RolloutCompleted);
    assert!(done.map(|e| &e.message).eq(["2 pods at revision r1"]), "{:?}", t.events);
    assert!(!r.contains(&ScaleDownStarted), "{:?}", t.events);
}

#[test]
fn scaled_down_and_back_up_the_drain_is_cancelled() {
    let mut t = Told::new(4, 40);
    t.w.spec.replicas = 3;
    t.until(|_, s| s.draining_replicas == 1);
    is(t.condition(ConditionType::Progressing), "True", Reason::ScalingDown);
    t.w.spec.replicas = 4;
    t.until(|w, _| w.converged());
    use EventReason::*;
    assert_eq!(t.reasons(), [ScaleDownStarted, DrainStarted, DrainCancelled]);
    is(t.condition(ConditionType::Ready), "True", Reason::AllReplicasUpdated);
}

#[test]
fn a_drain_whose_annotations_are_lost_and_that_goes_on_is_not_told_as_undone() {
    let mut t = Told::new(3, 60);
    t.w.calm = false;
    t.w.template = 2;
    t.until(|_, s| s.drains.iter().any(|d| d.phase == DrainReportPhase::Closing));
    // By hand. The operator commits to it anew.
    t.w.pods.get_mut(&0).unwrap().annotations = None;
    t.until(|w, _| w.converged());
    assert!(!t.reasons().contains(&EventReason::DrainCancelled), "{:#?}", t.events);
}

#[test]
fn paused_and_resumed() {
    let mut t = Told::new(3, 60);
    t.w.template = 2;
    t.until(|_, s| s.draining_replicas == 1);
    t.w.spec.paused = true;
    t.steps(10);
    let message = is(t.condition(ConditionType::Ready), "False", Reason::RolloutPaused);
    assert!(message.starts_with("paused: 1 of 3 pods at revision r2"), "{message}");
    is(t.condition(ConditionType::Paused), "True", Reason::RolloutPaused);
    is(t.condition(ConditionType::Progressing), "False", Reason::RolloutPaused);
    t.w.spec.paused = false;
    t.until(|w, _| w.converged());
    let r = t.reasons();
    use EventReason::*;
    assert_eq!(r[..5], [RolloutStarted, DrainStarted, Paused, DrainCancelled, Resumed], "{r:?}");
}

#[test]
fn paused_with_nothing_to_do_is_ready() {
    let mut t = Told::new(3, 12);
    t.w.spec.paused = true;
    t.steps(2);
    is(t.condition(ConditionType::Ready), "True", Reason::AllReplicasUpdated);
}

#[test]
fn a_drain_that_ran_out_of_time_is_told() {
    let mut t = Told::new(2, 20);
    t.w.spec.drain.wait_seconds = 1000;
    t.w.spec.drain.timeout_seconds = 20;
    t.w.template = 2;
    t.until(|w, _| w.converged());
    let r = t.reasons();
    assert_eq!(r.iter().filter(|r| **r == EventReason::DrainTimedOut).count(), 2, "{r:?}");
    assert!(!r.contains(&EventReason::DrainCompleted));
}

#[test]
fn a_draining_pod_whose_container_ends_has_not_run_out_of_time() {
    let mut t = Told::new(2, 20);
    t.w.calm = false;
    t.w.template = 2;
    t.until(|_, s| s.drains.iter().any(|d| d.phase == DrainReportPhase::Closing));
    t.w.pods.get_mut(&0).unwrap().down_until = t.w.now + 3;
    t.until(|w, _| !w.pods.contains_key(&0));
    let ends: Vec<_> = t.events.iter().filter(|e| e.message.starts_with("chat-0 ")).collect();
    assert!(t.reasons().contains(&EventReason::DrainReleased), "{ends:?}");
    assert!(!t.reasons().contains(&EventReason::DrainTimedOut), "{ends:?}");
}

#[test]
fn a_pod_that_is_gone_with_clients_has_not_drained() {
    let mut t = Told::new(2, 20);
    t.w.spec.drain.wait_seconds = 100;
    t.w.template = 2;
    t.until(|_, s| s.drains.iter().any(|d| d.phase == DrainReportPhase::Waiting));
    let (d, mut o) = (t.w.desired(), t.w.observe());
    let deadline = o.pods[0].drain.as_ref().unwrap().deadline;
    o.pods.remove(0);
    let mut status = t.status.clone().unwrap();
    let told = |status: &_, now| {
        let (plan, facts) = (crate::plan::plan(&d, &o, now), super::Facts::default());
        let r = super::report(&d, &o, &plan, &facts, Some(status), now);
        let of = r.events.into_iter().filter(|e| e.message.starts_with("chat-0 "));
        of.map(|e| (e.reason, e.message)).next().unwrap()
    };
    let (reason, text) = told(&status, t.w.timestamp());
    assert_eq!(reason, EventReason::DrainReleased);
    assert_eq!(text, "chat-0 is gone, 10 connections were left when it last told");
    assert_eq!(told(&status, deadline).0, EventReason::DrainTimedOut);
    status.drains[0].phase = DrainReportPhase::Held;
    let (reason, text) = told(&status, deadline);
    assert_eq!(reason, EventReason::DrainReleased);
    assert_eq!(text, "chat-0 was held, and goes: 10 connections were left");
    status.drains[0].remaining_connections = 0;
    assert_eq!(told(&status, deadline).1, "chat-0 has drained and is gone");
}

#[test]
fn a_rollout_in_place_is_done_when_its_last_pod_is_back() {
    let mut t = Told::new(2, 8);
    let rolling = &mut t.w.spec.update_strategy.rolling_update;
    (rolling.max_surge, rolling.max_unavailable) = (0, 1);
    t.w.template = 2;
    // Nobody has made the last one anew yet.
    let new = |w: &World| w.pods.get(&1).is_some_and(|p| p.template == 2);
    t.until(|w, _| new(w) && !w.pods.contains_key(&0));
    assert!(t.status.as_ref().unwrap().rollout.is_some(), "{:#?}", t.status);
    assert!(!t.reasons().contains(&EventReason::RolloutCompleted), "{:?}", t.events);
    t.until(|w, _| w.converged());
    let done: Vec<_> =
        t.events.iter().filter(|e| e.reason == EventReason::RolloutCompleted).collect();
    assert!(done.len() == 1 && done[0].message == "2 pods at revision r2", "{done:?}");
}

#[test]
fn numbers_in_events_are_true_and_read_well() {
    let mut t = Told::new(1, 4);
    t.w.template = 2;
    t.until(|w, _| w.converged());
    let text: Vec<&str> = t.events.iter().map(|e| e.message.as_str()).collect();
    assert_eq!(text[0], "Rolling 1 pod to revision r2");
    assert_eq!(text.last(), Some(&"1 pod at revision r2"));
    let mut t = Told::new(5, 20);
    t.w.template = 2;
    t.until(|w, s| w.pods.len() == 6 && s.drains.len() == 1);
    t.w.spec.replicas = 2;
    t.until(|w, _| w.converged());
    let down = t.events.iter().find(|e| e.reason == EventReason::ScaleDownStarted).unwrap();
    assert_eq!(down.message, "Scaling down to 2 pods, there are 6");
}

#[test]
fn the_canary_stands() {
    let mut t = Told::new(3, 12);
    t.w.spec.update_strategy.rolling_update.partition = 2;
    t.w.template = 2;
    t.until(|w, _| w.converged());
    let message = is(t.condition(ConditionType::Ready), "True", Reason::PartitionReached);
    assert_eq!(message, "1 of 3 pods at revision r2, 2 stay at the old one (partition)");
    is(t.condition(ConditionType::Progressing), "False", Reason::PartitionReached);
}

#[test]
fn an_operator_upgrade_waits_and_says_so() {
    let t = Told::new(3, 12);
    let mut d = t.w.desired();
    d.template_hash = "another".into();
    let s = tell(&t.w, &d, &t.w.observe(), t.status.as_ref()).status;
    assert_eq!(condition(&s, ConditionType::RequiresUpdate).0, "True");
    is(condition(&s, ConditionType::Ready), "True", Reason::AllReplicasUpdated);
}

#[test]
fn a_transition_time_changes_only_when_the_status_flips() {
    let mut t = Told::new(3, 60);
    let at = |t: &Told, c| -> Timestamp {
        find(&t.status.as_ref().unwrap().conditions, c).unwrap().last_transition_time.0
    };
    let first = at(&t, ConditionType::Available);
    t.w.template = 2;
    t.until(|_, s| s.draining_replicas == 1);
    let began = at(&t, ConditionType::Draining);
    t.steps(3);
    assert_eq!((at(&t, ConditionType::Available), at(&t, ConditionType::Draining)), (first, began));
}
