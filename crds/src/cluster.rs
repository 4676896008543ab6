//! The kind itself: spec, printer columns, scale subresource.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{
    Auth, ChannelClusterStatus, Disruption, Drain, PodTemplate, PubSub, Rebalance, Redis,
    ScaleDown, Service, Socket, UpdateStrategy, Webhooks, spec::*,
};
use sluice_node_api::config::ChannelRule;

/// What a cluster of realtime nodes should be.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "ChannelCluster",
    plural = "channelclusters",
    shortname = "chc",
    category = "all",
    category = "sluice",
    namespaced,
    status = "ChannelClusterStatus",
    derive = "PartialEq",
    doc = "A cluster of realtime nodes that speak the Phoenix Channels protocol.",
    validation = Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("metadata.name: at most 40 of a-z, 0-9 and '-', a letter first: Services and pods are named after it"),
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(name = "Desired", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Ready", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Updated", type_ = "integer", json_path = ".status.updatedReplicas"),
    printcolumn(name = "Draining", type_ = "integer", json_path = ".status.drainingReplicas"),
    printcolumn(name = "Connections", type_ = "integer", json_path = ".status.connections"),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason"
    ),
    printcolumn(name = "Image", type_ = "string", json_path = ".status.image", priority = 1),
    printcolumn(
        name = "Revision",
        type_ = "string",
        json_path = ".status.updateRevision",
        priority = 1
    ),
    printcolumn(
        name = "Remaining",
        type_ = "integer",
        json_path = ".status.drainingConnections",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.pubsub.adapter != 'Redis' || self.redis.mode != 'Disabled'")
        .message("pubsub.adapter Redis needs a Redis: set redis.mode to Managed or External"),
    validation = Rule::new("(!has(self.image) || self.image.matches('^[!-~]*$')) && (!has(self.redis.managed) || !has(self.redis.managed.image) || self.redis.managed.image.matches('^[!-~]*$'))")
        .message("image must be an image's reference, such as registry.example.com/chat:1, without blanks"),
    validation = Rule::new("self.progressDeadlineSeconds > self.minReadySeconds")
        .message("progressDeadlineSeconds must be more than minReadySeconds: every deploy would be late"),
    validation = Rule::new("self.channels.all(c, c.topic.matches('^[^*]*[*]?$'))")
        .message("channels: a topic may have one '*', at its end: `room:*`, not `room:*:chat`"),
    validation = Rule::new("has(self.auth.jwt) || (has(self.webhooks) && has(self.webhooks.connect) && self.webhooks.connect) || !self.channels.exists(c, has(c.join))")
        .message("channels: join needs auth.jwt, or webhooks.connect whose answers give claims: a client without claims could join nothing"),
    validation = Rule::new("has(self.webhooks) || !self.channels.exists(c, has(c.webhooks))")
        .message("channels: webhooks needs spec.webhooks: without it there is no backend to call"),
    // Not a list of type `map`, which keeps keys apart too: the order counts, so that a list is
    // applied as a whole.
    validation = Rule::new("self.channels.all(c, self.channels.exists_one(d, d.topic == c.topic))")
        .message("channels: each topic may have one rule only, since the first that matches counts")
)]
pub struct ChannelClusterSpec {
    /// How many nodes take clients. Scaled by `kubectl scale`, HPA and KEDA.
    #[serde(default = "defaults::replicas")]
    #[schemars(range(min = 0, max = 1000))]
    pub replicas: i32,
    /// The node's image. Default: the node image of the operator's release.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 512))]
    pub image: String,
    /// Labels, resources, scheduling and environment of the nodes' pods. A change is a deploy.
    #[serde(default)]
    pub pod_template: PodTemplate,
    /// The Service that clients connect to.
    #[serde(default)]
    pub service: Service,
    /// How nodes find each other.
    #[serde(default)]
    pub discovery: Discovery,
    /// How a broadcast reaches the other nodes.
    #[serde(default)]
    pub pubsub: PubSub,
    /// The Redis that `pubsub.adapter: Redis` uses.
    #[serde(default)]
    pub redis: Redis,
    /// What holds for each socket of a client. A change is a deploy.
    #[serde(default)]
    pub socket: Socket,
    /// Who may connect. A change is a deploy.
    #[serde(default)]
    pub auth: Auth,
    /// The backend that the nodes ask and tell over HTTP. Default: none. A change is a deploy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<Webhooks>,
    /// Rules of the stock node, by topic; the first that matches a topic counts. A change is
    /// loaded by running nodes, nothing is restarted.
    #[serde(default = "defaults::channels")]
    #[schemars(length(min = 1, max = 128))]
    pub channels: Vec<ChannelRule>,
    /// How much each node takes on. A change is loaded by running nodes, nothing is restarted.
    #[serde(default)]
    pub limits: Limits,
    /// Seconds that a pod must be Ready before it counts as available.
    #[serde(default = "defaults::min_ready_seconds")]
    #[schemars(range(min = 0, max = 3600))]
    pub min_ready_seconds: i32,
    /// Whether to begin no rollout, scale-down or drain, and to undo a drain under way.
    #[serde(default)]
    pub paused: bool,
    /// Seconds without progress after which a rollout counts as stalled. Paused and draining time
    /// does not count.
    #[serde(default = "defaults::progress_deadline_seconds")]
    #[schemars(range(min = 1, max = 86400))]
    pub progress_deadline_seconds: i32,
    /// How a change of the pods is rolled out.
    #[serde(default)]
    pub update_strategy: UpdateStrategy,
    /// How clients leave a node that is about to go.
    #[serde(default)]
    pub drain: Drain,
    /// How the cluster shrinks.
    #[serde(default)]
    pub scale_down: ScaleDown,
    /// How clients are spread again when some nodes have more of them than others.
    #[serde(default)]
    pub rebalance: Rebalance,
    /// How the cluster is protected against voluntary disruptions by others.
    #[serde(default)]
    pub disruption: Disruption,
}
