//! What is told when something is in the way.

use jiff::Timestamp;
use sluice_crds::{
    Adapter, ChannelClusterStatus, ConditionType, DrainReportPhase, Reason, RedisMode,
};
use sluice_node_api::admin::RedisFailure;

use super::{
    super::{EventReason, Facts, rebalancing, report},
    told::{Told, condition, is, second, tell},
};
use crate::{
    model::{Desired, DrainOverride, Observed},
    plan::plan,
};

#[test]
fn pods_of_which_none_takes_clients_are_not_available() {
    let t = Told::new(3, 12);
    let mut observed = t.w.observe();
    observed.pods.iter_mut().for_each(|p| p.accepting = false);
    let r = tell(&t.w, &t.w.desired(), &observed, None);
    let message =
        is(condition(&r.status, ConditionType::Available), "False", Reason::WaitingForLinks);
    assert_eq!(message, "no pod takes new clients");
    observed.pods[1].accepting = true;
    let r = tell(&t.w, &t.w.desired(), &observed, None);
    is(condition(&r.status, ConditionType::Available), "True", Reason::AsExpected);
}

#[test]
fn a_new_pod_that_never_starts_stalls_the_cluster() {
    let mut t = Told::new(3, 12);
    t.w.bad = [2].into();
    t.w.template = 2;
    t.steps(20);
    let message = is(t.condition(ConditionType::Stalled), "True", Reason::PodStuck);
    assert_eq!(message, "chat-3 can't start: ImagePullBackOff");
    is(t.condition(ConditionType::Ready), "False", Reason::PodStuck);
    is(t.condition(ConditionType::Available), "True", Reason::AsExpected);
    t.w.template = 3;
    t.until(|w, _| w.converged());
    let r = t.reasons();
    assert!(
        r.contains(&EventReason::PodStuck) && r.contains(&EventReason::StuckPodReplaced),
        "{r:?}"
    );
}

#[test]
fn no_progress_for_too_long_stalls_but_a_drain_does_not() {
    let mut t = Told::new(3, 12);
    t.w.spec.progress_deadline_seconds = 30;
    t.w.startup = 1_000_000;
    t.w.template = 2;
    t.steps(120);
    let message = is(t.condition(ConditionType::Ready), "False", Reason::ProgressDeadlineExceeded);
    assert!(message.contains("no progress for 30 s"), "{message}");
    assert!(t.reasons().contains(&EventReason::ProgressDeadlineExceeded));
    // Another spec has its own time.
    let (o, d, now) = (t.w.observe(), t.w.desired(), t.w.timestamp());
    let facts = Facts { changed_at: Some(now), ..Facts::default() };
    let s = report(&d, &o, &plan(&d, &o, now), &facts, t.status.as_ref(), now).status;
    is(condition(&s, ConditionType::Stalled), "False", Reason::AsExpected);

    let mut t = Told::new(3, 12);
    t.w.spec.progress_deadline_seconds = 10;
    t.w.spec.drain.wait_seconds = 60;
    t.w.template = 2;
    t.until(|w, _| w.converged());
    assert!(!t.reasons().contains(&EventReason::ProgressDeadlineExceeded));
}

#[test]
fn a_pod_lost_after_a_long_quiet_has_its_time_before_it() {
    let mut t = Told::new(3, 12);
    t.steps(5);
    let quiet = t.status.clone().unwrap();
    is(condition(&quiet, ConditionType::Progressing), "False", Reason::AllReplicasUpdated);
    let (d, mut o) = (t.w.desired(), t.w.observe());
    let deadline = i64::from(d.spec.progress_deadline_seconds);
    let lost = t.w.timestamp() + second(deadline * 2);
    o.pods[1].ready = false;
    o.pods[1].ready_since = None;
    let facts = Facts::default();
    let at = |previous: &ChannelClusterStatus, now: Timestamp| {
        report(&d, &o, &plan(&d, &o, now), &facts, Some(previous), now)
    };
    let first = at(&quiet, lost);
    is(condition(&first.status, ConditionType::Progressing), "True", Reason::WaitingForPodReady);
    is(condition(&first.status, ConditionType::Stalled), "False", Reason::AsExpected);
    assert!(!first.events.iter().any(|e| e.reason == EventReason::ProgressDeadlineExceeded));
    let soon = at(&first.status, lost + second(deadline / 2)).status;
    is(condition(&soon, ConditionType::Stalled), "False", Reason::AsExpected);
    let late = at(&soon, lost + second(deadline + 1)).status;
    is(condition(&late, ConditionType::Stalled), "True", Reason::ProgressDeadlineExceeded);
}

#[test]
fn the_time_in_which_a_deleted_pod_moves_its_clients_is_no_lack_of_progress() {
    let mut t = Told::new(3, 12);
    t.steps(5);
    let quiet = t.status.clone().unwrap();
    let (d, mut o) = (t.w.desired(), t.w.observe());
    let deadline = i64::from(d.spec.progress_deadline_seconds);
    let deleted = t.w.timestamp() + second(deadline * 2);
    let at = |o: &Observed, previous: &ChannelClusterStatus, after: i64| {
        let now = deleted + second(after);
        report(&d, o, &plan(&d, o, now), &Facts::default(), Some(previous), now).status
    };
    o.pods[1].terminating = true;
    let first = at(&o, &quiet, 0);
    let long = at(&o, &first, deadline + 10);
    is(condition(&long, ConditionType::Stalled), "False", Reason::AsExpected);
    let message = is(condition(&long, ConditionType::Draining), "True", Reason::WaitingForDrain);
    assert_eq!(message, "chat-1 is being deleted: 4 connections left");
    // Gone, and not back yet: that has its own time.
    o.pods.remove(1);
    let gone = at(&o, &long, deadline + 11);
    is(condition(&gone, ConditionType::Stalled), "False", Reason::AsExpected);
    let soon = at(&o, &gone, deadline + deadline / 2);
    is(condition(&soon, ConditionType::Stalled), "False", Reason::AsExpected);
    let late = at(&o, &soon, deadline * 2 + 30);
    is(condition(&late, ConditionType::Stalled), "True", Reason::ProgressDeadlineExceeded);
}

#[test]
fn a_pod_deleted_in_its_drain_drains_on_until_its_time_is_over() {
    let mut t = Told::new(2, 20);
    t.w.spec.drain.wait_seconds = 100;
    t.w.template = 2;
    t.until(|_, s| s.drains.iter().any(|d| d.phase == DrainReportPhase::Waiting));
    let (d, mut o) = (t.w.desired(), t.w.observe());
    o.pods[0].terminating = true;
    let deadline = o.pods[0].drain.as_ref().unwrap().deadline;
    let at = |previous: &ChannelClusterStatus, now: Timestamp| {
        let facts = Facts::default();
        report(&d, &o, &plan(&d, &o, now), &facts, Some(previous), now)
    };
    let deleted = at(t.status.as_ref().unwrap(), t.w.timestamp());
    assert_eq!(deleted.status.drains[0].phase, DrainReportPhase::Waiting);
    assert_eq!(deleted.events, []);
    let over = at(&deleted.status, deadline);
    assert_eq!(over.status.drains[0].phase, DrainReportPhase::Releasing);
    assert_eq!(over.events[0].reason, EventReason::DrainTimedOut);
    assert_eq!(over.events[0].message, "chat-0 goes with 10 connections: its drain's time is over");
    assert_eq!(at(&over.status, deadline).events, [], "once");
}

#[test]
fn another_spec_has_its_own_time_even_if_the_api_server_stamps_none() {
    let mut t = Told::new(2, 8);
    t.w.bad = [2].into();
    t.w.template = 2;
    t.until(|w, _| w.pods.values().any(|p| p.template == 2));
    let o = t.w.observe();
    let mut d = t.w.desired();
    let deadline = i64::from(d.spec.progress_deadline_seconds);
    let late = t.w.timestamp() + second(deadline * 2);
    let facts = Facts::default();
    let at = |d: &Desired<'_>, previous: &ChannelClusterStatus, now: Timestamp| {
        let mut o = o.clone();
        o.pods.iter_mut().for_each(|p| p.stuck = None);
        report(d, &o, &plan(d, &o, now), &facts, Some(previous), now).status
    };
    let stalled = at(&d, t.status.as_ref().unwrap(), late);
    is(condition(&stalled, ConditionType::Stalled), "True", Reason::ProgressDeadlineExceeded);
    d.generation += 1;
    let anew = at(&d, &stalled, late + second(1));
    is(condition(&anew, ConditionType::Stalled), "False", Reason::AsExpected);
    let soon = at(&d, &anew, late + second(deadline / 2));
    is(condition(&soon, ConditionType::Stalled), "False", Reason::AsExpected);
    let again = at(&d, &soon, late + second(deadline + 10));
    is(condition(&again, ConditionType::Stalled), "True", Reason::ProgressDeadlineExceeded);
}

#[test]
fn a_held_pod_says_what_to_do() {
    let mut t = Told::new(2, 20);
    t.w.spec.drain.timeout_policy = sluice_crds::TimeoutPolicy::Hold;
    t.w.spec.drain.wait_seconds = 1000;
    t.w.spec.drain.timeout_seconds = 20;
    t.w.template = 2;
    t.until(|_, s| s.drains.iter().any(|d| d.phase == DrainReportPhase::Held));
    let message = is(t.condition(ConditionType::Stalled), "True", Reason::DrainHeld);
    assert!(message.contains("sluice.dev/drain=release"), "{message}");
    t.steps(5);
    let timed_out = t.reasons().iter().filter(|r| **r == EventReason::DrainTimedOut).count();
    assert_eq!(timed_out, 1);
    t.w.pods.get_mut(&0).unwrap().pin = Some(DrainOverride::Release);
    t.until(|w, _| !w.pods.contains_key(&0));
}

#[test]
fn an_annotation_that_means_nothing_is_told() {
    let t = Told::new(3, 12);
    let mut o = t.w.observe();
    o.pods[1].override_unknown = true;
    let s = tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status;
    let message = is(condition(&s, ConditionType::Ready), "True", Reason::AllReplicasUpdated);
    let told = "sluice.dev/drain on chat-1 is neither release nor cancel, and does nothing";
    assert_eq!(message, format!("3 of 3 pods are ready; {told}"));
}

#[test]
fn a_release_without_a_drain_is_told() {
    let t = Told::new(3, 12);
    let mut o = t.w.observe();
    o.pods[1].drain_override = Some(DrainOverride::Release);
    let s = tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status;
    let message = is(condition(&s, ConditionType::Ready), "True", Reason::AllReplicasUpdated);
    let told = "sluice.dev/drain=release on chat-1 does nothing: chat-1 does not drain";
    assert_eq!(message, format!("3 of 3 pods are ready; {told}"));
}

#[test]
fn clients_that_are_spread_again_are_told() {
    let mut t = Told::new(3, 60);
    t.w.spec.rebalance.mode = sluice_crds::RebalanceMode::Auto;
    let first = t.w.pods[&0].uid;
    t.w.clients.iter_mut().for_each(|c| c.pod = Some(first));
    for _ in 0..10 {
        let actions = t.w.plan().actions;
        if let Some(event) = rebalancing(&actions) {
            assert_eq!(event.reason, EventReason::Rebalancing);
            assert_eq!(event.message, "Moving 40 connections of chat-0 to pods with fewer");
            return;
        }
        t.steps(1);
    }
    panic!("never {}", t.w.brief());
}

#[test]
fn a_pod_that_is_nearly_full_is_named() {
    let t = Told::new(3, 12);
    let with = |held: u64, most: u64| {
        let mut o = t.w.observe();
        let node = o.pods[1].node.as_mut().unwrap();
        (node.connections, node.capacity) = (held, most);
        tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status
    };
    is(condition(&with(79, 100), ConditionType::CapacityPressure), "False", Reason::AsExpected);
    let full = condition(&with(80, 100), ConditionType::CapacityPressure);
    assert!(full.2.contains("chat-1 has 80 of the 100 connections"), "{}", full.2);
    is(full, "True", Reason::NearCapacity);
    let unknown = condition(&with(80, 0), ConditionType::CapacityPressure);
    is(unknown, "Unknown", Reason::WaitingForPodReady);
}

#[test]
fn redis_that_is_down_is_told_and_healed() {
    let mut t = Told::new(3, 12);
    t.w.spec.pubsub.adapter = Adapter::Redis;
    t.w.spec.redis.mode = RedisMode::Managed;
    let with = |up: bool| {
        let mut o = t.w.observe();
        for n in o.pods.iter_mut().filter_map(|p| p.node.as_mut()) {
            n.redis_connected = Some(up);
        }
        o
    };
    let up = tell(&t.w, &t.w.desired(), &with(true), t.status.as_ref());
    is(condition(&up.status, ConditionType::RedisReady), "True", Reason::AsExpected);
    let down = tell(&t.w, &t.w.desired(), &with(false), Some(&up.status));
    is(condition(&down.status, ConditionType::RedisReady), "False", Reason::RedisUnavailable);
    is(condition(&down.status, ConditionType::Ready), "False", Reason::RedisUnavailable);
    is(condition(&down.status, ConditionType::Available), "True", Reason::AsExpected);
    assert_eq!(down.events[0].reason, EventReason::RedisUnavailable);
    let again = tell(&t.w, &t.w.desired(), &with(true), Some(&down.status));
    is(condition(&again.status, ConditionType::Ready), "True", Reason::AllReplicasUpdated);
}

#[test]
fn a_redis_that_cannot_be_made_is_told_before_any_node_runs_on_it() {
    let mut t = Told::new(3, 12);
    t.w.spec.redis.mode = RedisMode::Managed;
    assert_eq!(t.w.spec.pubsub.adapter, Adapter::Mesh);
    let (d, o, now) = (t.w.desired(), t.w.observe(), t.w.timestamp());
    let quota = "Kubernetes says of the StatefulSet chat-redis: FailedCreate: no";
    let facts = Facts { redis: quota.into(), ..Facts::default() };
    let s = report(&d, &o, &plan(&d, &o, now), &facts, t.status.as_ref(), now).status;
    for (type_, value) in [(ConditionType::Stalled, "True"), (ConditionType::Ready, "False")] {
        assert_eq!(is(condition(&s, type_), value, Reason::RedisUnavailable), quota);
    }
}

#[test]
fn why_redis_is_not_reached_is_told() {
    let mut t = Told::new(3, 12);
    t.w.spec.pubsub.adapter = Adapter::Redis;
    t.w.spec.redis.mode = RedisMode::External;
    let with = |failures: [Option<RedisFailure>; 3]| {
        let mut o = t.w.observe();
        for (n, failure) in o.pods.iter_mut().filter_map(|p| p.node.as_mut()).zip(failures) {
            n.redis_connected = Some(failure.is_none());
            n.redis_failure = failure;
        }
        tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status
    };
    let refused = Some(RedisFailure::Refused);
    let s = with([refused; 3]);
    let nobody = "chat-0: nobody listens at the URL's host and port";
    for type_ in [ConditionType::RedisReady, ConditionType::Ready] {
        let message = is(condition(&s, type_), "False", Reason::RedisUnavailable);
        assert_eq!(message, format!("0 of 3 ready nodes are connected to Redis; {nobody}"));
    }
    // It may come back.
    let message = is(condition(&s, ConditionType::Stalled), "False", Reason::AsExpected);
    assert_eq!(message, format!("Redis is tried again and again; {nobody}"));

    // That will not pass by itself.
    let s = with([None, refused, Some(RedisFailure::Authentication)]);
    let password = "chat-2: Redis does not take the URL's user or password";
    let message = is(condition(&s, ConditionType::Stalled), "True", Reason::RedisUnavailable);
    assert_eq!(message, password);
    let message = is(condition(&s, ConditionType::RedisReady), "False", Reason::RedisUnavailable);
    assert_eq!(message, format!("1 of 3 ready nodes are connected to Redis; {password}"));
    is(condition(&s, ConditionType::Ready), "False", Reason::RedisUnavailable);

    let s = with([None; 3]);
    assert_eq!(condition(&s, ConditionType::Stalled).2, "nothing is in the way");
}

#[test]
fn nodes_that_are_not_linked_are_told() {
    let t = Told::new(3, 12);
    let mut o = t.w.observe();
    o.pods[1].node.as_mut().unwrap().peers[0].inbound = false;
    let s = tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status;
    let message = is(condition(&s, ConditionType::ClusterFormed), "False", Reason::WaitingForLinks);
    assert_eq!(message, "2 of 3 ready nodes are linked with every other");
    o.pods[1].node = None;
    let s = tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status;
    let (formed, _, message) = condition(&s, ConditionType::ClusterFormed);
    assert_eq!(formed, "Unknown");
    assert!(message.ends_with("does not answer on its admin port"), "{message}");
    // It is there, and says no: nobody need look for a NetworkPolicy.
    o.pods[1].denied = true;
    let s = tell(&t.w, &t.w.desired(), &o, t.status.as_ref()).status;
    let message = condition(&s, ConditionType::ClusterFormed).2;
    assert!(message.contains("does not take the admin token"), "{message}");
}

#[test]
fn what_kubernetes_says_of_a_pod_that_does_not_start_is_told() {
    let mut t = Told::new(3, 12);
    let mut o = t.w.observe();
    o.pods[2].running = false;
    o.pods[2].ready = false;
    o.pods[2].node = None;
    let hint = "Kubernetes says of chat-2: FailedMount: secret \"nope\" not found";
    let facts = Facts { hint: hint.into(), ..Facts::default() };
    let (d, now) = (t.w.desired(), t.w.timestamp());
    let s = report(&d, &o, &plan(&d, &o, now), &facts, t.status.as_ref(), now).status;
    let (ready, _, message) = condition(&s, ConditionType::Ready);
    assert_eq!(ready, "False");
    assert!(message.ends_with(&format!("waiting for chat-2 to become ready; {hint}")), "{message}");
    t.look();
    is(t.condition(ConditionType::Ready), "True", Reason::AllReplicasUpdated);
}

#[test]
fn trouble_comes_first() {
    let t = Told::new(3, 12);
    let (o, d, now) = (t.w.observe(), t.w.desired(), t.w.timestamp());
    let facts = Facts {
        trouble: Some((Reason::ApplyConflict, "the Service is another's".into())),
        ..Facts::default()
    };
    let tell = |facts, previous| report(&d, &o, &plan(&d, &o, now), facts, previous, now);
    let r = tell(&facts, t.status.as_ref());
    let s = r.status;
    assert_eq!(
        is(condition(&s, ConditionType::Ready), "False", Reason::ApplyConflict),
        "the Service is another's"
    );
    is(condition(&s, ConditionType::Stalled), "True", Reason::ApplyConflict);
    let [event] = &r.events[..] else { panic!("{:?}", r.events) };
    assert!(event.reason == EventReason::ApplyConflict && event.reason.is_warning(), "{event:?}");
    assert_eq!(tell(&facts, Some(&s)).events, [], "once");
    let s = tell(&Facts::default(), Some(&s)).status;
    is(condition(&s, ConditionType::Stalled), "False", Reason::AsExpected);
}

#[test]
fn a_balancer_without_an_address_is_told_and_nothing_depends_on_it() {
    let t = Told::new(3, 12);
    let (o, d, now) = (t.w.observe(), t.w.desired(), t.w.timestamp());
    let facts = Facts { unaddressed: "no address yet".into(), ..Facts::default() };
    let s = report(&d, &o, &plan(&d, &o, now), &facts, t.status.as_ref(), now).status;
    let message = is(condition(&s, ConditionType::Ready), "True", Reason::AllReplicasUpdated);
    assert_eq!(message, "3 of 3 pods are ready; no address yet");
}
