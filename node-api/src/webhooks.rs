//! `webhooks` in a node's configuration: which backend is asked and told, and how; and in its topic rules:
//! of what.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use crate::schema::{HEADER, URL};

/// A backend that decides and is told, over HTTP. Calls are signed by the Standard Webhooks
/// specification: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Webhooks {
    /// Where calls are posted to: `https://…`, or `http://…` inside a cluster.
    #[cfg_attr(feature = "schema", schemars(length(max = 2048), regex(pattern = URL)))]
    pub url: String,
    /// Path of a file with one signing secret a line, `whsec_…`, at most four. Each signs every call,
    /// and the file is read again when it changes: a backend may take the old one and the new one for
    /// a while.
    pub secret_file: String,
    /// PEM file of the authorities that the server's certificate must come from; absent: those of
    /// the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// Whether the backend is asked who may connect.
    #[serde(default)]
    pub connect: bool,
    /// Whether it is told of sockets that end.
    #[serde(default)]
    pub disconnect: bool,
    /// Headers of a client's request that it is shown when a client connects, such as `cookie`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 16), inner(regex(pattern = HEADER))))]
    pub headers: Vec<String>,
    /// What holds when a question is not answered.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Milliseconds after which a question counts as not answered.
    #[serde(default = "timeout")]
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 8000)))]
    pub timeout_milliseconds: u32,
    /// Questions under way at a time; a quarter as many notices go out beside them.
    #[serde(default = "concurrent")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1024)))]
    pub max_concurrent: u32,
    /// Questions that may wait for one that is under way, and notices that may wait to be told.
    #[serde(default = "queued")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1_000_000)))]
    pub max_queued: u32,
}

impl Webhooks {
    /// To `url`, signed by the secrets in `secret_file`, with the defaults.
    pub fn new(url: impl Into<String>, secret_file: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            secret_file: secret_file.into(),
            ca_file: None,
            connect: false,
            disconnect: false,
            headers: Vec::new(),
            on_failure: OnFailure::default(),
            timeout_milliseconds: timeout(),
            max_concurrent: concurrent(),
            max_queued: queued(),
        }
    }
}

/// What the backend is asked about, and told, of the topics of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "(has(self.join) && self.join) || (has(self.leave) && self.leave) || (has(self.events) && self.events.size() > 0)",
        "message": "channels: webhooks needs join, events or leave: without any the backend is not called",
    },
    {
        "rule": "!has(self.events) || self.events.all(e, bytes(e).size() <= 255 && !e.startsWith('phx_'))",
        "message": "channels: webhooks.events may have at most 255 bytes each, and phx_* are the protocol's own",
    },
    {
        "rule": "!has(self.events) || !('disconnect' in self.events)",
        "message": "channels: in webhooks.events `disconnect` closes sockets and is never asked about: give yours another name",
    },
])))]
#[cfg_attr(feature = "schema", schemars(extend("x-file" = {
    "anyOf": [
        { "required": ["join"], "properties": { "join": { "const": true } } },
        { "required": ["leave"], "properties": { "leave": { "const": true } } },
        { "required": ["events"], "properties": { "events": { "minItems": 1 } } },
    ],
    "properties": {
        "events": { "uniqueItems": true, "items": { "not": { "pattern": "^(phx_|disconnect$)" } } },
    },
})))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct RuleWebhooks {
    /// Whether the backend is asked about joins. Only about those that `join` of the rule lets in.
    pub join: bool,
    /// Client events that the backend is asked about; `*` stands for any. They need not be among
    /// `events` of the rule, which says what is broadcast unless the backend says otherwise.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(max = 64),
            inner(length(min = 1, max = 255)),
            extend("x-kubernetes-list-type" = "set")
        )
    )]
    pub events: Vec<String>,
    /// Whether it is told of channels that end.
    pub leave: bool,
}

/// What holds when the backend does not answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum OnFailure {
    /// The client is refused; its join or event is answered with an error.
    #[default]
    Deny,
    /// As if nobody had been asked.
    Allow,
}

fn timeout() -> u32 {
    5000
}
fn concurrent() -> u32 {
    64
}
fn queued() -> u32 {
    10_000
}
