//! Kubernetes' half of the world: the StatefulSet controller as a real one was measured, kubelets,
//! nodes, and the clients.

use std::collections::BTreeSet;

use sluice_crds::TimeoutPolicy;

use super::{SimPod, World, promises::*};
use crate::{model::DrainOverride, webhook::decide};

impl World {
    /// The StatefulSet controller's turn.
    pub fn controller(&mut self) {
        let Some(mut s) = self.set.clone() else { return };
        s.observed = s.generation;
        s.update = s.template;
        let range = s.start..s.start + s.replicas;
        let condemned: Vec<i32> =
            self.pods.keys().copied().filter(|o| !range.contains(o)).collect();
        for o in condemned {
            self.delete(o);
        }
        for o in range.clone() {
            if !self.pods.contains_key(&o) {
                if self.quota.is_some_and(|most| self.pods.len() >= most) {
                    // It tries that again before it does anything else.
                    self.set = Some(s);
                    return;
                }
                let old = o - s.start < s.partition;
                let template = if old { s.current } else { s.update };
                self.create(o, template);
            }
        }
        for o in (s.start + s.partition..s.start + s.replicas).rev() {
            let Some(p) = self.pods.get(&o) else { continue };
            if p.template != s.update && !p.terminating {
                self.delete(o);
                break;
            }
            if p.ready_since.is_none() || p.terminating {
                break;
            }
        }
        let all = self.pods.values();
        if all.clone().filter(|p| p.template == s.update && !p.terminating).count() as i32
            == s.replicas
            && all.filter(|p| p.ready_since.is_some() && !p.terminating).count() as i32
                == s.replicas
            && self.pods.len() as i32 == s.replicas
        {
            s.current = s.update;
        }
        self.set = Some(s);
    }

    fn create(&mut self, ordinal: i32, template: u32) {
        let uid = self.next_uid;
        self.next_uid += 1;
        let pod = SimPod {
            uid,
            template,
            created: self.now,
            ready_at: self.now + self.startup,
            ready_since: None,
            gated_since: None,
            down_until: 0,
            node_down_until: 0,
            silent_until: 0,
            terminating: false,
            grace_until: 0,
            accepting: false,
            relabelled: 0,
            known: false,
            cordon: None,
            annotations: None,
            cordoned: false,
            stuck: None,
            unwanted: false,
            asked: None,
            pin: None,
            draining: None,
            at_once: false,
            shed: None,
        };
        self.pods.insert(ordinal, pod);
    }

    /// The StatefulSet controller deletes a pod, because the cursor says so.
    fn delete(&mut self, ordinal: i32) {
        let p = self.pods.get(&ordinal).cloned().unwrap();
        if p.terminating {
            return;
        }
        let load = self.load(p.uid);
        let over = p.annotations.as_ref().is_some_and(|a| {
            self.now >= a.deadline && self.spec.drain.timeout_policy == TimeoutPolicy::Terminate
        });
        let exit = self.spec.drain.exit_at_connections as usize;
        assert!(
            load <= exit
                || over
                || p.pin == Some(DrainOverride::Release)
                || !self.calm && !self.up(&p),
            "{RELEASE}: chat-{ordinal} goes with {load} clients: {}",
            self.brief()
        );
        self.kill(ordinal);
    }

    /// A pod is deleted, by whomever: its node drains by itself from now on, and ends when it has
    /// no clients left, or its grace is over.
    pub fn kill(&mut self, ordinal: i32) {
        let (now, d) = (self.now, &self.spec.drain);
        let grace = (d.timeout_seconds + d.initial_delay_seconds) as i64;
        let Some(p) = self.pods.get_mut(&ordinal).filter(|p| !p.terminating) else { return };
        (p.terminating, p.grace_until) = (true, now + grace);
        let began = p.draining.map_or(now, |(began, _)| began);
        p.draining = Some((began, i64::MAX));
    }

    /// Those who empty Kubernetes nodes ask: the webhook, then the disruption budget.
    fn evict(&mut self) {
        let (observed, now) = (self.observe(), self.timestamp());
        for p in observed.pods.iter().filter(|p| !p.terminating) {
            let there = self.pods.get(&p.ordinal);
            let Some(SimPod { unwanted: true, cordoned, .. }) = there else { continue };
            let answer = decide(p, Some(&self.spec), *cordoned, now);
            let load = p.connections().unwrap_or_default() as i32;
            let over = p.drain.as_ref().is_some_and(|c| now >= c.deadline);
            let ready = observed.pods.iter().filter(|o| o.ready && !o.terminating).count() as i32;
            let expected = self.set.as_ref().map_or(0, |s| s.replicas);
            let budget = self.spec.replicas < 2 || !p.ready || ready >= expected;
            let goes = answer.allows() && budget;
            assert!(
                !goes
                    || load <= self.spec.drain.exit_at_connections
                    || over
                    || self.spec.paused
                    || !self.calm,
                "{RELEASE}: chat-{} is evicted with {load} clients: {}",
                p.ordinal,
                self.brief()
            );
            if let Some(p) = self.pods.get_mut(&p.ordinal) {
                p.asked = answer.concerns().then_some(self.now).or(p.asked);
            }
            if goes {
                self.kill(p.ordinal);
            }
        }
    }

    /// A second passes: nodes, kubelets and clients.
    pub fn tick(&mut self) {
        self.now += 1;
        self.evict();
        let now = self.now;
        let ups: BTreeSet<u32> = self.pods.values().filter(|p| self.up(p)).map(|p| p.uid).collect();
        let bad = self.bad.clone();
        let ended = |p: &SimPod| {
            let waits = self.load(p.uid) > 0 && ups.contains(&p.uid) && now < p.grace_until;
            p.terminating && now >= p.node_down_until && !waits
        };
        let gone: Vec<i32> = self.pods.iter().filter(|(_, p)| ended(p)).map(|(o, _)| *o).collect();
        for o in gone {
            if let Some(p) = self.pods.remove(&o) {
                self.disconnect(p.uid, usize::MAX);
            }
        }
        for p in self.pods.values_mut() {
            let up = ups.contains(&p.uid) && !bad.contains(&p.template) && p.gated_since.is_none();
            if up && p.ready_since.is_none() && now >= p.ready_at {
                p.ready_since = Some(now);
            } else if !up {
                p.ready_since = None;
            }
            let crashed = !up && now < p.down_until;
            if p.draining.is_some_and(|(_, ttl)| now >= ttl) || crashed {
                (p.draining, p.at_once) = (None, false);
            }
            if p.cordon.is_some_and(|end| now >= end) || crashed {
                p.cordon = None;
            }
        }
        let d = self.spec.drain.clone();
        let settled = (d.initial_delay_seconds + d.wait_seconds) as i64;
        let due = |p: &SimPod| {
            let t = now - p.draining?.0 - settled;
            let batch = t >= 0 && t % i64::from(d.batch_interval_seconds()) == 0;
            let count = if p.at_once { usize::MAX } else { d.batch_size() as usize };
            (batch || p.at_once).then_some((p.uid, count))
        };
        let closing: Vec<(u32, usize)> = self.pods.values().filter_map(due).collect();
        for (uid, count) in closing {
            self.disconnect(uid, count);
        }
        self.shed();
        for (uid, up) in
            self.pods.values().map(|p| (p.uid, ups.contains(&p.uid))).collect::<Vec<_>>()
        {
            if !up {
                self.disconnect(uid, usize::MAX);
            }
        }
        self.connect();
        for p in self.pods.values() {
            self.peak = self.peak.max(self.load(p.uid));
        }
    }

    /// Nodes that shed: at their rate after the delay, told of for 5 s after the last.
    fn shed(&mut self) {
        let now = self.now;
        let mut closing = Vec::new();
        for p in self.pods.values_mut() {
            if p.draining.is_some() {
                p.shed = None;
            }
            let Some(s) = &mut p.shed else { continue };
            if s.left > 0 && now >= s.begins {
                let n = s.left.min(s.rate);
                (s.left, s.done, s.last) = (s.left - n, s.done + n, now);
                closing.push((p.uid, n));
            } else if s.left == 0 && now >= s.last + 5 {
                p.shed = None;
            }
        }
        for (uid, n) in closing {
            self.disconnect(uid, n);
        }
    }

    fn disconnect(&mut self, uid: u32, count: usize) {
        for c in self.clients.iter_mut().filter(|c| c.pod == Some(uid)).take(count) {
            c.pod = None;
            c.moves += 1;
        }
    }

    fn connect(&mut self) {
        // A client that is refused tries again, within the second.
        let takes = |p: &SimPod| {
            p.ready_since.is_some() && !p.terminating && p.draining.is_none() && !self.cordoned(p)
        };
        let targets: Vec<u32> =
            self.pods.values().filter(|p| p.known && takes(p)).map(|p| p.uid).collect();
        let cordoned = self.pods.values().any(|p| p.known && self.cordoned(p));
        self.stranded = if cordoned && targets.is_empty() { self.stranded + 1 } else { 0 };
        assert!(
            !self.calm || self.stranded <= self.lag,
            "{ACCEPTING}: cordons keep everyone out for {} s: {}",
            self.stranded,
            self.brief()
        );
        let (now, lag) = (self.now, self.lag);
        for p in self.pods.values_mut() {
            let heard = now - p.relabelled >= lag;
            p.known = p.ready_since.is_some() && if heard { p.accepting } else { p.known };
        }
        if targets.is_empty() {
            return;
        }
        for i in 0..self.clients.len() {
            if self.clients[i].pod.is_none() {
                self.clients[i].pod = Some(targets[self.rand(targets.len())]);
            }
        }
    }
}
