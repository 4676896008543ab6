//! The operator's half of the world: it plans, and carries plans out as far as it lives.

use std::collections::BTreeSet;

use sluice_crds::DrainReason;

use super::{Annotations, SimPod, SimSet, SimShed, World};
use crate::{
    model::{Action, Cursor, DrainCommitment, DrainOverride, Observed, Plan, PodRef, TemplateStep},
    plan::plan,
};

impl World {
    pub fn plan(&self) -> Plan {
        let (d, o, t) = (self.desired(), self.observe(), self.timestamp());
        let p = plan(&d, &o, t);
        assert_eq!(p, plan(&d, &o, t), "the same observation, another plan");
        self.check_accepting(&o, &p);
        p
    }

    /// The accepting set is never emptied while a ready pod that does not drain exists.
    fn check_accepting(&self, o: &Observed, p: &Plan) {
        if !o.statefulset.as_ref().is_some_and(crate::plan::settled) {
            return;
        }
        let mut on: BTreeSet<&str> =
            o.pods.iter().filter(|p| p.accepting).map(|p| p.name.as_str()).collect();
        let mut candidates: BTreeSet<&str> = o
            .pods
            .iter()
            .filter(|p| p.ready && !p.terminating && p.drain.is_none())
            .map(|p| p.name.as_str())
            .collect();
        for a in &p.actions {
            match a {
                Action::SetAccepting { pods, .. } => {
                    for (r, v) in pods {
                        if *v {
                            on.insert(&r.name)
                        } else {
                            on.remove(r.name.as_str())
                        };
                    }
                }
                Action::Commit { pod, .. } => {
                    on.remove(pod.name.as_str());
                    candidates.remove(pod.name.as_str());
                }
                _ => {}
            }
        }
        let s = o.statefulset.as_ref().unwrap();
        candidates.retain(|n| {
            let i = o.pods.iter().find(|p| p.name == *n).unwrap().ordinal - s.ordinals_start;
            (0..s.replicas).contains(&i)
        });
        if p.cursor.template == TemplateStep::Keep && !candidates.is_empty() {
            assert!(
                candidates.iter().any(|n| on.contains(n)),
                "nobody accepts although {candidates:?} could: {p:?}"
            );
        }
    }

    /// One reconcile. `steps`: how many actions are done before the operator is killed.
    pub fn reconcile(&mut self, steps: usize) {
        let p = self.plan();
        let (mut left, mut failed) = (steps, BTreeSet::<String>::new());
        for a in &p.actions {
            if left == 0 {
                return;
            }
            left -= 1;
            self.act(a, &mut failed);
        }
        if left > 0 {
            self.apply(p.cursor);
        }
    }

    fn act(&mut self, a: &Action, failed: &mut BTreeSet<String>) {
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
            Action::StartDrain { .. } => {
                assert!(
                    self.by(&r).is_none_or(|p| p.annotations.is_some()),
                    "told a node to drain before the commitment was written"
                );

                if !answers {
                    failed.insert(r.uid.clone());
                } else if let Some(p) = self.by(&r) {
                    let began = p.draining.map_or(now, |(b, _)| b);
                    p.draining = Some((began, now + ttl));
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
                    p.draining = None;
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
                    assert!(p.draining.is_none(), "annotations stripped from a draining node");
                    (p.annotations, p.asked) = (None, None);
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
                    "a cordon leaves nobody: {}",
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
        let rolling = self.spec.update_strategy.rolling_update.clone();
        let n = self.spec.replicas;
        let limit = rolling
            .max_surge
            .max(rolling.max_unavailable)
            .max(self.spec.scale_down.max_concurrent_drains);
        let (deadline, now, initial) = (c.deadline.as_second(), self.now, c.initial);
        let pin = self.by(r).and_then(|p| p.pin);
        assert_ne!(pin, Some(DrainOverride::Cancel), "a pinned pod was chosen");
        assert!(!self.spec.paused, "a drain began while paused");
        let was_ready = self.by(r).is_some_and(|p| p.ready_since.is_some());
        let target = c.target.clone();
        if let Some(p) = self.by(r) {
            (p.accepting, p.relabelled) = (false, now);
            p.annotations = Some(Annotations {
                reason: c.reason,
                target,
                started: now,
                initial,
                deadline,
                drained: None,
            });
        }
        let set = self.set.as_ref().unwrap();
        let inside: Vec<&SimPod> = self
            .pods
            .iter()
            .filter(|(o, _)| (set.start..set.start + set.replicas).contains(o))
            .map(|(_, p)| p)
            .collect();
        // One that can't start has no clients, and holds no slot.
        let live = |p: &&&SimPod| p.ready_since.is_some() || self.load(p.uid) > 0;
        let draining = inside
            .iter()
            .filter(|p| p.annotations.is_some() && !p.terminating)
            .filter(live)
            .count() as i32;
        let before = draining - 1;
        assert!(
            before < limit || !was_ready,
            "{draining} drains at a time, {limit} are allowed {}",
            self.brief()
        );
        let serving = inside
            .iter()
            .filter(|p| p.ready_since.is_some() && !p.terminating && p.annotations.is_none())
            .count() as i32;
        let broken = inside.iter().filter(|p| p.ready_since.is_none()).count() as i32;
        let in_place = rolling.max_surge == 0 || !self.calm || self.edited();
        let allowance = if in_place { rolling.max_unavailable } else { 0 };
        // What the disruption budget of others allows.
        let evicted = i32::from(c.reason == DrainReason::Eviction);
        let floor = n - allowance.max(evicted) - broken;
        assert!(
            serving >= floor || !was_ready,
            "{serving} pods serve, {floor} must (n {n}, broken {broken}): {}",
            self.brief()
        );
    }

    /// Old pods stand above new ones, or between them and those that a canary keeps: these are
    /// replaced in place.
    fn edited(&self) -> bool {
        let (update, current) = self.set.as_ref().map_or((0, 0), |s| (s.update, s.current));
        if self.pods.values().any(|p| ![update, current].contains(&p.template)) {
            return true;
        }
        let order: Vec<bool> = self.pods.values().map(|p| p.template == update).collect();
        order.windows(2).any(|w| w[0] && !w[1])
    }

    fn by(&mut self, r: &PodRef) -> Option<&mut SimPod> {
        self.pods.values_mut().find(|p| p.uid.to_string() == r.uid)
    }

    fn apply(&mut self, c: Cursor) {
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
        assert!(s.start >= before.start, "ordinals.start went back");
        assert!((0..=s.replicas).contains(&s.partition), "partition {s:?}");
        if *s != before {
            s.generation += 1;
        }
    }
}
