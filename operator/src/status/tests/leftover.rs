//! What is told of a pod that is being deleted, serves nobody, and does not go.

use sluice_crds::{ChannelClusterStatus, ConditionType, Reason};

use super::{
    super::{EventReason, Facts, report},
    told::{Told, condition, is, second},
};
use crate::{model::PodState, plan::plan};

/// Goes on until a pod is being deleted that the status tells of.
fn until_one_goes(t: &mut Told, is: impl Fn(&ChannelClusterStatus) -> bool) {
    for _ in 0..500 {
        t.w.controller();
        t.look();
        if t.w.pods.values().any(|p| p.terminating) && is(t.status.as_ref().unwrap()) {
            return;
        }
        t.w.reconcile(usize::MAX);
        t.w.tick();
    }
    panic!("never {}", t.w.brief());
}

/// A pod that is deleted, whose node has ended, and that something holds.
fn held_back(p: &mut PodState) {
    (p.terminating, p.ready, p.ready_since) = (true, false, None);
    (p.running, p.node) = (false, None);
    p.leftover = "does not go: it has finalizers (a/b)".into();
}

#[test]
fn a_let_go_pod_that_does_not_go_is_named_and_nothing_waits_for_it() {
    let mut t = Told::new(3, 12);
    t.w.template = 2;
    until_one_goes(&mut t, |s| s.rollout.is_none());
    let (d, mut o) = (t.w.desired(), t.w.observe());
    let last = o.pods.iter_mut().find(|p| p.terminating).expect("the last old pod goes");
    let name = last.name.clone();
    held_back(last);
    let at = |previous: &ChannelClusterStatus, after: i64| {
        let now = t.w.timestamp() + second(after);
        report(&d, &o, &plan(&d, &o, now), &Facts::default(), Some(previous), now)
    };
    let first = at(t.status.as_ref().unwrap(), 1);
    let r = at(&first.status, 2);
    let told: Vec<_> = first.events.iter().chain(&r.events).map(|e| e.reason).collect();
    assert!(!told.contains(&EventReason::DrainCancelled), "{told:?}");
    let message =
        is(condition(&r.status, ConditionType::Ready), "True", Reason::AllReplicasUpdated);
    assert_eq!(
        message,
        format!("3 of 3 pods are ready; {name} does not go: it has finalizers (a/b)")
    );
    is(condition(&r.status, ConditionType::Stalled), "False", Reason::AsExpected);
    is(condition(&r.status, ConditionType::Draining), "False", Reason::AsExpected);
    assert_eq!((r.status.drains.len(), r.status.draining_replicas), (0, 0));
}

#[test]
fn a_pod_that_goes_on_its_own_is_named_while_it_is_waited_for() {
    let mut t = Told::new(3, 12);
    t.w.template = 2;
    until_one_goes(&mut t, |s| s.rollout.is_none());
    let message = is(t.condition(ConditionType::Ready), "False", Reason::WaitingForDrain);
    assert_eq!(message, "3 of 3 pods are ready, waiting for chat-2 to go");
}

#[test]
fn a_rollout_in_place_whose_pod_does_not_go_is_stalled_and_says_why() {
    let mut t = Told::new(3, 12);
    let rolling = &mut t.w.spec.update_strategy.rolling_update;
    (rolling.max_surge, rolling.max_unavailable) = (0, 1);
    t.w.template = 2;
    until_one_goes(&mut t, |_| true);
    let (d, mut o) = (t.w.desired(), t.w.observe());
    held_back(o.pods.iter_mut().find(|p| p.terminating).expect("the top one goes"));
    let deadline = i64::from(d.spec.progress_deadline_seconds);
    let at = |previous: &ChannelClusterStatus, after: i64| {
        let now = t.w.timestamp() + second(after);
        report(&d, &o, &plan(&d, &o, now), &Facts::default(), Some(previous), now)
    };
    let first = at(t.status.as_ref().unwrap(), 1).status;
    let soon = at(&first, deadline / 2).status;
    let message = is(condition(&soon, ConditionType::Stalled), "False", Reason::AsExpected);
    assert_eq!(message, "chat-2 does not go: it has finalizers (a/b)");
    is(condition(&soon, ConditionType::Draining), "False", Reason::AsExpected);
    let late = at(&soon, deadline + 10);
    for (type_, value) in [(ConditionType::Stalled, "True"), (ConditionType::Ready, "False")] {
        let message = is(condition(&late.status, type_), value, Reason::ProgressDeadlineExceeded);
        assert!(message.starts_with(&format!("no progress for {deadline} s: ")), "{message}");
        assert!(message.ends_with("chat-2 does not go: it has finalizers (a/b)"), "{message}");
    }
    let told: Vec<_> = late.events.iter().map(|e| e.reason).collect();
    assert_eq!(told, [EventReason::ProgressDeadlineExceeded]);
}
