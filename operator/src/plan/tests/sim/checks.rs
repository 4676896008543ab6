//! What the simulator holds plans and steps to: the promises that are about the operator.

use std::collections::BTreeSet;

use sluice_crds::{DrainMode, DrainReason};

use super::{SimPod, World, operator::each_write, promises::*};
use crate::model::{Action, Observed, Plan, PodRef, TemplateStep};

impl World {
    /// Each step may be repeated, and so may the whole plan; and right after it there is nothing to
    /// do, or soon nothing more.
    pub(super) fn check_repeated(&self, p: &Plan) {
        if p.actions.is_empty() && !self.moved_by(p) {
            return;
        }
        let (mut once, mut twice) = (self.clone(), self.clone());
        once.carry_out(p, usize::MAX);
        let mut failed = BTreeSet::new();
        // A node replaces the shed under way, so one is begun only where there is none.
        let again = |a: &&Action| !matches!(a, Action::Shed { .. });
        let each = each_write(p);
        for a in &each {
            twice.act(a, &mut failed);
            if again(&a) {
                twice.act(a, &mut failed);
            }
        }
        each.iter().filter(again).for_each(|a| twice.act(a, &mut failed));
        twice.apply(p.cursor);
        twice.apply(p.cursor);
        assert!(once.is_as(&twice), "{REPEAT}: {p:?}: {}", self.brief());
        once.check_ends(p.clone());
    }

    /// No time passes after a plan that was just carried out, and still operators begin anew: only
    /// what this one had to wait for is left to the next.
    fn check_ends(mut self, mut before: Plan) {
        for _ in 0..4 {
            let anew = self.plan_once();
            let renews = |a: &Action| matches!(a, Action::StartDrain { .. });
            if anew.actions.iter().all(renews) && !self.moved_by(&anew) {
                return;
            }
            let mut then = self.clone();
            then.carry_out(&anew, usize::MAX);
            if then.is_as(&self) {
                // A node is silent, and told again.
                return;
            }
            let did = |what: fn(&Action) -> bool| before.actions.iter().any(what);
            // What is undone makes room for others.
            let undoes = did(|a| matches!(a, Action::StripAnnotations { .. }));
            // Drained is who was seen so at two looks, of which an empty node that is told at once has
            // had the first; sheds and cordons come after the labels.
            let looks = did(|a| match a {
                Action::StartDrain { request, .. } => request.mode == DrainMode::Immediate,
                Action::MarkDrained { .. }
                | Action::SetAccepting { .. }
                | Action::Uncordon { .. } => true,
                _ => false,
            });
            let more = anew.actions.iter().any(|a| matches!(a, Action::Commit { .. }));
            let allowed = undoes || (looks && !more);
            assert!(allowed, "{REPEAT}: {before:?}, then {anew:?}: {}", self.brief());
            (self, before) = (then, anew);
        }
        panic!("{REPEAT}: there is always more: {before:?}: {}", self.brief());
    }

    /// The same as far as the operator writes it.
    fn is_as(&self, other: &Self) -> bool {
        (&self.pods, &self.set) == (&other.pods, &other.set)
    }

    /// Who is told to stay is not let go.
    pub(super) fn check_undone(&self, p: &Plan) {
        let (c, update) = (p.cursor, self.set.as_ref().map_or(0, |s| s.update));
        for a in &p.actions {
            let Action::CancelDrain { pod } = a else { continue };
            let found = self.pods.iter().find(|(_, p)| p.uid.to_string() == pod.uid);
            let Some((o, there)) = found else { continue };
            let at = o - c.ordinals_start;
            let stays =
                (0..c.replicas).contains(&at) && (at < c.partition || there.template == update);
            assert!(stays, "{RELEASE}: {} is undrained and let go: {}", pod.name, self.brief());
        }
    }

    /// The accepting set is never emptied while a ready pod that does not drain exists.
    pub(super) fn check_accepting(&self, o: &Observed, p: &Plan) {
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
            let p = o.pods.iter().find(|p| p.name == *n).unwrap();
            let i = p.ordinal - s.ordinals_start;
            // One that was let go while it served nobody, and is back, must be kept first.
            let kept = p.accepting || p.revision == s.update_revision || i < s.partition;
            kept && (0..s.replicas).contains(&i)
        });
        if p.cursor.template == TemplateStep::Keep && !candidates.is_empty() {
            assert!(
                candidates.iter().any(|n| on.contains(n)),
                "{ACCEPTING}: nobody does, although {candidates:?} could: {p:?}"
            );
        }
    }

    /// A drain that begins is covered: by the budget, and by pods that serve.
    pub(super) fn check_begun(&self, r: &PodRef, reason: DrainReason, was_ready: bool) {
        let rolling = &self.spec.update_strategy.rolling_update;
        let (n, limit) = (self.spec.replicas, self.limit(r, reason));
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
        // Those that somebody deletes move their clients as well.
        let moves = |p: &&SimPod| {
            p.terminating && self.load(p.uid) > 0 && self.up(p) && self.now >= p.silent_until
        };
        let before = draining - 1 + self.pods.values().filter(moves).count() as i32;
        assert!(
            before < limit || !was_ready,
            "{BUDGET}: {before} drain already, {limit} may: {}",
            self.brief()
        );
        let stuck = |p: &&SimPod| {
            !p.terminating && p.template == set.update && self.bad.contains(&p.template)
        };
        assert!(
            reason != DrainReason::Rollout || !inside.iter().any(stuck),
            "{STOPS}: {}",
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
        let evicted = i32::from(reason == DrainReason::Eviction);
        let floor = n - allowance.max(evicted) - broken;
        assert!(
            serving >= floor || !was_ready,
            "{CAPACITY}: {serving} serve, {floor} must (n {n}, broken {broken}): {}",
            self.brief()
        );
    }

    /// How many may drain at a time when one more does for this reason; one always may.
    fn limit(&self, r: &PodRef, reason: DrainReason) -> i32 {
        let rolling = &self.spec.update_strategy.rolling_update;
        let (surge, unavailable) = (rolling.max_surge, rolling.max_unavailable);
        let (update, total) = self.set.as_ref().map_or((0, 0), |s| (s.update, s.replicas));
        let uid = |p: &SimPod| p.uid.to_string() == r.uid;
        // It leaves at the bottom when all below it are old as well, or at the top when there are too
        // many; else it is replaced in place.
        let mut from_it = self.pods.values().rev().skip_while(|p| !uid(p));
        let bottom = from_it.all(|p| p.template != update || p.terminating);
        let limit = match reason {
            DrainReason::Eviction => 1,
            DrainReason::ScaleDown => self.spec.scale_down.max_concurrent_drains,
            DrainReason::Rollout if surge == 0 => unavailable,
            DrainReason::Rollout if !bottom && total <= self.spec.replicas => unavailable,
            DrainReason::Rollout if !bottom || self.partition() > 0 => surge.max(unavailable),
            DrainReason::Rollout => surge,
        };
        limit.max(1)
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
}
