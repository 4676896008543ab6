//! What a node reads again whenever it changes, [`LiveConfig`]: topic rules, the drain, limits.

use serde::{Deserialize, Serialize};

use crate::admin::DrainMode;
use crate::history::HistoryRule;
use crate::presence::PresenceRule;
use crate::slow::SlowConsumer;
use crate::webhooks::RuleWebhooks;

/// What a node reads again whenever it changes: nothing in it needs a restart. A file that is
/// invalid after a change is reported and the last valid one stays in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LiveConfig {
    /// Topic rules; the first that matches a topic counts (`P-JOIN-1`).
    #[cfg_attr(feature = "schema", schemars(length(max = 256)))]
    pub channels: Vec<ChannelRule>,
    /// The drain that a SIGTERM starts.
    pub drain: DrainSettings,
    /// How much the node takes on.
    #[serde(skip_serializing_if = "Limits::is_default")]
    pub limits: Limits,
}

impl Default for LiveConfig {
    fn default() -> Self {
        Self {
            channels: vec![ChannelRule::room()],
            drain: DrainSettings::default(),
            limits: Limits::default(),
        }
    }
}

/// How much a node takes on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Connections held at a time; past that 503 with `Retry-After`. 0: as many as the
    /// limit of open files has room for. A lower limit than there are connections closes none.
    pub max_connections: u32,
    /// Bytes of memory that messages which wait for clients may take, and those that clients have begun
    /// to send, over all clients; past that the slowest clients miss broadcasts or are closed, by
    /// `slowConsumer`, and those who have sent most are closed. Absent: a quarter of the
    /// memory that the container may have, 256 MiB if that has no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64)))]
    pub max_buffered_bytes: Option<u64>,
}

impl Limits {
    /// Whether all is as without a file.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How topics of one pattern behave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
// Lengths in a schema count characters, those of a node count bytes.
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "bytes(self.topic).size() <= 255",
        "message": "channels: a topic may have at most 255 bytes in UTF-8",
    },
    {
        "rule": "self.topic != 'phoenix'",
        "message": "channels: topic `phoenix` is reserved for heartbeats",
    },
    {
        "rule": "self.events.all(e, bytes(e).size() <= 255)",
        "message": "channels: an event may have at most 255 bytes in UTF-8",
    },
    {
        "rule": "!self.events.exists(e, e.startsWith('phx_'))",
        "message": "channels: events `phx_*` are reserved for the protocol: give yours another name",
    },
    {
        "rule": "!('disconnect' in self.events)",
        "message": "channels: event `disconnect` closes sockets and is never relayed: give yours another name",
    },
])))]
#[cfg_attr(feature = "schema", schemars(extend("x-file" = {
    "properties": {
        "topic": { "pattern": r"^[^*]*\*?$", "not": { "const": "phoenix" } },
        "events": { "uniqueItems": true, "items": { "not": { "pattern": "^(phx_|disconnect$)" } } },
    },
})))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelRule {
    /// A topic (`lobby`), or a prefix with one trailing `*` (`room:*`).
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 255)))]
    pub topic: String,
    /// Client events that are broadcast to the topic; `*` stands for any, and of `[]` there is none.
    /// Another event is answered with an error.
    #[serde(default = "any_event")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(max = 64),
            inner(length(min = 1, max = 255)),
            extend("x-kubernetes-list-type" = "set")
        )
    )]
    pub events: Vec<String>,
    /// Whether the client that pushed an event receives its broadcast too.
    #[serde(default = "yes")]
    pub include_sender: bool,
    /// Largest payload of a client's event, and of a join that `presence` or `webhooks` read, in bytes
    /// of JSON; a larger one is answered with an error.
    #[serde(default = "payload_limit")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 8_000_000)))]
    pub max_payload_bytes: u32,
    /// Who may join; absent: everybody that is connected. Needs clients with claims, by a token
    /// (`auth.jwt` of the node) or from a backend (`webhooks.connect`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<JoinRule>,
    /// Messages that a client may push on one channel in a second, a second's worth at once, however
    /// often it joins; more are answered with an error. Absent: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 100_000)))]
    pub max_messages_per_second: Option<u32>,
    /// Who is on a topic, told to all on it; absent: nobody is. Clients follow it with `Presence` of
    /// phoenix.js.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence: Option<PresenceRule>,
    /// What a backend is asked about, and told, of these topics; absent: nothing. Needs a backend
    /// (`webhooks` of the node).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhooks: Option<RuleWebhooks>,
    /// What a client that joins is told of the time before; absent: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<HistoryRule>,
    /// What becomes of a client that takes broadcasts too slowly.
    #[serde(default, skip_serializing_if = "SlowConsumer::is_default")]
    pub slow_consumer: SlowConsumer,
    /// Whether the reply to a join names the node: `{"node": "chat-0"}`. Meant for examples and
    /// for finding faults.
    #[serde(default)]
    pub announce_node: bool,
}

impl ChannelRule {
    /// `room:*`, every event, to everyone: the rule of a node that nobody configured.
    pub fn room() -> Self {
        Self {
            topic: "room:*".into(),
            events: any_event(),
            include_sender: true,
            max_payload_bytes: payload_limit(),
            join: None,
            max_messages_per_second: None,
            presence: None,
            webhooks: None,
            history: None,
            slow_consumer: SlowConsumer::Disconnect,
            announce_node: false,
        }
    }
}

/// Who may join the topics of a rule, by the claims of the client's token: whom any of these lets in.
/// Another join is answered with `{"reason": "unauthorized"}`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "has(self.claim) || has(self.topics)",
        "message": "channels: join needs a claim or topics: without both nobody could join",
    },
    {
        "rule": "!has(self.topics) || self.topics.all(t, t.matches('^[^{}*]*([{][^{}*]+[}][^{}*]*)*[*]?$'))",
        "message": "channels: in join.topics a claim is named between braces, `user:{sub}`, and '*' is at the end",
    },
    {
        "rule": "!has(self.claim) || bytes(self.claim).size() <= 255",
        "message": "channels: join.claim may have 255 bytes",
    },
    {
        "rule": "!has(self.topics) || self.topics.all(t, bytes(t).size() <= 255)",
        "message": "channels: each of join.topics may have 255 bytes",
    },
])))]
#[cfg_attr(feature = "schema", schemars(extend("x-file" = {
    "anyOf": [
        { "required": ["claim"], "properties": { "claim": { "type": "string" } } },
        { "required": ["topics"], "properties": { "topics": { "minItems": 1 } } },
    ],
    "properties": {
        "topics": {
            "minItems": 0,
            "items": { "pattern": r"^[^{}*]*(\{[^{}*]+\}[^{}*]*)*\*?$" },
        },
    },
})))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JoinRule {
    /// The claim that lists what the bearer may join: topics, or prefixes with one trailing `*`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 255)))]
    pub claim: Option<String>,
    /// What every bearer may join: `user:{sub}`, where `{sub}` stands for that claim; `*` at the end
    /// makes it a prefix.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(length(min = 1, max = 16), inner(length(min = 1, max = 255)))
    )]
    pub topics: Vec<String>,
}

fn any_event() -> Vec<String> {
    vec!["*".into()]
}
fn yes() -> bool {
    true
}
fn payload_limit() -> u32 {
    65_536
}

/// The pace of a drain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct DrainSettings {
    /// How sockets are closed.
    pub mode: DrainMode,
    /// Seconds during which nothing is closed.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 86_400)))]
    pub initial_delay_seconds: f64,
    /// Seconds after the delay during which clients may leave in their own time.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 86_400)))]
    pub wait_seconds: f64,
    /// Sockets closed at a time.
    #[cfg_attr(feature = "schema", schemars(range(min = 1)))]
    pub batch_size: u32,
    /// Seconds between two batches.
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 86_400)))]
    pub batch_interval_seconds: f64,
    /// Seconds after which the sockets that are left are closed together; absent: when
    /// `shutdownSeconds` are over, which count in any case.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(range(min = 0, max = 86_400)))]
    pub timeout_seconds: Option<f64>,
}

impl Default for DrainSettings {
    fn default() -> Self {
        Self {
            mode: DrainMode::Batched,
            initial_delay_seconds: 10.0,
            wait_seconds: 0.0,
            batch_size: 500,
            batch_interval_seconds: 5.0,
            timeout_seconds: None,
        }
    }
}
