//! The publish API, port 4003: servers broadcast over HTTP, by the publish token.
//!
//! `POST /api/publish` takes `{"topic", "event", "payload"}`, or `topics` for a list in place of
//! `topic`, or `payloadBase64` for bytes in place of `payload`, or up to 1000 such objects as
//! `{"messages": […]}`, and answers 202 with `{"published": n}`. All or nothing: one message that is
//! wrong refuses the whole call. A node that has just started and does not reach its peers yet
//! answers 503: what it took would be lost to their clients. 202 means handed on, at most once
//! (`P-PS-3`), not delivered. The other calls are in `control` and `presence`; `node/schema/publish.json` describes
//! them all.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures::future::BoxFuture;
use http::StatusCode;
use http::request::Parts;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{self, ApiError, Token, error};
use crate::hub::{PresencePage, PresenceQuery, TopicCount, TopicQuery};
use crate::nesting::{self, MAX_LEVELS};
use crate::pubsub::{Broadcast, Kind};
use crate::readable::is_readable;

mod control;
mod presence;

/// Largest body, in bytes.
pub const MAX_BODY: usize = 8_000_000;
/// Most messages of one call.
pub const MAX_MESSAGES: usize = 1000;
/// Longest topic and event, in bytes (`P-BIN-5`).
const MAX_NAME: usize = 255;

/// What broadcasts: [`crate::hub::Hub::broadcast`], but in tests.
pub type Sink = Arc<dyn Fn(Broadcast) + Send + Sync>;
/// What lists topics: [`crate::hub::Hub::topics`], but in tests.
pub type List =
    Arc<dyn Fn(TopicQuery) -> BoxFuture<'static, Option<Vec<TopicCount>>> + Send + Sync>;

/// What lists who is on a topic: [`crate::hub::Hub::presences`], but in tests.
pub type Who = Arc<dyn Fn(&PresenceQuery) -> Option<PresencePage> + Send + Sync>;

/// The publish API of this node.
#[derive(Clone)]
pub struct Publish {
    token: Token,
    sink: Sink,
    list: List,
    who: Who,
    formed: Arc<AtomicBool>,
    metrics: PublishMetrics,
}

/// Counts of the publish API.
#[derive(Clone, Default)]
pub struct PublishMetrics {
    messages: Counter,
    calls: Family<Status, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: u16,
}

impl PublishMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Messages taken over HTTP";
        registry.register("published", help, self.messages.clone());
        registry.register("publish_calls", "Publish calls by status", self.calls.clone());
    }
}

/// What a call answers.
#[derive(Debug, Serialize)]
struct Published {
    published: usize,
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object with a message or with `messages`"
)]
struct Call {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    event: Option<String>,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
    messages: Option<Vec<Message>>,
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "an object with `topic` or `topics`, `event` and a payload"
)]
struct Message {
    topic: Option<String>,
    topics: Option<Vec<String>>,
    event: String,
    payload: Option<Box<RawValue>>,
    payload_base64: Option<String>,
}

struct Authorized;

impl FromRequestParts<Publish> for Authorized {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, publish: &Publish) -> Result<Self, ApiError> {
        let checked = publish.token.check(&parts.headers).map(|()| Self);
        if let Err(e) = &checked {
            publish.count(e.status());
        }
        checked
    }
}

impl Publish {
    /// Broadcasts through `sink` what comes with `token`, once `formed` says that it reaches the
    /// other nodes; lists topics by `list`, and by `who` those who are on one.
    pub fn new(
        token: Token,
        sink: Sink,
        list: List,
        who: Who,
        formed: Arc<AtomicBool>,
        metrics: PublishMetrics,
    ) -> Self {
        Self { token, sink, list, who, formed, metrics }
    }

    /// The routes.
    pub fn router(self) -> Router {
        let routes = routes().into_iter();
        let routes = routes.fold(Router::new(), |all, (_, path, call)| all.route(path, call));
        routes
            .fallback(error::not_found)
            .method_not_allowed_fallback(error::wrong_method)
            .with_state(self)
    }

    /// Reads the body of a call that reaches the whole cluster.
    async fn read(&self, body: Body) -> Result<Bytes, ApiError> {
        let bytes = api::body(body, MAX_BODY).await?;
        self.formed().map(|()| bytes)
    }

    /// Whether it reaches the other nodes.
    fn formed(&self) -> Result<(), ApiError> {
        match self.formed.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(ApiError::unavailable(
                "this node has just started and does not reach its peers yet: ask another one, or again in a second",
            )),
        }
    }

    fn count(&self, status: StatusCode) {
        self.metrics.calls.get_or_create(&Status { status: status.as_u16() }).inc();
    }

    /// Counts what a call came to: `done`, or the status of its error.
    fn counted<T>(&self, came: Result<T, ApiError>, done: StatusCode) -> Result<T, ApiError> {
        self.count(came.as_ref().map_or_else(ApiError::status, |_| done));
        came
    }
}

/// Every call: its method, as OpenAPI writes it, and its path.
fn routes() -> [(&'static str, &'static str, MethodRouter<Publish>); 5] {
    [
        ("post", "/api/publish", post(publish)),
        ("post", "/api/disconnect", post(control::disconnect)),
        ("get", "/api/topics", get(control::topics)),
        ("get", "/api/presence", get(presence::presence)),
        ("get", "/api/openapi.json", get(control::openapi)),
    ]
}

async fn publish(
    _: Authorized,
    State(publish): State<Publish>,
    body: Body,
) -> Result<(StatusCode, Json<Published>), ApiError> {
    let taken = publish.read(body).await.and_then(|bytes| parse(&bytes));
    let broadcasts = publish.counted(taken, StatusCode::ACCEPTED)?;
    let published = broadcasts.len();
    publish.metrics.messages.inc_by(published as u64);
    broadcasts.into_iter().for_each(|b| (publish.sink)(b));
    Ok((StatusCode::ACCEPTED, Json(Published { published })))
}

/// Reads a call; its broadcasts in order.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Broadcast>, ApiError> {
    let call: Call = api::json(bytes)?;
    let messages = match call {
        Call {
            topic: None,
            topics: None,
            event: None,
            payload: None,
            payload_base64: None,
            messages: Some(messages),
        } => messages,
        Call { topic, topics, event: Some(event), payload, payload_base64, messages: None } => {
            vec![Message { topic, topics, event, payload, payload_base64 }]
        }
        _ => {
            return Err(ApiError::unprocessable(
                "send either `topic` or `topics`, `event` and `payload` or `payloadBase64`, or `messages`",
            ));
        }
    };
    if messages.is_empty() || messages.len() > MAX_MESSAGES {
        let why = format!("`messages` has 1 to {MAX_MESSAGES} messages, not {}", messages.len());
        return Err(ApiError::unprocessable(why));
    }
    let (mut broadcasts, mut bytes) = (Vec::new(), 0);
    for (i, message) in messages.into_iter().enumerate() {
        check(i, message, &mut broadcasts, &mut bytes)?;
    }
    Ok(broadcasts)
}

fn check(
    i: usize,
    m: Message,
    out: &mut Vec<Broadcast>,
    bytes: &mut usize,
) -> Result<(), ApiError> {
    let wrong = |why: &str| Err(ApiError::unprocessable(format!("message {i}: {why}")));
    let topics = match (m.topic, m.topics) {
        (Some(topic), None) => vec![topic],
        (None, Some(topics)) if !topics.is_empty() => topics,
        _ => return wrong("send one of `topic` and `topics`, which has at least one"),
    };
    if out.len() + topics.len() > MAX_MESSAGES {
        return wrong("a call reaches at most 1000 topics, each counted as often as it is named");
    }
    let long = topics.iter().any(|topic| !(1..=MAX_NAME).contains(&topic.len()));
    if long || !(1..=MAX_NAME).contains(&m.event.len()) {
        return wrong("topic and event have 1 to 255 bytes");
    }
    if topics.iter().any(|topic| topic == "phoenix") || m.event.starts_with("phx_") {
        return wrong("the topic `phoenix` and events `phx_*` are the protocol's own");
    }
    let (kind, payload) = match (m.payload, m.payload_base64) {
        (Some(json), None) if !nesting::is_shallow(json.get().as_bytes()) => {
            return wrong(&format!("the payload is nested too deep, at most {MAX_LEVELS} levels"));
        }
        (Some(json), None) if !is_readable(json.get()) => {
            return wrong(
                "the payload has half of a surrogate pair, a number beyond a float, or an integer of over \
                 1024 bytes, at which decoders of clients fail",
            );
        }
        (Some(json), None) if json.get().starts_with('{') => {
            (Kind::Json, Bytes::from(String::from(Box::<str>::from(json))))
        }
        (Some(_), None) => return wrong("the payload is a JSON object"),
        (None, Some(text)) => match STANDARD.decode(text) {
            Ok(bytes) => (Kind::Binary, Bytes::from(bytes)),
            Err(_) => return wrong("`payloadBase64` is not base64"),
        },
        _ => return wrong("send one of `payload` and `payloadBase64`"),
    };
    *bytes += payload.len() * topics.len();
    if *bytes > MAX_BODY {
        return wrong("a call hands on at most 8000000 bytes, a payload counted for each topic");
    }
    let event: Arc<str> = m.event.into();
    out.extend(topics.into_iter().map(|topic| Broadcast {
        topic: topic.into(),
        event: event.clone(),
        kind,
        payload: payload.clone(),
    }));
    Ok(())
}

#[cfg(test)]
mod tests;
