//! The report at each stage of a cluster's life, and the story that its events tell.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::{
    Adapter, ChannelClusterStatus, ConditionType, DrainReportPhase, Reason, RedisMode,
};

use super::{Event, EventReason, Facts, Report, find, report};
use crate::{
    model::{Desired, DrainOverride, Observed},
    plan::{
        plan,
        tests::{sim::World, spec},
    },
};

/// A world with the status that a person would see.
struct Told {
    w: World,
    status: Option<ChannelClusterStatus>,
    events: Vec<Event>,
}

impl Told {
    fn new(n: i32, clients: usize) -> Self {
        let mut w = World::new(spec(n), clients);
        w.settle(100);
        w.spread_evenly();
        let mut t = Self { w, status: None, events: vec![] };
        t.look();
        t.events.clear();
        t
    }
    fn look(&mut self) -> &ChannelClusterStatus {
        let r = tell(&self.w, &self.w.desired(), &self.w.observe(), self.status.as_ref());
        self.events.extend(r.events);
        self.status.insert(r.status)
    }
    fn steps(&mut self, n: usize) {
        for _ in 0..n {
            self.w.controller();
            self.look();
            self.w.reconcile(usize::MAX);
            self.w.tick();
        }
    }
    fn until(&mut self, mut done: impl FnMut(&World, &ChannelClusterStatus) -> bool) {
        for _ in 0..500 {
            self.steps(1);
            if done(&self.w, self.status.as_ref().unwrap()) {
                self.look();
                return;
            }
        }
        panic!("never: {:#?} {}", self.status, self.w.brief());
    }
    fn condition(&self, t: ConditionType) -> (String, String, String) {
        condition(self.status.as_ref().unwrap(), t)
    }
    fn reasons(&self) -> Vec<EventReason> {
        self.events.iter().map(|e| e.reason).collect()
    }
}

fn tell(
    w: &World,
    desired: &Desired<'_>,
    observed: &Observed,
    previous: Option<&ChannelClusterStatus>,
) -> Report {
    let now = w.timestamp();
    let p = plan(desired, observed, now);
    let facts = Facts { image: "node:1".into(), ..Facts::default() };
    let r = report(desired, observed, &p, &facts, previous, now);
    let again = report(desired, observed, &p, &facts, Some(&r.status), now + second(1000));
    // A status that its own writing changed would be written forever.
    if find(&again.status.conditions, ConditionType::Stalled)
        == find(&r.status.conditions, ConditionType::Stalled)
        && r.status.drains.is_empty()
        && !r.status.conditions.iter().any(|c| c.status == "Unknown")
        && observed
            .pods
            .iter()
            .all(|p| p.ready_since.is_none_or(|t| now.duration_since(t) > second(1)))
    {
        assert_eq!(again.status, r.status);
        assert_eq!(again.events, []);
    }
    r
}

fn second(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

fn condition(s: &ChannelClusterStatus, t: ConditionType) -> (String, String, String) {
    let c = find(&s.conditions, t).unwrap_or_else(|| panic!("no {t:?} in {s:#?}"));
    (c.status.clone(), c.reason.clone(), c.message.clone())
}

fn is(c: (String, String, String), status: &str, reason: Reason) -> String {
    assert_eq!((c.0.as_str(), c.1), (status, format!("{reason:?}")), "{}", c.2);
    c.2
}

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
    t.until(|w, _| w.converged());
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
    assert!(t.reasons().contains(&EventReason::DrainCompleted), "{ends:?}");
    assert!(!t.reasons().contains(&EventReason::DrainTimedOut), "{ends:?}");
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
