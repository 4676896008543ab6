//! The parts of a `ChannelCluster`'s spec.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_node_api::config::{Adapter, Routing};

/// The Service that clients connect to.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.nodePort) || self.type != 'ClusterIP'")
        .message("service.nodePort needs service.type NodePort or LoadBalancer"),
    validation = Rule::new("!has(self.externalTrafficPolicy) || self.type != 'ClusterIP'")
        .message("service.externalTrafficPolicy needs service.type NodePort or LoadBalancer"),
    validation = Rule::new("!has(self.loadBalancerSourceRanges) || self.type == 'LoadBalancer'")
        .message("service.loadBalancerSourceRanges needs service.type LoadBalancer"),
    validation = Rule::new("!has(self.loadBalancerSourceRanges) || self.loadBalancerSourceRanges.all(range, isCIDR(range))")
        .message("service.loadBalancerSourceRanges must be ranges of addresses such as 192.0.2.0/24")
)]
pub struct Service {
    /// How the Service is reached. `ClusterIP`: from inside Kubernetes, or through an Ingress of
    /// your own. `NodePort`: at a port of every Kubernetes node. `LoadBalancer`: through a balancer
    /// that the cloud makes.
    #[serde(default, rename = "type")]
    pub type_: ServiceType,
    /// The port that clients connect to.
    #[serde(default = "defaults::service_port")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// The port on every Kubernetes node; chosen by Kubernetes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub node_port: Option<i32>,
    /// Annotations of the Service, such as those that tell a cloud what balancer to make.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub annotations: BTreeMap<String, String>,
    /// Whether a client's address keeps going to the same pod (`ClientIP`) or not (`None`).
    /// Neither WebSockets nor long-polling need it, and it makes load uneven.
    #[serde(default)]
    pub session_affinity: SessionAffinity,
    /// Whether traffic from outside may be passed on to another Kubernetes node (`Cluster`) or only
    /// reaches pods on the node where it arrived, with the client's address kept (`Local`).
    /// Default: Kubernetes' own, `Cluster`. With `Local` a deploy may move clients more than once, and
    /// those of a Kubernetes node without a pod reach nobody until their balancer knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_traffic_policy: Option<ExternalTrafficPolicy>,
    /// Ranges of addresses that may come through the balancer, such as `192.0.2.0/24`, where the
    /// cloud's balancer can tell. Absent: any, or what somebody has set in the Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64), inner(length(max = 64)))]
    pub load_balancer_source_ranges: Option<Vec<String>>,
}

/// How a Service is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// From inside the Kubernetes cluster.
    #[default]
    ClusterIP,
    /// At a port of every Kubernetes node.
    NodePort,
    /// Through a balancer that the cloud makes.
    LoadBalancer,
}

/// Whether a client's address keeps going to the same pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionAffinity {
    /// Each connection goes where it goes.
    #[default]
    None,
    /// Connections from one address go to one pod.
    ClientIP,
}

/// Whether traffic from outside may be passed on to another Kubernetes node (`Cluster`) or only
/// reaches pods on the node where it arrived, with the client's address kept (`Local`). Default:
/// Kubernetes' own, `Cluster`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ExternalTrafficPolicy {
    /// To any pod.
    Cluster,
    /// Only to pods on the Kubernetes node where it arrived.
    Local,
}

/// How much each node takes on.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.maxBuffered) || quantity(string(self.maxBuffered)).compareTo(quantity('16Mi')) >= 0")
        .message("limits.maxBuffered must be at least 16Mi: a single message may take half of it"),
    validation = Rule::new("!has(self.maxBuffered) || quantity(string(self.maxBuffered)).compareTo(quantity('1Ti')) <= 0")
        .message("limits.maxBuffered must be at most 1Ti: more would bound nothing")
)]
pub struct Limits {
    /// Connections that one pod holds; past that it answers 503 with `Retry-After`, and the client
    /// tries again, most likely at another pod. From four fifths of it on the condition
    /// `CapacityPressure` is True. Leave room for a deploy: while one of n pods drains, the others
    /// carry its clients too. Absent: as many as the limit of open files has room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_connections: Option<i32>,
    /// Memory of one pod that messages which wait for clients may take, and those that clients have
    /// begun to send, over all its clients, a quantity such as `128Mi`; past that the slowest clients
    /// miss broadcasts or are closed, by `slowConsumer` of the topic's rule, and those who have sent
    /// most are closed. A broadcast that many clients wait for counts about once.
    /// Absent: a quarter of the container's memory limit, `256Mi` without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_buffered: Option<Quantity>,
}

/// How nodes find each other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Discovery {
    /// The way to find them. `KubernetesDNS`: by the records of the cluster's headless Service.
    #[serde(default)]
    pub mode: DiscoveryMode,
    /// Seconds between two lookups. A lookup that fails changes nothing.
    #[serde(default = "defaults::discovery_interval")]
    #[schemars(range(min = 1, max = 300))]
    pub interval_seconds: i32,
}

/// A way for nodes to find each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DiscoveryMode {
    /// By the DNS records of the cluster's headless Service.
    #[default]
    KubernetesDNS,
}

/// How a broadcast reaches the other nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PubSub {
    /// What carries a broadcast. `Mesh`: links from each node to each other. `Redis`: the Redis
    /// that `redis` describes.
    #[serde(default)]
    pub adapter: Adapter,
    /// Settings of adapter `Mesh`.
    #[serde(default)]
    pub mesh: Mesh,
}

/// Settings of the links between nodes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("quantity(string(self.peerBuffer)).compareTo(quantity('64Ki')) >= 0")
        .message("pubsub.mesh.peerBuffer must be at least 64Ki: less would drop every broadcast of some size"),
    validation = Rule::new("quantity(string(self.peerBuffer)).compareTo(quantity('4Gi')) <= 0")
        .message("pubsub.mesh.peerBuffer must be at most 4Gi: it is there for each peer")
)]
pub struct Mesh {
    /// Which nodes a broadcast is sent to. `Interest`: those that have subscribers of its topic or keep
    /// its history, so that a node costs no more as others are added. `Broadcast`: all.
    #[serde(default)]
    pub routing: Routing,
    /// Bytes that may wait for one slow peer, a quantity such as `32Mi`; past that the oldest
    /// broadcasts for it are dropped and counted.
    #[serde(default = "defaults::peer_buffer")]
    pub peer_buffer: Quantity,
}

/// How a change of the pods is rolled out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// The budget of a rollout: how many pods come and go at a time.
    #[serde(default)]
    pub rolling_update: RollingUpdate,
    /// What happens when a new version of the operator would make the pods otherwise.
    /// `OnNextChange`: nothing until the spec changes, and condition `RequiresUpdate` says that it
    /// waits. `Automatic`: a rollout.
    #[serde(default)]
    pub operator_upgrade_policy: OperatorUpgradePolicy,
}

/// The budget of a rollout.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.maxSurge > 0 || self.maxUnavailable > 0")
        .message("maxSurge and maxUnavailable can't both be 0: nothing could ever be replaced")
)]
pub struct RollingUpdate {
    /// Pods above `replicas` during a rollout. With 1 or more, new pods come first and old ones
    /// leave after their clients have: every client is moved exactly once, onto a pod that stays.
    /// With 0, pods are replaced in place.
    #[serde(default = "defaults::one")]
    #[schemars(range(min = 0, max = 100))]
    pub max_surge: i32,
    /// Pods that may be missing or draining at a time when they are replaced in place.
    #[serde(default = "defaults::one")]
    #[schemars(range(min = 0, max = 100))]
    pub max_unavailable: i32,
    /// How many pods stay at the old revision: a canary. 0 rolls all of them.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub partition: i32,
}

/// What happens when a new operator would render the pods otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OperatorUpgradePolicy {
    /// Nothing, until the spec changes; condition `RequiresUpdate` says that it waits.
    #[default]
    OnNextChange,
    /// A rollout.
    Automatic,
}

/// How the cluster shrinks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScaleDown {
    /// Pods that drain at a time when `replicas` is lowered.
    #[serde(default = "defaults::one")]
    #[schemars(range(min = 1, max = 100))]
    pub max_concurrent_drains: i32,
}

/// How clients are spread again when some nodes have more of them than others: after a scale-up, or
/// a rollout.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// `Auto`: while nothing else is under way, nodes with too many clients move some to others,
    /// with code 1012. `Off`: clients stay where they are, as they always do with
    /// `service.sessionAffinity: ClientIP`.
    #[serde(default)]
    pub mode: RebalanceMode,
    /// Percent above the mean that a node may have. Two clients more than the mean are always
    /// fine.
    #[serde(default = "defaults::max_skew_percent")]
    #[schemars(range(min = 1, max = 100))]
    pub max_skew_percent: i32,
    /// Clients that each such node moves a second.
    #[serde(default = "defaults::rebalance_rate")]
    #[schemars(range(min = 1, max = 10_000))]
    pub rate_per_second: i32,
}

/// Whether clients are spread again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RebalanceMode {
    /// Nodes with too many clients move some to others.
    #[default]
    Auto,
    /// Clients stay where they are.
    Off,
}

/// How the cluster is protected against voluntary disruptions by others.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disruption {
    /// Whether there is a PodDisruptionBudget. `Auto`: one pod at a time, with two replicas or
    /// more. `Disabled`: none.
    #[serde(default)]
    pub pod_disruption_budget: PodDisruptionBudgetMode,
    /// What happens when a pod on a cordoned Kubernetes node is to be evicted, as `kubectl drain`
    /// does. `DrainFirst`: its clients are moved before it goes. `Ignore`: it goes at once, and
    /// drains while it terminates.
    #[serde(default)]
    pub eviction_policy: EvictionPolicy,
}

/// What happens when a pod on a cordoned Kubernetes node is to be evicted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EvictionPolicy {
    /// Its clients are moved before it goes.
    #[default]
    DrainFirst,
    /// It goes at once, and drains while it terminates.
    Ignore,
}

/// Whether there is a PodDisruptionBudget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodDisruptionBudgetMode {
    /// One pod at a time, with two replicas or more.
    #[default]
    Auto,
    /// None.
    Disabled,
}

macro_rules! default_from_empty {
    ($($t:ident { $($f:ident : $v:expr),* $(,)? })*) => {$(
        impl Default for $t {
            fn default() -> Self { Self { $($f: $v),* } }
        }
    )*};
}

default_from_empty! {
    Service {
        type_: ServiceType::default(), port: defaults::service_port(), node_port: None,
        annotations: BTreeMap::new(), session_affinity: SessionAffinity::default(),
        external_traffic_policy: None,
        load_balancer_source_ranges: None,
    }
    Discovery { mode: DiscoveryMode::default(), interval_seconds: defaults::discovery_interval() }
    PubSub { adapter: Adapter::default(), mesh: Mesh::default() }
    Mesh { routing: Routing::default(), peer_buffer: defaults::peer_buffer() }
    RollingUpdate { max_surge: 1, max_unavailable: 1, partition: 0 }
    ScaleDown { max_concurrent_drains: 1 }
    Rebalance {
        mode: RebalanceMode::default(), max_skew_percent: defaults::max_skew_percent(),
        rate_per_second: defaults::rebalance_rate(),
    }
}

pub(crate) mod defaults {
    use super::*;
    use sluice_node_api::config::ChannelRule;

    pub(crate) fn replicas() -> i32 {
        3
    }
    pub(crate) fn channels() -> Vec<ChannelRule> {
        vec![ChannelRule::room()]
    }
    pub(crate) fn min_ready_seconds() -> i32 {
        10
    }
    pub(crate) fn progress_deadline_seconds() -> i32 {
        600
    }
    pub(crate) fn service_port() -> i32 {
        80
    }
    pub(crate) fn discovery_interval() -> i32 {
        5
    }
    pub(crate) fn peer_buffer() -> Quantity {
        Quantity("32Mi".into())
    }
    pub(crate) fn one() -> i32 {
        1
    }
    pub(crate) fn max_skew_percent() -> i32 {
        10
    }
    pub(crate) fn rebalance_rate() -> i32 {
        50
    }
    pub(crate) fn initial_delay() -> i32 {
        10
    }
    pub(crate) fn drain_timeout() -> i32 {
        1800
    }
}
