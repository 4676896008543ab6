//! Names, labels, annotations and ports of what the operator makes for a cluster.

pub use sluice_node_api::config::{ADMIN_PORT, HTTP_PORT, MESH_PORT, PUBLISH_PORT};

/// The API group, and the prefix of labels and annotations.
pub const GROUP: &str = "sluice.dev";
/// Label with the cluster's name, on everything made for it. Part of the selectors.
pub const CLUSTER_LABEL: &str = "sluice.dev/cluster";
/// Label with the role of an object in its cluster: [`COMPONENT_NODE`] or [`COMPONENT_REDIS`].
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
/// The component of channel nodes.
pub const COMPONENT_NODE: &str = "node";
/// The component of a managed Redis.
pub const COMPONENT_REDIS: &str = "redis";
/// Label `"true"` on pods that take new connections: the client Service selects it. Patched on
/// pods by the operator; no part of the StatefulSet's selector.
pub const ACCEPTING_LABEL: &str = "sluice.dev/accepting";
/// On a pod with [`ACCEPTING_LABEL`]: since when, RFC 3339, as balancers take a moment to hear of it.
pub const ACCEPTING_SINCE: &str = "sluice.dev/accepting-since";

/// Why a pod drains, one of [`crate::DrainReason`]. Written before anything else is done, it is
/// the drain's place in the budget.
pub const DRAIN_REASON: &str = "sluice.dev/drain-reason";
/// When a drain was decided, RFC 3339.
pub const DRAIN_STARTED_AT: &str = "sluice.dev/drain-started-at";
/// When a drain is over at the latest, RFC 3339, absolute.
pub const DRAIN_DEADLINE: &str = "sluice.dev/drain-deadline";
/// The revision that the drain makes way for; empty when none takes its place.
pub const DRAIN_TARGET: &str = "sluice.dev/drain-target";
/// When the pod was seen drained, RFC 3339.
pub const DRAINED_AT: &str = "sluice.dev/drained-at";
/// Connections when the drain began.
pub const DRAIN_INITIAL: &str = "sluice.dev/drain-initial-connections";
/// Set by a person on a held pod: `release` or `cancel`.
pub const DRAIN_OVERRIDE: &str = "sluice.dev/drain";
/// On a pod: when somebody last asked to evict it from a cordoned Kubernetes node, RFC 3339.
pub const EVICTION_REQUESTED_AT: &str = "sluice.dev/eviction-requested-at";
/// On a StatefulSet: hash of the spec it was rendered from. Same spec, other rendering: an
/// operator upgrade, which rolls nothing by itself.
pub const SPEC_HASH: &str = "sluice.dev/spec-hash";
/// On a StatefulSet: hash of the pod template that was rendered.
pub const TEMPLATE_HASH: &str = "sluice.dev/template-hash";
/// On a StatefulSet: when its template was last changed, RFC 3339.
pub const ROLLOUT_STARTED_AT: &str = "sluice.dev/rollout-started-at";
/// On a pod: hash of the live settings, patched so that the kubelet refreshes the mounted file.
pub const LIVE_CONFIG_HASH: &str = "sluice.dev/live-config-hash";
/// On the pod of a managed Redis: a digest of the password file that it started with.
pub const REDIS_AUTH_HASH: &str = "sluice.dev/redis-auth-hash";
/// On a pod: version of the Secret with the tokens, patched when its node does not take the
/// operator's, so that the kubelet refreshes the mounted files.
pub const TOKENS_VERSION: &str = "sluice.dev/tokens-version";

/// The field manager of every server-side apply.
pub const FIELD_MANAGER: &str = "sluice-operator";
/// The name of the node's container in a pod.
pub const NODE_CONTAINER: &str = "node";

/// Name of the headless Service of cluster `cluster`.
pub fn headless_service(cluster: &str) -> String {
    format!("{cluster}-headless")
}
/// Name of the Service that backends publish to in cluster `cluster`.
pub fn publish_service(cluster: &str) -> String {
    format!("{cluster}-publish")
}
/// Name of the Secret with the tokens of cluster `cluster`: keys [`MESH_TOKEN`], [`ADMIN_TOKEN`],
/// [`PUBLISH_TOKEN`].
pub fn tokens_secret(cluster: &str) -> String {
    format!("{cluster}-cluster")
}
/// Name of the managed Redis of cluster `cluster`: StatefulSet, Service and Secret.
pub fn redis(cluster: &str) -> String {
    format!("{cluster}-redis")
}
/// Secret key of the mesh token.
pub const MESH_TOKEN: &str = "mesh-token";
/// Secret key of the admin token.
pub const ADMIN_TOKEN: &str = "admin-token";
/// Secret key of the publish token.
pub const PUBLISH_TOKEN: &str = "publish-token";
