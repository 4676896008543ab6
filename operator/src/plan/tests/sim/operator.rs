//! The operator's half of the world: it plans, and carries plans out as far as it lives.

use std::collections::BTreeSet;

use sluice_crds::DrainMode;

use super::{Annotations, SimPod, SimSet, SimShed, World, promises::*};
use crate::{
    model::{Action, Cursor, DrainCommitment, DrainOverride, Plan, PodRef, TemplateStep},
    plan::plan,
};

/// The plan's steps; labels that are set together are separate requests.
pub(super) fn each_write(p: &Plan) -> Vec<Action> {
    let mut each = Vec::new();
    for a in &p.actions {
        match a {
            Action::SetAccepting { pods, at } => {
                let one = |pod| Action::SetAccepting { pods: vec![pod], at: *at };
                each.extend(pods.iter().cloned().map(one));
            }
            a => each.push(a.clone()),
        }
    }
    each
}

impl World {
    /// The plan, asked for twice and tried out.
    pub fn plan(&self) -> Plan {
        let p = self.plan_once();
        assert_eq!(p, self.plan_once(), "{SAME}");
        self.check_repeated(&p);
        p
    }

    pub fn plan_once(&self) -> Plan {
        let o = self.observe();
        let p = plan(&self.desired(), &o, self.timestamp());
        self.check_accepting(&o, &p);
        self.check_undone(&p);
        p
    }

    /// One reconcile. `writes`: after how many the operator is killed.
    pub fn reconcile(&mut self, writes: usize) {
        self.carry_out(&self.plan(), writes);
    }

    /// What a reconcile does once it has its plan.
    pub fn carry_out(&mut self, p: &Plan, writes: usize) {
        let (each, mut failed) = (each_write(p), BTreeSet::<String>::new());
        for a in each.iter().take(writes) {
            self.act(a, &mut failed);
        }
        if writes > each.len() {
            self.apply(p.cursor);
        }
    }

    /// Moments at which an operator that reconciles now may be killed: before each of its writes.
    pub fn moments(&self) -> usize {
        let p = self.plan();
        each_write(&p).len() + usize::from(self.moved_by(&p))
    }

    /// Whether a plan moves the cursor.
    pub(super) fn moved_by(&self, p: &Plan) -> bool {
        self.set.as_ref().is_none_or(|s| {
            let Cursor { replicas, ordinals_start, partition, template } = p.cursor;
            (replicas, ordinals_start, partition, template)
                != (s.replicas, s.start, s.partition, TemplateStep::Keep)
        })
    }

    /// The operator has nothing to do.
    pub fn idle(&self) -> bool {
        let p = self.plan_once();
        p.actions.is_empty() && !self.moved_by(&p)
    }

    pub(super) fn act(&mut self, a: &Action, failed: &mut BTreeSet<String>) {
        let (now, ttl) = (self.now, 300);
        if let Action::SetAccepting { pods, .. } = a {
            for (r, on) in pods {
                if let Some(p) = self.by(r) {
                    (p.accepting, p.relabelled) = (*on, now);
                }
            }
            return;
        }
        let r = match a {
            Action::Commit { pod, .. }
            | Action::StartDrain { pod, .. }
            | Action::MarkDrained { pod, .. }
            | Action::CancelDrain { pod }
            | Action::Shed { pod, .. }
            | Action::Cordon { pod, .. }
            | Action::Uncordon { pod }
            | Action::StripAnnotations { pod } => pod.clone(),
            Action::SetAccepting { .. } => return,
        };
        if failed.contains(&r.uid) {
            return;
        }
        let answers = self.by(&r).cloned().is_some_and(|p| self.up(&p) && now >= p.silent_until);
        match a {
            Action::Commit { commitment, .. } => self.commit(&r, commitment),
            Action::StartDrain { request, .. } => {
                assert!(
                    self.by(&r).is_none_or(|p| p.annotations.is_some()),
                    "{COMMITMENT}: it is told before it is written"
                );
                if !answers {
                    failed.insert(r.uid.clone());
                } else if let Some(p) = self.by(&r) {
                    let began = p.draining.map_or(now, |(b, _)| b);
                    p.draining = Some((began, now + ttl));
                    p.at_once = request.mode == DrainMode::Immediate;
                }
            }
            Action::MarkDrained { .. } => {
                if let Some(a) = self.by(&r).and_then(|p| p.annotations.as_mut()) {
                    a.drained = Some(now);
                }
            }
            Action::CancelDrain { .. } => {
                if !answers {
                    failed.insert(r.uid.clone());
                } else if let Some(p) = self.by(&r) {
                    (p.draining, p.at_once) = (None, false);
                }
            }
            Action::Shed { request, .. } => {
                if !answers {
                    failed.insert(r.uid.clone());
                } else if let Some(p) = self.by(&r) {
                    assert!(request.count == 0 || p.shed.is_none(), "a shed was begun anew");
                    let begins = now + request.delay_seconds as i64;
                    let rate = request.rate_per_second as usize;
                    p.shed = (request.count > 0).then_some(SimShed {
                        begins,
                        left: request.count as usize,
                        done: 0,
                        rate,
                        last: begins,
                    });
                }
            }
            Action::StripAnnotations { .. } => {
                if let Some(p) = self.by(&r) {
                    assert!(p.draining.is_none(), "{COMMITMENT}: it is stripped too early");
                    (p.annotations, p.asked) = (None, None);
                    p.pin = p.pin.filter(|pin| *pin != DrainOverride::Release);
                }
            }
            Action::Uncordon { .. } => {
                if !answers {
                    failed.insert(r.uid.clone());
                } else if let Some(p) = self.by(&r) {
                    p.cordon = None;
                }
            }
            Action::Cordon { request, .. } => {
                let takes = |p: &SimPod| p.accepting && p.ready_since.is_some() && !p.terminating;
                let others = self.pods.values().filter(|p| p.uid.to_string() != r.uid);
                assert!(
                    others.clone().any(|p| takes(p) && !self.cordoned(p)),
                    "{ACCEPTING}: a cordon leaves nobody: {}",
                    self.brief()
                );
                if !answers {
                    failed.insert(r.uid.clone());
                } else if let Some(p) = self.by(&r) {
                    assert!(!p.accepting && p.annotations.is_none(), "cordoned by mistake");
                    p.cordon = Some(now + request.ttl_seconds as i64);
                }
            }
            Action::SetAccepting { .. } => {}
        }
    }

    fn commit(&mut self, r: &PodRef, c: &DrainCommitment) {
        let (deadline, now, initial) = (c.deadline.as_second(), self.now, c.initial);
        let pin = self.by(r).and_then(|p| p.pin);
        assert_ne!(pin, Some(DrainOverride::Cancel), "{OBEDIENCE}: the pod is pinned");
        assert!(!self.spec.paused, "{OBEDIENCE}: it is paused");
        let was_ready = self.by(r).is_some_and(|p| p.ready_since.is_some());
        let again = self.by(r).is_some_and(|p| p.annotations.is_some());
        let target = c.target.clone();
        if let Some(p) = self.by(r) {
            (p.accepting, p.relabelled) = (false, now);
            p.pin = p.pin.filter(|pin| *pin != DrainOverride::Release);
            p.annotations = Some(Annotations {
                reason: c.reason,
                target,
                started: now,
                initial,
                deadline,
                drained: None,
            });
        }
        if !again {
            self.check_begun(r, c.reason, was_ready);
        }
    }

    fn by(&mut self, r: &PodRef) -> Option<&mut SimPod> {
        self.pods.values_mut().find(|p| p.uid.to_string() == r.uid)
    }

    pub(super) fn apply(&mut self, c: Cursor) {
        let template = self.template;
        let Some(s) = &mut self.set else {
            self.set = Some(SimSet {
                replicas: c.replicas,
                start: c.ordinals_start,
                partition: c.partition,
                template,
                spec_template: template,
                generation: 1,
                observed: 0,
                current: template,
                update: 0,
            });
            return;
        };
        let before = s.clone();
        (s.replicas, s.start, s.partition) = (c.replicas, c.ordinals_start, c.partition);
        if c.template == TemplateStep::Apply {
            (s.template, s.spec_template) = (template, template);
        }
        assert!(s.start >= before.start, "{CURSOR}: {before:?}, then {s:?}");
        assert!((0..=s.replicas).contains(&s.partition), "{CURSOR}: {s:?}");
        if *s != before {
            s.generation += 1;
        }
    }
}
