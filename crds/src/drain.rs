//! `spec.drain`: how clients leave a node that is about to go. What a node does with it is the
//! node's.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_node_api::admin::DrainMode;

use crate::spec::defaults;

/// How clients leave a node that is about to go.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode == 'Batched' || (!has(self.batchSize) && !has(self.batchIntervalSeconds))")
        .message("drain.batchSize and drain.batchIntervalSeconds go with drain.mode Batched: leave them out with Wait and Immediate"),
    validation = Rule::new("self.mode != 'Immediate' || self.waitSeconds == 0")
        .message("drain.waitSeconds is no time to wait with drain.mode Immediate: take Batched, or leave it out"),
    validation = Rule::new("self.timeoutSeconds >= self.initialDelaySeconds + self.waitSeconds")
        .message("drain.timeoutSeconds must be at least initialDelaySeconds + waitSeconds: raise it")
)]
pub struct Drain {
    /// How clients are asked to go, once the delay is over. `Wait`: they are not, they leave in
    /// their own time. `Batched`: closed with code 1012 in paced batches. `Immediate`: all at once.
    #[serde(default)]
    pub mode: DrainMode,
    /// Seconds before anything is closed. The pod takes nobody new from the first of them on;
    /// balancers need a moment to hear of it.
    #[serde(default = "defaults::initial_delay")]
    #[schemars(range(min = 0, max = 3600))]
    pub initial_delay_seconds: i32,
    /// Seconds after the delay during which clients may leave in their own time, with mode
    /// `Batched`. With `Wait` that lasts until the timeout anyway.
    #[serde(default)]
    #[schemars(range(min = 0, max = 86400))]
    pub wait_seconds: i32,
    /// Sockets moved at a time, with mode `Batched`. Default 500.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub batch_size: Option<i32>,
    /// Seconds between two batches, with mode `Batched`. Default 5.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 3600))]
    pub batch_interval_seconds: Option<i32>,
    /// Seconds after which the drain is over, whoever is left.
    #[serde(default = "defaults::drain_timeout")]
    #[schemars(range(min = 1, max = 604_800))]
    pub timeout_seconds: i32,
    /// A node with at most this many connections counts as drained.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub exit_at_connections: i32,
    /// What happens to a pod that still has connections when the time is over. `Terminate`: it
    /// goes. `Hold`: it stays until somebody annotates it `sluice.dev/drain: release` or `cancel`.
    #[serde(default)]
    pub timeout_policy: TimeoutPolicy,
}

impl Drain {
    /// Sockets moved at a time.
    pub fn batch_size(&self) -> u32 {
        self.batch_size.map_or(500, |n| n.max(1) as u32)
    }
    /// Seconds between two batches.
    pub fn batch_interval_seconds(&self) -> u32 {
        self.batch_interval_seconds.map_or(5, |n| n.max(1) as u32)
    }
}

/// What happens to a pod that still has connections when its drain's time is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TimeoutPolicy {
    /// It goes.
    #[default]
    Terminate,
    /// It stays until somebody annotates it `sluice.dev/drain: release` or `cancel`.
    Hold,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            mode: DrainMode::default(),
            initial_delay_seconds: defaults::initial_delay(),
            wait_seconds: 0,
            batch_size: None,
            batch_interval_seconds: None,
            timeout_seconds: defaults::drain_timeout(),
            exit_at_connections: 0,
            timeout_policy: TimeoutPolicy::default(),
        }
    }
}
