//! A small deterministic world for the planner: the StatefulSet controller as a real one was
//! measured, nodes that drain in batches, clients that come back to accepting pods, and an
//! executor that may die between any two steps. It checks the promises as things happen.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sluice_crds::{ChannelClusterSpec, TimeoutPolicy};
use sluice_node_api::admin::{DrainPhase, DrainRequest, DrainStatus, NodeStatus, PeerStatus};

use crate::{
    model::{
        Action, Cursor, Desired, DrainCommitment, DrainOverride, Observed, Plan, PodRef, PodState,
        StatefulSetState, StuckReason, TemplateStep,
    },
    plan::plan,
};

/// A pod and its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SimPod {
    pub uid: u32,
    pub template: u32,
    pub created: i64,
    pub ready_at: i64,
    pub ready_since: Option<i64>,
    /// Until when its container restarts.
    pub down_until: i64,
    pub node_down_until: i64,
    pub silent_until: i64,
    pub terminating: bool,
    pub accepting: bool,
    pub annotations: Option<Annotations>,
    pub pin: Option<DrainOverride>,
    /// The node's own drain: when it began, until when it lives unless renewed.
    pub draining: Option<(i64, i64)>,
}

/// A commitment, in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Annotations {
    pub scale: bool,
    pub started: i64,
    pub initial: Option<u64>,
    pub deadline: i64,
    pub drained: Option<i64>,
}

/// The StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SimSet {
    pub replicas: i32,
    pub start: i32,
    pub partition: i32,
    pub template: u32,
    pub spec_template: u32,
    pub generation: i64,
    pub observed: i64,
    pub current: u32,
    pub update: u32,
}

/// One client: the UID of the pod it is on, and how often it was moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct SimClient {
    pub pod: Option<u32>,
    pub moves: u32,
}

/// Everything there is.
#[derive(Clone, Debug)]
pub struct World {
    pub now: i64,
    pub spec: ChannelClusterSpec,
    /// The template that the spec asks for; stands for its hash.
    pub template: u32,
    /// Templates whose pods never start.
    pub bad: BTreeSet<u32>,
    pub set: Option<SimSet>,
    pub pods: BTreeMap<i32, SimPod>,
    pub clients: Vec<SimClient>,
    pub next_uid: u32,
    pub startup: i64,
    /// No fault was injected: the stricter promises hold.
    pub calm: bool,
    /// Highest load of a pod seen since it was last set to 0.
    pub peak: usize,
    rng: u64,
}

impl World {
    pub fn new(spec: ChannelClusterSpec, clients: usize) -> Self {
        Self {
            now: 1_000_000,
            spec,
            template: 1,
            bad: BTreeSet::new(),
            set: None,
            pods: BTreeMap::new(),
            clients: vec![SimClient::default(); clients],
            next_uid: 1,
            startup: 2,
            calm: true,
            peak: 0,
            rng: 0x9E37_79B9_7F4A_7C15,
        }
    }
    pub fn seed(&mut self, seed: u64) {
        self.rng = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    }
    fn rand(&mut self, below: usize) -> usize {
        self.rng ^= self.rng << 13;
        self.rng ^= self.rng >> 7;
        self.rng ^= self.rng << 17;
        (self.rng % below.max(1) as u64) as usize
    }
    pub fn timestamp(&self) -> Timestamp {
        Timestamp::from_second(self.now).unwrap()
    }
    pub fn desired(&self) -> Desired<'_> {
        Desired {
            name: "chat",
            generation: 1,
            spec: &self.spec,
            spec_hash: format!("s{}", self.template),
            template_hash: format!("t{}", self.template),
        }
    }
    pub fn load(&self, uid: u32) -> usize {
        self.clients.iter().filter(|c| c.pod == Some(uid)).count()
    }

    pub fn observe(&self) -> Observed {
        let at = |s: i64| Timestamp::from_second(s).unwrap();
        let statefulset = self.set.as_ref().map(|s| StatefulSetState {
            uid: "set".into(),
            generation: s.generation,
            observed_generation: s.observed,
            replicas: s.replicas,
            ordinals_start: s.start,
            partition: s.partition,
            spec_hash: format!("s{}", s.spec_template),
            template_hash: format!("t{}", s.spec_template),
            rollout_started_at: None,
            current_revision: format!("r{}", s.current),
            update_revision: format!("r{}", s.update),
        });
        let ups: Vec<i32> = self.pods.iter().filter(|(_, p)| self.up(p)).map(|(o, _)| *o).collect();
        let pods = self.pods.iter().map(|(&ordinal, p)| {
            let up = self.up(p);
            let node = (up && self.now >= p.silent_until).then(|| NodeStatus {
                node: format!("chat-{ordinal}"),
                connections: self.load(p.uid) as u64,
                drain: self.drain_status(p),
                peers: ups
                    .iter()
                    .filter(|o| **o != ordinal)
                    .map(|o| PeerStatus {
                        name: format!("chat-{o}"),
                        address: String::new(),
                        outbound: true,
                        inbound: true,
                    })
                    .collect(),
                ..NodeStatus::default()
            });
            PodState {
                name: format!("chat-{ordinal}"),
                uid: p.uid.to_string(),
                resource_version: "1".into(),
                ordinal,
                revision: format!("r{}", p.template),
                created_at: Some(at(p.created)),
                ready: p.ready_since.is_some(),
                ready_since: p.ready_since.map(at),
                terminating: p.terminating,
                running: up || self.now < p.node_down_until,
                stuck: (self.bad.contains(&p.template)).then_some(StuckReason::ImagePull),
                node_unreachable: self.now < p.node_down_until,
                accepting: p.accepting,
                drain: p.annotations.as_ref().map(|a| DrainCommitment {
                    reason: if a.scale {
                        sluice_crds::DrainReason::ScaleDown
                    } else {
                        sluice_crds::DrainReason::Rollout
                    },
                    started_at: at(a.started),
                    deadline: at(a.deadline),
                    target: String::new(),
                    initial: a.initial,
                    drained_at: a.drained.map(at),
                }),
                drain_override: p.pin,
                node,
            }
        });
        Observed { statefulset, pods: pods.collect() }
    }

    /// Its container runs and its Kubernetes node lives.
    fn up(&self, p: &SimPod) -> bool {
        !self.bad.contains(&p.template)
            && self.now >= p.ready_at.min(p.down_until.max(p.ready_at))
            && self.now >= p.down_until
            && self.now >= p.node_down_until
    }

    fn drain_status(&self, p: &SimPod) -> DrainStatus {
        let Some((began, _)) = p.draining else { return DrainStatus::default() };
        let d = &self.spec.drain;
        let (delay, wait) = (d.initial_delay_seconds as i64, d.wait_seconds as i64);
        let phase = match self.now - began {
            t if t < delay => DrainPhase::Delay,
            _ if self.load(p.uid) == 0 => DrainPhase::Drained,
            t if t < delay + wait => DrainPhase::Waiting,
            _ => DrainPhase::Closing,
        };
        DrainStatus { phase, ..DrainStatus::default() }
    }

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
                Action::SetAccepting { pods } => {
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
        if let Action::SetAccepting { pods } = a {
            for (r, on) in pods {
                if let Some(p) = self.by(r) {
                    p.accepting = *on;
                }
            }
            return;
        }
        let r = match a {
            Action::Commit { pod, .. }
            | Action::StartDrain { pod, .. }
            | Action::MarkDrained { pod, .. }
            | Action::CancelDrain { pod }
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
                    "told a node to drain before the commitment was written"
                );
                let _: &DrainRequest = request;
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
            Action::StripAnnotations { .. } => {
                if let Some(p) = self.by(&r) {
                    assert!(p.draining.is_none(), "annotations stripped from a draining node");
                    p.annotations = None;
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
        let scale = c.reason == sluice_crds::DrainReason::ScaleDown;
        let (deadline, now, initial) = (c.deadline.as_second(), self.now, c.initial);
        let pin = self.by(r).and_then(|p| p.pin);
        assert_ne!(pin, Some(DrainOverride::Cancel), "a pinned pod was chosen");
        assert!(!self.spec.paused, "a drain began while paused");
        let was_ready = self.by(r).is_some_and(|p| p.ready_since.is_some());
        if let Some(p) = self.by(r) {
            p.accepting = false;
            p.annotations =
                Some(Annotations { scale, started: now, initial, deadline, drained: None });
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
        let floor = n - if in_place { rolling.max_unavailable } else { 0 } - broken;
        assert!(
            serving >= floor || !was_ready,
            "{serving} pods serve, {floor} must (n {n}, broken {broken}): {}",
            self.brief()
        );
    }

    /// Old pods stand above new ones: these are replaced in place.
    fn edited(&self) -> bool {
        let update = self.set.as_ref().map_or(0, |s| s.update);
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
            down_until: 0,
            node_down_until: 0,
            silent_until: 0,
            terminating: false,
            accepting: false,
            annotations: None,
            pin: None,
            draining: None,
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
            "chat-{ordinal} let go with {load} clients: {}",
            self.brief()
        );
        if let Some(p) = self.pods.get_mut(&ordinal) {
            p.terminating = true;
        }
    }

    /// A person deletes a pod, or it is evicted.
    pub fn kill(&mut self, ordinal: i32) {
        if let Some(p) = self.pods.get_mut(&ordinal) {
            p.terminating = true;
        }
    }

    /// A second passes: nodes, kubelets and clients.
    pub fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        let ups: BTreeSet<u32> = self.pods.values().filter(|p| self.up(p)).map(|p| p.uid).collect();
        let bad = self.bad.clone();
        // Gone: those that terminate. Their clients have been closed by preStop.
        let gone: Vec<i32> = self
            .pods
            .iter()
            .filter(|(_, p)| p.terminating && now >= p.node_down_until)
            .map(|(o, _)| *o)
            .collect();
        for o in gone {
            if let Some(p) = self.pods.remove(&o) {
                self.disconnect(p.uid, usize::MAX);
            }
        }
        for p in self.pods.values_mut() {
            let up = ups.contains(&p.uid) && !bad.contains(&p.template);
            if up && p.ready_since.is_none() && now >= p.ready_at {
                p.ready_since = Some(now);
            } else if !up {
                p.ready_since = None;
            }
            if p.draining.is_some_and(|(_, ttl)| now >= ttl) || !up && now < p.down_until {
                p.draining = None;
            }
        }
        let d = self.spec.drain.clone();
        let settled = (d.initial_delay_seconds + d.wait_seconds) as i64;
        let closing: Vec<u32> = self
            .pods
            .values()
            .filter(|p| {
                p.draining.is_some_and(|(began, _)| {
                    let t = now - began - settled;
                    t >= 0 && t % i64::from(d.batch_interval_seconds()) == 0
                })
            })
            .map(|p| p.uid)
            .collect();
        for uid in closing {
            self.disconnect(uid, d.batch_size() as usize);
        }
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

    fn disconnect(&mut self, uid: u32, count: usize) {
        for c in self.clients.iter_mut().filter(|c| c.pod == Some(uid)).take(count) {
            c.pod = None;
            c.moves += 1;
        }
    }

    fn connect(&mut self) {
        let targets: Vec<u32> = self
            .pods
            .values()
            .filter(|p| {
                p.accepting && p.ready_since.is_some() && !p.terminating && p.draining.is_none()
            })
            .map(|p| p.uid)
            .collect();
        if targets.is_empty() {
            return;
        }
        for i in 0..self.clients.len() {
            if self.clients[i].pod.is_none() {
                self.clients[i].pod = Some(targets[self.rand(targets.len())]);
            }
        }
    }

    /// Controller, operator and a second, in that order.
    pub fn step(&mut self) {
        self.controller();
        self.reconcile(usize::MAX);
        self.tick();
    }

    /// Nothing is left to do: parked, every pod wanted, ready and at the wanted revision.
    pub fn converged(&self) -> bool {
        let Some(s) = &self.set else { return false };
        let keep = self.spec.update_strategy.rolling_update.partition;
        let p = self.plan();
        let old = self.pods.values().filter(|p| p.template != self.template).count() as i32;
        let still = Cursor {
            replicas: s.replicas,
            ordinals_start: s.start,
            partition: s.partition,
            template: TemplateStep::Keep,
        };
        s.observed == s.generation
            && p.actions.is_empty()
            && p.cursor == still
            && s.replicas == self.spec.replicas
            && self.pods.len() as i32 == s.replicas
            && old <= keep
            && (old > 0 || s.partition == s.replicas)
            && self
                .pods
                .values()
                .all(|p| p.ready_since.is_some() && p.annotations.is_none() && p.draining.is_none())
    }

    /// Steps until it has converged; the steps it took.
    pub fn settle(&mut self, at_most: usize) -> usize {
        for i in 0..at_most {
            if self.converged() {
                return i;
            }
            self.step();
        }
        panic!("not converged after {at_most} steps: {}\nplan {:#?}", self.brief(), self.plan());
    }

    /// Lays the clients evenly over the pods, as if they had always been there.
    pub fn spread_evenly(&mut self) {
        let uids: Vec<u32> = self.pods.values().map(|p| p.uid).collect();
        for (i, c) in self.clients.iter_mut().enumerate() {
            *c = SimClient { pod: uids.get(i % uids.len().max(1)).copied(), moves: 0 };
        }
        self.peak = 0;
    }
    /// All that matters, on a few lines.
    pub fn brief(&self) -> String {
        let r = &self.spec.update_strategy.rolling_update;
        let mut out = format!(
            "\nnow {} want {} template {} paused {} surge {} unavailable {} partition {} set {:?}",
            self.now,
            self.spec.replicas,
            self.template,
            self.spec.paused,
            r.max_surge,
            r.max_unavailable,
            r.partition,
            self.set
        );
        for (o, p) in &self.pods {
            out += &format!(
                "\n  chat-{o} t{} {} {} {} clients {:?} drain {:?} down {} silent {}",
                p.template,
                if p.ready_since.is_some() { "ready" } else { "-" },
                if p.terminating { "terminating" } else { "-" },
                if p.accepting { "accepting" } else { "-" },
                self.load(p.uid),
                (&p.annotations, p.draining),
                p.down_until.max(p.node_down_until),
                p.silent_until
            );
        }
        out
    }
}
