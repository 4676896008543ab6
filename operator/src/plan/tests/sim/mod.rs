//! A small deterministic world for the planner: the StatefulSet controller as a real one was
//! measured, nodes that drain in batches, clients that come back to accepting pods, and an
//! executor that may die between any two steps. It checks the promises as things happen.

mod checks;
mod kubernetes;
mod operator;
pub mod promises;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sluice_crds::{ChannelClusterSpec, DrainReason};
use sluice_node_api::admin::{DrainPhase, DrainStatus, NodeStatus, PeerStatus};

use crate::model::{
    Desired, DrainCommitment, DrainOverride, Eviction, Observed, PodState, StatefulSetState,
    StuckReason,
};

/// A pod and its node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SimPod {
    pub uid: u32,
    pub template: u32,
    pub created: i64,
    pub ready_at: i64,
    pub ready_since: Option<i64>,
    /// Since when something beside its node keeps it from being Ready.
    pub gated_since: Option<i64>,
    /// Until when its container restarts.
    pub down_until: i64,
    pub node_down_until: i64,
    pub silent_until: i64,
    pub terminating: bool,
    /// Until when its kubelet waits for it to end, once it terminates.
    pub grace_until: i64,
    pub accepting: bool,
    /// When the label last changed, and what balancers know of it.
    pub relabelled: i64,
    pub known: bool,
    /// Until when the node refuses connections.
    pub cordon: Option<i64>,
    pub annotations: Option<Annotations>,
    /// Its Kubernetes node is cordoned.
    pub cordoned: bool,
    /// Why it is stuck, beside a template that never starts.
    pub stuck: Option<StuckReason>,
    /// Somebody asks each second to evict it.
    pub unwanted: bool,
    /// When that was last noted.
    pub asked: Option<i64>,
    pub pin: Option<DrainOverride>,
    /// The node's own drain: when it began, until when it lives unless renewed.
    pub draining: Option<(i64, i64)>,
    /// That drain closes all at once.
    pub at_once: bool,
    /// The node's shed.
    pub shed: Option<SimShed>,
}

/// A shed under way, or just over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SimShed {
    pub begins: i64,
    pub left: usize,
    pub done: usize,
    pub rate: usize,
    pub last: i64,
}

/// A commitment, in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Annotations {
    pub reason: DrainReason,
    pub target: String,
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
    /// So many pods may be made.
    pub quota: Option<usize>,
    /// Kubernetes nodes, on which pods are in turn.
    pub kubernetes_nodes: i32,
    pub startup: i64,
    /// No fault was injected: the stricter promises hold.
    pub calm: bool,
    /// Seconds after which balancers know a label.
    pub lag: i64,
    /// Seconds in a row in which nobody could connect, because of cordons.
    pub stranded: i64,
    /// Whether Redis is there, if the nodes run on it.
    pub redis: Option<bool>,
    /// Ordinals of nodes that do not reach it even so.
    pub cut_off: BTreeSet<i32>,
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
            quota: None,
            kubernetes_nodes: 1,
            startup: 2,
            calm: true,
            lag: 1,
            stranded: 0,
            redis: None,
            cut_off: BTreeSet::new(),
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
    /// Pods that a canary keeps.
    pub fn partition(&self) -> i32 {
        self.spec.update_strategy.rolling_update.partition
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
            template_lost: false,
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
                cordoned: self.cordoned(p),
                cordon_seconds_left: p.cordon.map(|end| (end - self.now).max(0) as f64),
                drain: self.drain_status(p),
                shedding: p.shed.as_ref().map_or(0, |s| (s.left + s.done) as u64),
                redis_connected: self.redis.map(|up| up && !self.cut_off.contains(&ordinal)),
                peers: ups
                    .iter()
                    .filter(|o| **o != ordinal && self.redis.is_none())
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
                denied: false,
                name: format!("chat-{ordinal}"),
                uid: p.uid.to_string(),
                resource_version: "1".into(),
                ordinal,
                revision: format!("r{}", p.template),
                created_at: Some(at(p.created)),
                ready: p.ready_since.is_some(),
                ready_since: p.ready_since.map(at),
                unready_since: p.gated_since.map(at),
                terminating: p.terminating,
                leftover: String::new(),
                running: up || self.now < p.node_down_until,
                stuck: self.bad.contains(&p.template).then_some(StuckReason::ImagePull).or(p.stuck),
                crashed: false,
                stuck_message: String::new(),
                kubernetes_node: format!("node-{}", ordinal % self.kubernetes_nodes),
                node_unreachable: self.now < p.node_down_until,
                accepting: p.accepting,
                accepting_since: p.accepting.then(|| at(p.relabelled)),
                drain: p.annotations.as_ref().map(|a| DrainCommitment {
                    reason: a.reason,
                    started_at: at(a.started),
                    deadline: at(a.deadline),
                    target: a.target.clone(),
                    initial: a.initial,
                    drained_at: a.drained.map(at),
                }),
                drain_override: p.pin,
                override_unknown: false,
                eviction: p
                    .asked
                    .map(|t| Eviction { requested_at: at(t), cordoned: Some(p.cordoned) }),
                node,
            }
        });
        Observed { statefulset, pods: pods.collect() }
    }

    pub fn cordoned(&self, p: &SimPod) -> bool {
        p.cordon.is_some_and(|end| self.now < end)
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
            t if t < delay && !p.at_once => DrainPhase::Delay,
            _ if self.load(p.uid) == 0 => DrainPhase::Drained,
            t if t < delay + wait && !p.at_once => DrainPhase::Waiting,
            _ => DrainPhase::Closing,
        };
        DrainStatus { phase, ..DrainStatus::default() }
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
        let old = self.pods.values().filter(|p| p.template != self.template).count() as i32;
        s.observed == s.generation
            && s.replicas == self.spec.replicas
            && self.pods.len() as i32 == s.replicas
            && old <= self.partition()
            // Whoever goes back wants none of what was tried.
            && (old == 0 || s.current != self.template)
            && (old > 0 || s.partition == s.replicas)
            && self.pods.values().all(|p| {
                p.ready_since.is_some()
                    && !p.terminating
                    && p.annotations.is_none()
                    && p.draining.is_none()
                    && !p.unwanted
                    && p.asked.is_none()
            })
            && !self.pods.values().any(|p| self.cordoned(p))
            && self.idle()
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
                match (p.accepting, self.cordoned(p), p.unwanted || p.asked.is_some()) {
                    (true, false, false) => "accepting",
                    (true, false, true) => "accepting evicting",
                    (false, true, false) => "cordoned",
                    (false, true, true) => "cordoned evicting",
                    (true, true, _) => "accepting but cordoned",
                    (false, false, true) => "evicting",
                    (false, false, false) => "-",
                },
                self.load(p.uid),
                (&p.annotations, p.draining),
                p.down_until.max(p.node_down_until),
                p.silent_until
            );
        }
        out
    }
}
