//! The admin API of a node (port 4002), as seen on the wire.
//!
//! `GET /healthz`, `GET /readyz` and `GET /metrics` are open. Everything else wants
//! `Authorization: Bearer <admin token>` and answers 401 without it:
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /status` | – | [`NodeStatus`] |
//! | `POST /drain` | [`DrainRequest`] | [`DrainStatus`]; idempotent, each call renews the TTL |
//! | `GET /drain` | – | [`DrainStatus`] |
//! | `DELETE /drain` | – | [`DrainStatus`], phase `None`: the node takes connections again |
//! | `POST /cordon` | [`CordonRequest`], or none: until `DELETE /cordon` | [`NodeStatus`]; idempotent, each call renews the TTL |
//! | `DELETE /cordon` | – | [`NodeStatus`]: the node takes connections again |
//! | `POST /shed` | [`ShedRequest`] | [`ShedResponse`] |

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How a drain treats the sockets that are still open once its initial delay is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum DrainMode {
    /// Close nothing: clients leave in their own time, until the deadline.
    Wait,
    /// Close `batchSize` sockets every `batchIntervalSeconds`.
    #[default]
    Batched,
    /// Close every socket at once when the initial delay is over.
    Immediate,
}

/// The body of `POST /drain`. A later call with other values changes the drain under way: its
/// start stays, what is left follows the new values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object that says how to drain"
)]
pub struct DrainRequest {
    /// How sockets are closed.
    pub mode: DrainMode,
    /// Seconds during which nothing is closed, so that balancers hear of the drain.
    pub initial_delay_seconds: f64,
    /// Seconds after the delay during which clients may leave in their own time.
    pub wait_seconds: f64,
    /// Sockets closed at a time, with mode `Batched`.
    pub batch_size: u32,
    /// Seconds between two batches, with mode `Batched`.
    pub batch_interval_seconds: f64,
    /// Seconds after which the drain is given up and the node serves again, unless another
    /// `POST /drain` arrives: a node whose operator is gone for good takes traffic again.
    pub ttl_seconds: f64,
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DrainPhase {
    /// Not draining.
    #[default]
    None,
    /// The initial delay: no new connection is taken, none is closed.
    Delay,
    /// Clients may leave in their own time.
    Waiting,
    /// Sockets are being closed with code 1012.
    Closing,
    /// No socket is left.
    Drained,
}

/// What `/drain` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    /// How far the drain is.
    pub phase: DrainPhase,
    /// When the drain began; absent with phase `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Channel sockets when it began.
    pub initial: u64,
    /// Channel sockets still open.
    pub remaining: u64,
    /// Sockets that this drain closed with code 1012.
    pub moved: u64,
}

/// The body of `POST /cordon`: refuse new connections with 503, and keep those there are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object that says how long to refuse new connections"
)]
pub struct CordonRequest {
    /// Seconds after which the node takes connections again, unless another `POST /cordon`
    /// arrives: so it does when its operator is gone for good.
    pub ttl_seconds: f64,
}

/// The body of `POST /shed`: close some sockets with code 1012, gently, and go on serving.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object that says how many sockets to close"
)]
pub struct ShedRequest {
    /// How many sockets to close.
    pub count: u32,
    /// At most this many a second.
    pub rate_per_second: u32,
    /// Seconds before the first, so that balancers hear that others take the clients.
    #[serde(default)]
    pub delay_seconds: f64,
}

/// What `POST /shed` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShedResponse {
    /// Sockets that will be closed: `count`, or all there are.
    pub shedding: u64,
}

/// Another node of the cluster, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerStatus {
    /// The peer's node name (a pod's name); empty until the first handshake.
    pub name: String,
    /// The peer's mesh address, `ip:port`.
    pub address: String,
    /// Our link to it is up: what is broadcast here is sent there.
    pub outbound: bool,
    /// Its link to us is up: what is broadcast there is delivered here.
    pub inbound: bool,
}

/// Why Redis is not connected: a closed set, since what Redis answers and the URL may hold secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum RedisFailure {
    /// The file can't be read, or holds no `redis://` URL.
    Url,
    /// The URL asks for TLS, which is not supported.
    Tls,
    /// Redis does not take the user or the password, or wants one.
    Authentication,
    /// The user may not do what the node needs.
    Permission,
    /// The URL's host has no address.
    Name,
    /// Nobody listens at the URL's port.
    Refused,
    /// No connection came about for another reason, or it broke.
    Unreachable,
    /// No answer came in time.
    Silent,
    /// Anything else, such as a Redis that is loading its data.
    #[serde(other)]
    Other,
}

impl RedisFailure {
    /// Whether it stays until somebody changes the URL, its Secret or the rights in Redis.
    pub fn needs_somebody(self) -> bool {
        matches!(self, Self::Url | Self::Tls | Self::Authentication | Self::Permission)
    }

    /// A sentence's end, such as after "chat-0: ".
    pub fn told(self) -> &'static str {
        match self {
            Self::Url => "the Secret's key holds no redis://[user:password@]host:port[/db]",
            Self::Tls => "the URL asks for TLS (rediss://), which is not supported: use redis://",
            Self::Authentication => "Redis does not take the URL's user or password",
            Self::Permission => "the URL's user lacks a right in Redis, see the ACLs in the docs",
            Self::Name => "the URL's host has no address",
            Self::Refused => "nobody listens at the URL's host and port",
            Self::Unreachable => "the URL's host can't be reached, or the connection broke",
            Self::Silent => "Redis does not answer in time",
            Self::Other => "Redis answered with an error: the node's log has its kind",
        }
    }
}

/// What `GET /status` answers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name (in Kubernetes, its pod's).
    pub node: String,
    /// The UID of its pod; empty outside Kubernetes.
    pub pod_uid: String,
    /// The version of the node's program.
    pub version: String,
    /// When the process began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// Channel sockets now open (not TCP connections).
    pub connections: u64,
    /// Connections that the node holds, long-poll sessions among them: `limits.maxConnections`, or
    /// fewer if the limit of open files leaves room for no more; 0 when it is not known.
    #[serde(default)]
    pub capacity: u64,
    /// Channels now joined, over all sockets.
    pub channels: u64,
    /// Whether new connections are refused with 503, a drain aside.
    pub cordoned: bool,
    /// Seconds until the cordon ends by itself; absent without one, and without a TTL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordon_seconds_left: Option<f64>,
    /// The drain, phase `None` when there is none.
    pub drain: DrainStatus,
    /// Sockets that the shed under way closes or has closed; 0 once its last clients have had the
    /// time to come back elsewhere.
    #[serde(default)]
    pub shedding: u64,
    /// Sockets that sheds have closed since the process began.
    #[serde(default)]
    pub shed: u64,
    /// The other nodes: with PubSub by mesh the links, by Redis empty.
    pub peers: Vec<PeerStatus>,
    /// Whether the Redis adapter is connected; absent with PubSub by mesh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_connected: Option<bool>,
    /// Why the last attempt to reach Redis failed; absent while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis_failure: Option<RedisFailure>,
    /// SHA-256, in hex, of the live configuration file that is in force.
    pub live_config_hash: String,
    /// Why the file that is there now is not in force; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub live_config_refused: String,
}
