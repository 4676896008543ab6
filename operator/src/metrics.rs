//! What the operator measures, in Prometheus' format. Labels are bounded: fixed words, and the
//! names of clusters that exist; a cluster that is gone takes its series along.

mod ledger;

use std::{collections::HashMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use sluice_crds::ChannelClusterStatus;

use self::ledger::Ledger;
use crate::model::{Action, DrainCommitment, Observed, PodState};

/// A cluster, as a label set.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ClusterLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DrainLabels {
    reason: &'static str,
    outcome: &'static str,
}

/// What holds of a cluster. Types, statuses and reasons are closed sets, and a cluster has each type
/// once.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    namespace: String,
    name: String,
    r#type: String,
    status: String,
    reason: String,
}

/// All metrics.
pub struct Metrics {
    registry: Registry,
    ledger: Ledger,
    reconciles: Family<ResultLabels, Counter>,
    reconcile_duration: Histogram,
    drain_active: Family<ClusterLabels, Gauge>,
    drain_remaining: Family<ClusterLabels, Gauge>,
    drain_duration: Family<DrainLabels, Histogram, fn() -> Histogram>,
    drain_timeouts: Counter,
    connections_moved: Counter,
    connections: Family<ClusterLabels, Gauge>,
    rollout_in_progress: Family<ClusterLabels, Gauge>,
    rollout_last_progress: Family<ClusterLabels, Gauge>,
    condition: Family<ConditionLabels, Gauge>,
    /// The series of `condition` that there are, by cluster.
    conditions: Mutex<HashMap<ClusterLabels, Vec<ConditionLabels>>>,
    evictions: Family<DecisionLabels, Counter>,
    writes: Counter,
    leader: Gauge,
    certificate_kept: Gauge,
    memory: Gauge,
    descriptors: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All metrics, registered.
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let metrics = Self {
            reconciles: Family::default(),
            reconcile_duration: Histogram::new(exponential_buckets(0.005, 2.0, 14)),
            drain_active: Family::default(),
            drain_remaining: Family::default(),
            drain_duration: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(1.0, 2.0, 14))
            }),
            drain_timeouts: Counter::default(),
            connections_moved: Counter::default(),
            connections: Family::default(),
            rollout_in_progress: Family::default(),
            rollout_last_progress: Family::default(),
            condition: Family::default(),
            conditions: Mutex::default(),
            evictions: Family::default(),
            writes: Counter::default(),
            leader: Gauge::default(),
            certificate_kept: Gauge::default(),
            memory: Gauge::default(),
            descriptors: Gauge::default(),
            registry: Registry::default(),
            ledger: Ledger::default(),
        };
        let r = registry.sub_registry_with_prefix("sluice_operator");
        r.register("reconcile", "Reconciles, by result", metrics.reconciles.clone());
        r.register(
            "reconcile_duration_seconds",
            "Duration of reconciles",
            metrics.reconcile_duration.clone(),
        );
        r.register("drain_active", "Drains under way", metrics.drain_active.clone());
        r.register(
            "drain_connections_remaining",
            "Connections left on draining pods",
            metrics.drain_remaining.clone(),
        );
        r.register(
            "drain_duration_seconds",
            "From decision to end of a drain",
            metrics.drain_duration.clone(),
        );
        r.register(
            "drain_timeouts",
            "Drains whose time was over with connections left",
            metrics.drain_timeouts.clone(),
        );
        r.register(
            "connections_moved",
            "Connections closed by drains and rebalancing, to come back elsewhere",
            metrics.connections_moved.clone(),
        );
        r.register("connections", "Client connections", metrics.connections.clone());
        r.register(
            "rollout_in_progress",
            "Whether a rollout is under way",
            metrics.rollout_in_progress.clone(),
        );
        r.register(
            "rollout_last_progress_timestamp_seconds",
            "When a rollout last replaced a pod",
            metrics.rollout_last_progress.clone(),
        );
        r.register(
            "condition",
            "1 for each condition of a cluster, by its status and reason",
            metrics.condition.clone(),
        );
        r.register(
            "eviction_requests",
            "Requests to evict a pod, by what was answered",
            metrics.evictions.clone(),
        );
        r.register("object_writes", "Objects written or deleted", metrics.writes.clone());
        r.register("leader", "Whether this process leads", metrics.leader.clone());
        r.register(
            "webhook_certificate_kept",
            "Whether this process, which leads, keeps a good certificate for the webhook of evictions",
            metrics.certificate_kept.clone(),
        );
        registry.register(
            "process_resident_memory_bytes",
            "Resident memory",
            metrics.memory.clone(),
        );
        registry.register("process_open_fds", "Open file descriptors", metrics.descriptors.clone());
        Self { registry, ..metrics }
    }

    /// Counts a reconcile.
    pub fn reconciled(&self, result: &'static str, took: Duration) {
        self.reconciles.get_or_create(&ResultLabels { result }).inc();
        self.reconcile_duration.observe(took.as_secs_f64());
    }

    /// Counts an object that was written or deleted.
    pub fn wrote(&self) {
        self.writes.inc();
    }

    /// Counts a request to evict a pod.
    pub fn eviction_requested(&self, decision: &'static str) {
        self.evictions.get_or_create(&DecisionLabels { decision }).inc();
    }

    /// Says whether this process leads.
    pub fn leading(&self, leads: bool) {
        self.leader.set(leads.into());
    }

    /// Counts the end of a drain, if `action` is one.
    pub fn acted(&self, action: &Action, observed: &Observed) {
        let (pod, outcome, at) = match action {
            Action::MarkDrained { pod, at } => (pod, "drained", *at),
            Action::StripAnnotations { pod } => (pod, "cancelled", Timestamp::now()),
            _ => return,
        };
        let state = observed.pods.iter().find(|state| state.uid == pod.uid);
        let Some((state, drain)) = state.and_then(|state| Some((state, state.drain.as_ref()?)))
        else {
            return;
        };
        if outcome == "cancelled" && drain.drained_at.is_some() {
            // It was counted when it had drained.
            return;
        }
        let moved = state.node.as_ref().map_or(0, |node| node.drain.moved);
        let outcome = if outcome == "drained" { in_time(drain, at) } else { outcome };
        self.ledger.counted(&pod.uid);
        self.drain_ended(drain, outcome, at, moved);
    }

    /// Takes over what nodes have shed since the last look, and counts the drains whose pods are gone
    /// although nobody let them go.
    pub fn looked(&self, cluster: &ClusterLabels, observed: &Observed, now: Timestamp) {
        let news = self.ledger.look(cluster, observed, now);
        self.connections_moved.inc_by(news.shed);
        for gone in news.gone {
            self.drain_ended(&gone.drain, gone.outcome, now, gone.moved);
        }
    }

    /// Counts the end of the drain of a pod that the cursor let go at `now`, unless it had drained
    /// and was counted then. Who is left on it is moved by its end.
    pub fn let_go(&self, state: &PodState, now: Timestamp) {
        let Some(drain) = state.drain.as_ref().filter(|drain| drain.drained_at.is_none()) else {
            return;
        };
        let outcome = if now >= drain.deadline { "timed_out" } else { "released" };
        self.ledger.counted(&state.uid);
        let before = state.node.as_ref().map_or(0, |node| node.drain.moved);
        self.drain_ended(drain, outcome, now, before + state.connections().unwrap_or(0));
    }

    fn drain_ended(
        &self,
        drain: &DrainCommitment,
        outcome: &'static str,
        at: Timestamp,
        moved: u64,
    ) {
        self.connections_moved.inc_by(moved);
        if outcome == "timed_out" {
            self.drain_timeouts.inc();
        }
        let reason = match drain.reason {
            sluice_crds::DrainReason::Rollout => "Rollout",
            sluice_crds::DrainReason::ScaleDown => "ScaleDown",
            sluice_crds::DrainReason::Eviction => "Eviction",
        };
        let took = at.duration_since(drain.started_at).as_secs_f64().max(0.0);
        self.drain_duration.get_or_create(&DrainLabels { reason, outcome }).observe(took);
    }

    /// Whether the webhook's certificate is good.
    pub fn kept_certificate(&self, good: bool) {
        self.certificate_kept.set(good.into());
    }

    /// Takes over what the report says.
    pub fn reported(&self, cluster: &ClusterLabels, status: &ChannelClusterStatus) {
        let set = |family: &Family<ClusterLabels, Gauge>, value: i64| {
            family.get_or_create(cluster).set(value);
        };
        let remaining = status.drains.iter().map(|drain| drain.remaining_connections).sum();
        set(&self.drain_active, i64::try_from(status.drains.len()).unwrap_or(i64::MAX));
        set(&self.drain_remaining, remaining);
        set(&self.connections, status.connections);
        set(&self.rollout_in_progress, status.rollout.is_some().into());
        let progress =
            status.rollout.as_ref().and_then(|rollout| rollout.last_progress_at.as_ref());
        if let Some(at) = progress {
            set(&self.rollout_last_progress, at.0.as_second());
        }
        let labels = |c: &Condition| ConditionLabels {
            namespace: cluster.namespace.clone(),
            name: cluster.name.clone(),
            r#type: c.type_.clone(),
            status: c.status.clone(),
            reason: c.reason.clone(),
        };
        self.hold(cluster, status.conditions.iter().map(labels).collect());
    }

    /// Tells these conditions of a cluster, and no other.
    fn hold(&self, cluster: &ClusterLabels, now: Vec<ConditionLabels>) {
        let mut all = self.conditions.lock();
        for labels in &now {
            self.condition.get_or_create(labels).set(1);
        }
        let before = match now.is_empty() {
            true => all.remove(cluster),
            false => all.insert(cluster.clone(), now.clone()),
        };
        for labels in before.unwrap_or_default().iter().filter(|labels| !now.contains(labels)) {
            self.condition.remove(labels);
        }
    }

    /// Drops the series of a cluster that is gone.
    pub fn forget(&self, cluster: &ClusterLabels) {
        self.ledger.forget(cluster);
        for family in [
            &self.drain_active,
            &self.drain_remaining,
            &self.connections,
            &self.rollout_in_progress,
            &self.rollout_last_progress,
        ] {
            family.remove(cluster);
        }
        self.hold(cluster, Vec::new());
    }

    /// Everything, as `/metrics` answers it.
    pub fn text(&self) -> Result<String, std::fmt::Error> {
        if let Some(bytes) = resident_bytes() {
            self.memory.set(bytes);
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            self.descriptors.set(i64::try_from(entries.count()).unwrap_or(i64::MAX));
        }
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// What became of a drain that was seen drained at `at`: past its deadline whoever was left was moved
/// at once.
fn in_time(drain: &DrainCommitment, at: Timestamp) -> &'static str {
    if at >= drain.deadline { "timed_out" } else { "drained" }
}

fn resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes.saturating_mul(1024))
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
