//! What an answer of the backend means. Pure. Whatever is not clearly an answer is none, such as a page
//! of another server.

use base64::{Engine, engine::general_purpose::STANDARD};
use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, value::RawValue};

use super::call::{Failure, Said};
use super::decision::{self, Decision};
use crate::channel::{Payload, Status};
use crate::nesting::is_shallow;
use crate::readable::is_readable;

/// Longest id, in bytes.
const MAX_ID: usize = 255;

/// What the backend decides.
#[derive(Debug, PartialEq)]
pub(crate) enum Verdict<T> {
    /// It allows.
    Allowed(T),
    /// It does not, for this reason, if it gives one.
    Denied(Option<String>),
}

/// How a client is let in.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Admission {
    /// The socket's id (`P-CON-10`), in place of the token's.
    pub(super) id: Option<String>,
    /// Put over the claims of the token.
    #[serde(default)]
    pub(super) claims: Map<String, Value>,
    /// Seconds after which the socket is closed.
    pub(super) expires_in_seconds: Option<f64>,
}

/// What is done with an event that is allowed.
#[derive(Debug, PartialEq)]
pub(crate) struct Handling {
    pub(crate) broadcast: Spread,
    /// What its sender is told; nothing if that is none.
    pub(crate) reply: Option<(Status, Payload)>,
}

/// What is broadcast for an event.
#[derive(Debug, PartialEq)]
pub(crate) enum Spread {
    /// What the topic's rule says.
    Ruled,
    /// Nothing.
    Nothing,
    /// This, and what is not said here is as it came, and as the rule says.
    This { event: Option<String>, payload: Option<Payload>, include_sender: Option<bool> },
}

impl Handling {
    /// As if nobody had been asked.
    pub(crate) fn ruled() -> Self {
        Self { broadcast: Spread::Ruled, reply: Some((Status::Ok, Payload::empty())) }
    }
}

#[derive(Deserialize)]
struct Welcome {
    response: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Handled {
    broadcast: Option<Box<RawValue>>,
    reply: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Broadcast {
    event: Option<String>,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    include_sender: Option<bool>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    status: Word,
    response: Option<Box<RawValue>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    #[default]
    Ok,
    Error,
}

/// Reads the answer to a connect.
pub(super) fn admission(said: &Said) -> Result<Verdict<Admission>, Failure> {
    decided(said, |more: Admission| {
        let id = more.id.as_ref().is_none_or(|id| (1..=MAX_ID).contains(&id.len()));
        let time = more.expires_in_seconds.is_none_or(|seconds| seconds > 0.0);
        (id && time).then_some(more)
    })
}

/// Reads the answer to a join: what the client is told, if not what the rule says.
pub(super) fn join(said: &Said) -> Result<Verdict<Option<Payload>>, Failure> {
    decided(said, |Welcome { response }| match response {
        Some(raw) => Some(Some(told(raw)?)),
        None => Some(None),
    })
}

/// Reads the answer to an event; `may_be_named` tells what another may be called.
pub(super) fn event(
    said: &Said,
    may_be_named: impl Fn(&str) -> bool,
) -> Result<Verdict<Handling>, Failure> {
    decided(said, |Handled { broadcast, reply }| {
        let broadcast = broadcast.map_or(Some(Spread::Ruled), |raw| spread(&raw, may_be_named))?;
        let reply = reply.map_or(Some(Handling::ruled().reply), |raw| answered(&raw))?;
        Some(Handling { broadcast, reply })
    })
}

/// `{"allow": true, …}` or `{"allow": false}` with 200, what goes with it by `read`; 401 and 403 deny.
fn decided<R: DeserializeOwned, T>(
    said: &Said,
    read: impl FnOnce(R) -> Option<T>,
) -> Result<Verdict<T>, Failure> {
    if matches!(said.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(Verdict::Denied(None));
    }
    let body = decision::unmarked(&said.body);
    if let Decision::No(reason) = decision::read(body)? {
        return Ok(Verdict::Denied(reason));
    }
    let more = serde_json::from_slice(body).ok().and_then(read);
    more.map(Verdict::Allowed).ok_or(Failure::Garbage)
}

/// `true`, `false`, or an object with what is other than it came.
fn spread(raw: &RawValue, may_be_named: impl Fn(&str) -> bool) -> Option<Spread> {
    match raw.get() {
        "false" => return Some(Spread::Nothing),
        "true" => {
            return Some(Spread::This { event: None, payload: None, include_sender: None });
        }
        _ => {}
    }
    let Broadcast { event, payload, payload_base64, include_sender } =
        serde_json::from_str(raw.get()).ok()?;
    let payload = match (payload, payload_base64) {
        (Some(_), Some(_)) => return None,
        (Some(raw), None) => Some(told(raw)?),
        (None, Some(text)) => Some(Payload::binary(STANDARD.decode(text).ok()?)),
        (None, None) => None,
    };
    let named = event.as_ref().is_none_or(|name| !name.is_empty() && may_be_named(name));
    // What is relayed keeps to the same bound.
    let shallow = |payload: &Payload| payload.is_binary() || is_shallow(payload.bytes());
    let fits = payload.as_ref().is_none_or(|payload| payload.is_event() && shallow(payload));
    (named && fits).then_some(Spread::This { event, payload, include_sender })
}

/// `false`, or an object with what the sender is told.
fn answered(raw: &RawValue) -> Option<Option<(Status, Payload)>> {
    if raw.get() == "false" {
        return Some(None);
    }
    let Reply { status, response } = serde_json::from_str(raw.get()).ok()?;
    let status = match status {
        Word::Ok => Status::Ok,
        Word::Error => Status::Error,
    };
    let response = match response {
        Some(raw) => told(raw)?,
        None => Payload::empty(),
    };
    Some(Some((status, response)))
}

/// JSON for clients: not such at which their decoders fail, and with it at the whole message.
fn told(raw: Box<RawValue>) -> Option<Payload> {
    is_readable(raw.get()).then(|| Payload::from(raw))
}

#[cfg(test)]
mod tests;
