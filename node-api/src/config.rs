//! The configuration files of a node, both YAML: [`NodeConfig`], read once at the start, and
//! [`LiveConfig`], read again whenever its content changes.
//!
//! Unknown keys are refused: a misspelt setting must not be silently ignored.

use serde::{Deserialize, Serialize};

use crate::auth::Auth;
pub use crate::history::HistoryRule;
pub use crate::live::{ChannelRule, DrainSettings, JoinRule, Limits, LiveConfig};
pub use crate::origin::{CheckOrigin, Origin};
pub use crate::presence::PresenceRule;
#[cfg(feature = "schema")]
use crate::schema::{ADDRESS, DNS_NAME, HOST, PATH, PEER};
pub use crate::slow::SlowConsumer;
use crate::webhooks::Webhooks;

/// Port of client connections, `/socket/websocket`.
pub const HTTP_PORT: u16 = 4000;
/// Port of the links between nodes.
pub const MESH_PORT: u16 = 4001;
/// Port of the admin API, probes and metrics.
pub const ADMIN_PORT: u16 = 4002;
/// Port of the HTTP publish API.
pub const PUBLISH_PORT: u16 = 4003;

/// What a node reads once, when it starts (`--config`, `SLUICE_CONFIG`). Every field has a default:
/// an empty file is a node that runs alone.
///
/// From the environment come what differs from pod to pod: `POD_NAME`, `POD_UID`, `POD_IP`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend(
    "if" = {
        "properties": {
            "discovery": {
                "anyOf": [
                    { "required": ["dns"], "properties": { "dns": { "type": "object" } } },
                    { "required": ["peers"], "properties": { "peers": { "minItems": 1 } } },
                ],
            },
            "pubsub": { "properties": { "adapter": { "const": "Mesh" } } },
        },
        "required": ["discovery"],
    },
    "then" = {
        "properties": {
            "tokens": {
                "required": ["meshFile"],
                "properties": { "meshFile": { "type": "string" } },
            },
        },
        "required": ["tokens"],
    },
)))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct NodeConfig {
    /// The cluster's name, `namespace/name` in Kubernetes. Nodes of another cluster are refused.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 255)))]
    pub cluster: String,
    /// Addresses to listen on.
    pub listen: Listen,
    /// Where the tokens are.
    pub tokens: Tokens,
    /// How the other nodes are found.
    pub discovery: Discovery,
    /// How a broadcast reaches the other nodes.
    pub pubsub: PubSub,
    /// The client-facing socket.
    pub socket: Socket,
    /// Who may connect.
    #[serde(skip_serializing_if = "Auth::is_open")]
    pub auth: Auth,
    /// The backend that is asked and told; absent: none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<Webhooks>,
    /// Path of the [`LiveConfig`]; absent: its defaults.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub live_file: Option<String>,
    /// Seconds that a SIGTERM waits for its drain at the most, before the process ends. 0: all are told
    /// to go elsewhere, and nobody's answer is waited for.
    #[cfg_attr(feature = "schema", schemars(range(max = 86_400)))]
    pub shutdown_seconds: u32,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            cluster: "local".into(),
            listen: Listen::default(),
            tokens: Tokens::default(),
            discovery: Discovery::default(),
            pubsub: PubSub::default(),
            socket: Socket::default(),
            auth: Auth::default(),
            webhooks: None,
            live_file: None,
            shutdown_seconds: 30,
        }
    }
}

/// Addresses to listen on, `ip:port`. `[::]` is all there are, of IPv4 too, and of IPv4 alone where the
/// system has no IPv6.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Listen {
    /// Clients.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = ADDRESS)))]
    pub http: String,
    /// Other nodes.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = ADDRESS)))]
    pub mesh: String,
    /// Admin API, probes, metrics.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = ADDRESS)))]
    pub admin: String,
    /// HTTP publish API.
    #[cfg_attr(feature = "schema", schemars(regex(pattern = ADDRESS)))]
    pub publish: String,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            http: format!("[::]:{HTTP_PORT}"),
            mesh: format!("[::]:{MESH_PORT}"),
            admin: format!("[::]:{ADMIN_PORT}"),
            publish: format!("[::]:{PUBLISH_PORT}"),
        }
    }
}

/// Paths of files that hold one token each, of at least 16 bytes. An API whose token is not configured
/// refuses every call that needs one; without a mesh token there is no mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Tokens {
    /// Token of the links between nodes. It signs long-poll sessions, too, with either adapter:
    /// without it no node serves those of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mesh_file: Option<String>,
    /// Token of the admin API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_file: Option<String>,
    /// Token of the publish API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub publish_file: Option<String>,
}

/// How the other nodes are found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Discovery {
    /// By the addresses of a DNS name, such as that of a headless Service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsDiscovery>,
    /// A fixed list of mesh addresses, `host:port`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 1024), inner(regex(pattern = PEER))))]
    pub peers: Vec<String>,
}

/// Discovery by the A and AAAA records of a name. A lookup that fails keeps the last view.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsDiscovery {
    /// The name, such as `chat-headless.default.svc.cluster.local`.
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 253), regex(pattern = DNS_NAME)))]
    pub name: String,
    /// The mesh port of every node.
    #[serde(default = "mesh_port")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub port: u16,
    /// Seconds between two lookups.
    #[serde(default = "five")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 3600)))]
    pub interval_seconds: u32,
}

fn mesh_port() -> u16 {
    MESH_PORT
}
fn five() -> u32 {
    5
}

/// Which adapter carries a broadcast to the other nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Adapter {
    /// Straight from node to node.
    #[default]
    Mesh,
    /// Through Redis, subscribed by topic.
    Redis,
}

/// Which nodes the mesh sends a broadcast to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Routing {
    /// Those that have subscribers of the topic, or keep its history.
    #[default]
    Interest,
    /// All.
    Broadcast,
}

impl Routing {
    fn is_interest(&self) -> bool {
        *self == Self::Interest
    }
}

/// How a broadcast reaches the other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend(
    "if" = { "properties": { "adapter": { "const": "Redis" } }, "required": ["adapter"] },
    "then" = { "required": ["redis"], "properties": { "redis": { "type": "object" } } },
)))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PubSub {
    /// The adapter.
    pub adapter: Adapter,
    /// Which nodes the mesh sends a broadcast to: with `Interest` those that have subscribers of the
    /// topic or keep its history, with `Broadcast` all. Nodes of both settings get along.
    #[serde(skip_serializing_if = "Routing::is_interest")]
    pub routing: Routing,
    /// Bytes that may wait for one slow peer, or for Redis; past that the oldest are dropped and counted.
    #[cfg_attr(feature = "schema", schemars(range(min = 65_536, max = 4_294_967_296_u64)))]
    pub peer_buffer_bytes: u64,
    /// Needed with adapter `Redis`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis: Option<RedisPubSub>,
}

impl Default for PubSub {
    fn default() -> Self {
        Self {
            adapter: Adapter::Mesh,
            routing: Routing::Interest,
            peer_buffer_bytes: 32 << 20,
            redis: None,
        }
    }
}

/// The Redis of the `Redis` adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RedisPubSub {
    /// Path of a file with the URL, `redis://[user:password@]host:port[/db]`. TLS (`rediss://`) is not
    /// supported.
    pub url_file: String,
}

/// The client-facing socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend(
    "if" = { "properties": { "checkOrigin": { "const": true } }, "required": ["checkOrigin"] },
    "then" = { "required": ["host"], "properties": { "host": { "type": "string" } } },
)))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Socket {
    /// Mount path; WebSockets connect to `<path>/websocket` (`P-CON-1`).
    #[cfg_attr(feature = "schema", schemars(regex(pattern = PATH)))]
    pub path: String,
    /// Seconds without an inbound frame after which a socket is closed (`P-HB-2`).
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub idle_timeout_seconds: u32,
    /// Largest message, in bytes; a larger one closes the socket with 1009 (`P-CON-12`).
    #[cfg_attr(feature = "schema", schemars(range(min = 1024, max = 16_000_000)))]
    pub max_frame_bytes: u64,
    /// Channels a socket may join (`P-CON-11`).
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_channels: u32,
    /// Joins that a socket may ask for in a second, a second's worth at once; more are answered with an
    /// error. Absent: as many as `maxChannels`, 100 at the least, so that a client that comes back can
    /// join all again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100_000)))]
    pub max_joins_per_second: Option<u32>,
    /// Messages of any kind that a socket may send in a second, a second's worth at once; more are
    /// answered with an error. Heartbeats and leaves find room for as many again. Absent: 20000, which
    /// no honest client meets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100_000)))]
    pub max_messages_per_second: Option<u32>,
    /// Connections taken a second; past that 503 with `Retry-After`.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub max_connects_per_second: u32,
    /// Whether clients may connect by HTTP requests that wait, at `<path>/longpoll`, as phoenix.js
    /// does when a WebSocket can't be opened (`P-LP-2`).
    #[serde(skip_serializing_if = "is_true")]
    pub longpoll: bool,
    /// Which pages may open a socket (`P-CON-5`).
    #[serde(skip_serializing_if = "CheckOrigin::is_off")]
    pub check_origin: CheckOrigin,
    /// The host that clients know; `checkOrigin: true` compares with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(regex(pattern = HOST)))]
    pub host: Option<String>,
}

impl Default for Socket {
    fn default() -> Self {
        Self {
            path: "/socket".into(),
            idle_timeout_seconds: 60,
            max_frame_bytes: 8_000_000,
            max_channels: 100,
            max_joins_per_second: None,
            max_messages_per_second: None,
            max_connects_per_second: 10_000,
            longpoll: true,
            check_origin: CheckOrigin::Off,
            host: None,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_true(value: &bool) -> bool {
    *value
}
