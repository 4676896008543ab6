//! A simulated cluster with the status that a person would see, and what they read in it.

use jiff::SignedDuration;
use sluice_crds::{ChannelClusterStatus, ConditionType, Reason};

use super::super::{Event, EventReason, Facts, Report, find, report};
use crate::{
    model::{Desired, Observed},
    plan::{
        plan,
        tests::{sim::World, spec},
    },
};

/// A world with the status that a person would see.
pub(super) struct Told {
    pub(super) w: World,
    pub(super) status: Option<ChannelClusterStatus>,
    pub(super) events: Vec<Event>,
}

impl Told {
    pub(super) fn new(n: i32, clients: usize) -> Self {
        let mut w = World::new(spec(n), clients);
        w.settle(100);
        w.spread_evenly();
        let mut t = Self { w, status: None, events: vec![] };
        t.look();
        t.events.clear();
        t
    }
    pub(super) fn look(&mut self) -> &ChannelClusterStatus {
        let r = tell(&self.w, &self.w.desired(), &self.w.observe(), self.status.as_ref());
        self.events.extend(r.events);
        let (draining, ..) = condition(&r.status, ConditionType::Draining);
        let drains = self.w.observe().pods.iter().any(|p| p.drain.is_none() && p.leaves());
        assert_eq!(draining == "True", drains || !r.status.drains.is_empty(), "{:#?}", r.status);
        self.status.insert(r.status)
    }
    pub(super) fn steps(&mut self, n: usize) {
        for _ in 0..n {
            self.w.controller();
            self.look();
            self.w.reconcile(usize::MAX);
            self.w.tick();
        }
    }
    pub(super) fn until(&mut self, mut done: impl FnMut(&World, &ChannelClusterStatus) -> bool) {
        for _ in 0..500 {
            self.steps(1);
            if done(&self.w, self.status.as_ref().unwrap()) {
                self.look();
                return;
            }
        }
        panic!("never: {:#?} {}", self.status, self.w.brief());
    }
    pub(super) fn condition(&self, t: ConditionType) -> (String, String, String) {
        condition(self.status.as_ref().unwrap(), t)
    }
    pub(super) fn reasons(&self) -> Vec<EventReason> {
        self.events.iter().map(|e| e.reason).collect()
    }
}

pub(super) fn tell(
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

pub(super) fn second(n: i64) -> SignedDuration {
    SignedDuration::from_secs(n)
}

pub(super) fn condition(s: &ChannelClusterStatus, t: ConditionType) -> (String, String, String) {
    let c = find(&s.conditions, t).unwrap_or_else(|| panic!("no {t:?} in {s:#?}"));
    (c.status.clone(), c.reason.clone(), c.message.clone())
}

pub(super) fn is(c: (String, String, String), status: &str, reason: Reason) -> String {
    assert_eq!((c.0.as_str(), c.1), (status, format!("{reason:?}")), "{}", c.2);
    c.2
}
