//! What the operator reports. No decision reads it back: each reconcile rebuilds it from pods,
//! StatefulSet and nodes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator reports of a cluster.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelClusterStatus {
    /// The generation of the spec that this report is about; -1 before there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Pods there are, a surge pod included.
    #[serde(default)]
    pub replicas: i32,
    /// Pods that are Ready.
    #[serde(default)]
    pub ready_replicas: i32,
    /// Pods Ready for `minReadySeconds`.
    #[serde(default)]
    pub available_replicas: i32,
    /// Pods at the wanted revision.
    #[serde(default)]
    pub updated_replicas: i32,
    /// Pods that drain.
    #[serde(default)]
    pub draining_replicas: i32,
    /// Client connections left on the pods that drain, when last asked.
    #[serde(default)]
    pub draining_connections: i64,
    /// Client connections over all pods, when last asked.
    #[serde(default)]
    pub connections: i64,
    /// The revision that pods roll from.
    #[serde(default)]
    pub current_revision: String,
    /// The revision that pods roll to.
    #[serde(default)]
    pub update_revision: String,
    /// The image of the wanted revision.
    #[serde(default)]
    pub image: String,
    /// Label selector of the pods, for the scale subresource.
    #[serde(default)]
    pub selector: String,
    /// The rollout under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout: Option<Rollout>,
    /// The drains under way, one a pod.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["podName".into()]))]
    #[serde(default)]
    pub drains: Vec<DrainReport>,
    /// What holds of the cluster, by type. `Ready` is the one to wait for.
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// The rollout under way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Rollout {
    /// The revision it rolls to.
    pub target_revision: String,
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When a pod was last replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_at: Option<Time>,
    /// The pod that is being replaced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_pod: Option<String>,
    /// Connections that its drains have moved up to now.
    #[serde(default)]
    pub moved_connections: i64,
}

/// One drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainReport {
    /// The pod's name.
    pub pod_name: String,
    /// The pod's UID.
    #[serde(rename = "podUID")]
    pub pod_uid: String,
    /// Why it drains. `Rollout`: another revision takes its place. `ScaleDown`: the cluster shrinks.
    /// `Eviction`: its Kubernetes node is being emptied.
    pub reason: DrainReason,
    /// How far it is. `Selected`: committed, the node not told yet. `Delay`: the initial delay.
    /// `Waiting`: clients leave in their own time. `Closing`: clients are being moved. `Held`: the
    /// time is over and the policy is `Hold`. `Drained`: done. `Releasing`: the pod is going.
    /// `Cancelling`: no longer wanted, being undone.
    pub phase: DrainReportPhase,
    /// When it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it is over at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Time>,
    /// Connections when it began.
    #[serde(default)]
    pub initial_connections: i64,
    /// Connections left.
    #[serde(default)]
    pub remaining_connections: i64,
}

/// Why a pod drains.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DrainReason {
    /// Another revision takes its place.
    Rollout,
    /// The cluster shrinks.
    ScaleDown,
    /// Somebody wants it away from its Kubernetes node, which is cordoned.
    Eviction,
}

/// How far a drain is, as the operator sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DrainReportPhase {
    /// Committed, the node not told yet.
    Selected,
    /// The initial delay.
    Delay,
    /// Clients leave in their own time.
    Waiting,
    /// Clients are being moved.
    Closing,
    /// The time is over and the policy is `Hold`.
    Held,
    /// Done; the pod may go.
    Drained,
    /// The pod is going.
    Releasing,
    /// No longer wanted; being undone.
    Cancelling,
}

/// Condition types of a `ChannelCluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ConditionType {
    /// Everything that the spec asks for is there and serving; the one thing to wait for.
    Ready,
    /// The cluster can't get on by itself (abnormal when true).
    Stalled,
    /// Enough pods take clients.
    Available,
    /// A rollout or a change of size is under way.
    Progressing,
    /// A pod drains.
    Draining,
    /// `spec.paused` is set.
    Paused,
    /// A new operator would render the pods otherwise and waits for the next change.
    RequiresUpdate,
    /// Every ready node is linked with every other, in both directions.
    ClusterFormed,
    /// A pod has nearly as many connections as it holds (abnormal when true).
    CapacityPressure,
    /// The Redis is reached by every ready node.
    RedisReady,
}

/// Why a condition holds: one closed set, the same in conditions and in the metric of them. What stays
/// in the way is told by the same word in an event and its log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// Every pod is at the wanted revision and ready.
    AllReplicasUpdated,
    /// Pods are being replaced.
    RolloutInProgress,
    /// A drain is under way.
    WaitingForDrain,
    /// A pod is not ready yet.
    WaitingForPodReady,
    /// Nodes are not linked with each other yet.
    WaitingForLinks,
    /// The cluster grows.
    ScalingUp,
    /// The cluster shrinks.
    ScalingDown,
    /// The canary stands: `partition` pods stay at the old revision.
    PartitionReached,
    /// `spec.paused` is set.
    RolloutPaused,
    /// No progress for `progressDeadlineSeconds`.
    ProgressDeadlineExceeded,
    /// A pod is held after its drain's time was over.
    DrainHeld,
    /// A node's admin API does not answer.
    DrainEndpointUnreachable,
    /// A pod can't start.
    PodStuck,
    /// A Kubernetes node is not ready.
    NodeUnreachable,
    /// A node has not loaded the live settings yet.
    WaitingForSettings,
    /// Redis is not reached.
    RedisUnavailable,
    /// A pod has four fifths of the connections that it holds, or more.
    NearCapacity,
    /// The spec can't be carried out.
    InvalidSpec,
    /// Another field manager is in the way.
    ApplyConflict,
    /// What the condition asks for holds.
    AsExpected,
}
