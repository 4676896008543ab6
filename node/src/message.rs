//! Channel messages as values, apart from any encoding.
//!
//! Payloads stay encoded JSON from end to end: a relay never needs to look inside.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde_json::json;

use crate::pubsub::Kind;

/// Longest `ref` or `join_ref` in bytes of JSON, and longest topic and event in bytes
/// (`P-BIN-5` has no room for more).
pub const MAX_FIELD: usize = 255;

/// The response of a bare reply (`P-RPL-1`).
pub(crate) const EMPTY: Bytes = Bytes::from_static(b"{}");
/// Why there is no channel (`P-JOIN-1`, `P-PUSH-3`).
pub(crate) const UNMATCHED: &str = "unmatched topic";

/// A `ref` or `join_ref`: opaque JSON that goes back as it came (`P-V2-2`), or null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ref(Option<Box<str>>);

impl Ref {
    /// Null.
    pub const NULL: Self = Self(None);

    /// From JSON text; `None` when it is longer than [`MAX_FIELD`]. Escapes are taken out where they need
    /// not be: one text is one reference, however it is written.
    pub fn from_json(json: &str) -> Option<Self> {
        match json {
            "null" => Some(Self::NULL),
            json if json.len() > MAX_FIELD => None,
            json if json.starts_with('"') && json.contains('\\') => {
                Self::from_text(&serde_json::from_str::<String>(json).ok()?)
            }
            json => Some(Self(Some(json.into()))),
        }
    }

    /// The string `text`, of the binary encoding; `None` when it is longer than [`MAX_FIELD`].
    pub fn from_text(text: &str) -> Option<Self> {
        let json = (text.len() <= MAX_FIELD).then(|| serde_json::to_string(text).ok())??;
        Some(Self(Some(json.into())))
    }

    /// The JSON text.
    pub fn as_json(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// As the binary encoding has it: a string without its quotes, null as nothing (`P-BIN-5`).
    pub fn to_text(&self) -> Cow<'_, str> {
        let Some(json) = &self.0 else { return Cow::Borrowed("") };
        match serde_json::from_str::<String>(json) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Borrowed(json),
        }
    }

    /// Whether it is null.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// Itself, or `other` if null.
    #[must_use]
    pub fn or(&self, other: &Self) -> Self {
        if self.is_null() { other.clone() } else { self.clone() }
    }
}

/// What came with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Any JSON value (`P-V2-3`), as text.
    Json(&'a str),
    /// Bytes (`P-BIN-1`).
    Binary(&'a [u8]),
}

/// A message from a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The join that it belongs to.
    pub join_ref: Ref,
    /// What the reply should carry.
    pub reference: Ref,
    /// The topic.
    pub topic: Cow<'a, str>,
    /// The event.
    pub event: Cow<'a, str>,
    /// The payload.
    pub payload: Payload<'a>,
}

impl Incoming<'_> {
    /// A reply with a response in JSON.
    pub(crate) fn reply(&self, join_ref: Ref, status: Status, response: Bytes) -> Outgoing {
        Outgoing {
            join_ref,
            reference: self.reference.clone(),
            topic: self.topic.as_ref().into(),
            body: Body::Reply(status, Kind::Json, response),
        }
    }

    /// A reply that says why not.
    pub(crate) fn refuse(&self, join_ref: Ref, reason: &str) -> Outgoing {
        let response = json!({ "reason": reason }).to_string();
        self.reply(join_ref, Status::Error, response.into())
    }

    /// Whether it belongs to an earlier join of its topic than that of `join_ref`, whose messages
    /// carry `effective` (`P-PUSH-1`, `P-PUSH-2`).
    pub(crate) fn is_stale(&self, join_ref: &Ref, effective: &Ref) -> bool {
        !self.join_ref.is_null() && self.join_ref != *join_ref && self.join_ref != *effective
    }
}

/// Whether a pattern, a topic or a prefix with one trailing `*`, is for this topic (`P-JOIN-1`).
pub(crate) fn matches(pattern: &str, topic: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => topic.starts_with(prefix),
        None => topic == pattern,
    }
}

/// The status of a reply (`P-RPL-1`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Accepted.
    Ok,
    /// Refused.
    Error,
}

impl Status {
    /// `ok` or `error`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// What a message to a client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// `phx_reply` with a status and a response: any JSON, or bytes.
    Reply(Status, Kind, Bytes),
    /// An event with a payload: a JSON object, or bytes.
    Event(Cow<'static, str>, Kind, Bytes),
}

/// A message to one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The join that it belongs to.
    pub join_ref: Ref,
    /// The message that it answers.
    pub reference: Ref,
    /// The topic.
    pub topic: Arc<str>,
    /// The rest.
    pub body: Body,
}
