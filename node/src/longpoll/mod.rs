//! Long-polling (`P-LP`): a session is a socket without a connection of its own, on a shard of the
//! node that opened it. A GET waits for what there is to say, a POST brings messages; any node of
//! the cluster takes either.
//!
//! The HTTP status is 200, the real one is in the body (`P-LP-1`).

pub(crate) mod ask;
mod body;
mod letter;
mod question;
pub(crate) mod served;
#[cfg(test)]
mod tests;
mod token;
mod unread;
mod upload;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    extract::{ConnectInfo, Query, RawPathParams, Request, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use ask::ask;
pub(crate) use body::Posted;
use question::{Answer, Question};
use token::Session;
pub(crate) use unread::Answering;
use upload::Unread;
#[cfg(any(test, fuzzing))]
pub(crate) use {body::messages, token::judge as judge_token};

use crate::{
    accept::Refusal,
    channel::{Connect, Transport, params},
    handshake::{Opening, Place, busy, is_nowhere, vsn},
    plane::Plane,
    shard::inbox::Task,
};

const TOKEN: HeaderName = HeaderName::from_static("x-phoenix-longpoll-token");
const AUTH: HeaderName = HeaderName::from_static("x-phoenix-authtoken");

type Pairs = Vec<(String, String)>;

/// `<path>/longpoll`.
pub(crate) async fn longpoll(
    State(place): State<Place>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    segments: RawPathParams,
    query: Result<Query<Pairs>, QueryRejection>,
    request: Request,
) -> Response {
    let asked = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let options = request.method() == Method::OPTIONS;
    let mut response = serve(&place, peer, &segments, query, request).await;
    let headers = response.headers_mut();
    // P-LP-11.
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if place.plane.door.draining() || place.plane.shutdown.is_cancelled() {
        // The next request shall find a node that stays; any of them answers for the session.
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if options {
        if let Some(asked) = asked {
            headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, asked);
        }
        let methods = HeaderValue::from_static("get, post, options");
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    }
    response
}

async fn serve(
    place: &Place,
    peer: SocketAddr,
    segments: &RawPathParams,
    query: Result<Query<Pairs>, QueryRejection>,
    request: Request,
) -> Response {
    let Place { plane, mount } = place;
    let Some(window) = mount.longpoll.filter(|_| !is_nowhere(segments)) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    if !mount.origins.as_ref().is_none_or(|origins| origins.admits(request.headers())) {
        plane.metrics.refuse("origin");
        return status(403);
    }
    let mut query = query.map(|Query(pairs)| pairs).ok();
    if !query.as_deref().is_none_or(params::are_few) {
        plane.metrics.refuse("params");
        return status(400);
    }
    let session = session(plane, request.headers(), query.as_deref().unwrap_or_default());
    if let Some(query) = query.as_mut().filter(|_| !request.headers().contains_key(TOKEN)) {
        take_token(query, session.is_some());
    }
    match *request.method() {
        Method::OPTIONS => StatusCode::OK.into_response(),
        Method::GET => {
            let gone = match session {
                None => false,
                Some((token, session)) => match ask(plane, session, Question::Poll(window)).await {
                    Answer::Messages(messages) => {
                        let answering = request.extensions().get::<Answering>();
                        if let Some(answering) = answering.filter(|_| !messages.is_empty()) {
                            answering.begin(plane, session, messages.len() as u64);
                        }
                        return messages_of(&token, messages);
                    }
                    _ => true,
                },
            };
            match plane.admit() {
                Ok(()) => {}
                Err(_) if gone => return status(410),
                Err(refusal) => {
                    plane.metrics.refuse(refusal.reason());
                    return busy(refusal);
                }
            }
            open(place, peer, segments, query, request).await
        }
        Method::POST => match session {
            Some((_, session)) => post(place, session, window, request).await,
            None => status(410),
        },
        _ => StatusCode::BAD_REQUEST.into_response(),
    }
}

/// A status alone.
fn status(status: u16) -> Response {
    axum::Json(json!({ "status": status })).into_response()
}

fn messages_of(token: &str, messages: Vec<String>) -> Response {
    let status = if messages.is_empty() { 204 } else { 200 };
    axum::Json(json!({"status": status, "token": token, "messages": messages})).into_response()
}

/// The session that a request names, and its token from now on; the header wins (`P-LP-6`).
fn session(
    plane: &Plane,
    headers: &HeaderMap,
    query: &[(String, String)],
) -> Option<(String, Session)> {
    let header = headers.get(TOKEN).and_then(|token| token.to_str().ok());
    let named = || query.iter().rev().find(|(name, _)| name == "token");
    let token = header.or_else(|| named().map(|(_, token)| token.as_str()))?;
    token::read(token, &plane.secret, Instant::now(), now())
}

/// Takes the token of a session out of the parameters. phoenix.js appends it to those of its user, one of
/// which may be named `token` as well: that is what the connect callback is to see. One that is not `known`
/// may be of a secret that is no more, or the user's own if there is no other.
fn take_token(query: &mut Pairs, known: bool) {
    let mut tokens = query.iter().enumerate().rev().filter(|(_, (name, _))| name == "token");
    if let Some((last, (_, token))) = tokens.next()
        && (known || tokens.next().is_some() && token::is_one(token))
    {
        query.remove(last);
    }
}

/// Opens a session (`P-LP-2`).
async fn open(
    Place { plane, mount }: &Place,
    peer: SocketAddr,
    segments: &RawPathParams,
    query: Option<Pairs>,
    request: Request,
) -> Response {
    let Some(version) = query.as_deref().and_then(vsn) else {
        plane.metrics.refuse("vsn");
        return status(403);
    };
    let query = query.unwrap_or_default();
    let pairs = query.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let auth = request.headers().get(AUTH).filter(|_| mount.auth_token);
    let connect = Arc::new(Connect {
        params: params::nested(pairs.chain(segments)),
        headers: request.headers().clone(),
        peer,
        uri: request.uri().clone(),
        auth_token: auth.and_then(|token| token.to_str().ok()).map(str::to_owned),
        transport: Transport::Longpoll,
    });
    // Nothing is kept twice while somebody is asked.
    drop(query);
    let Ok((accept, arrival)) = mount.let_in(Some(&connect), &plane.arrivals).await else {
        plane.metrics.refuse("connect");
        return status(403);
    };
    let (connect, mount) = (Some(connect), mount.clone());
    let opening = Opening { version, accept, connect, mount, arrival };
    let least = plane
        .shards
        .iter()
        .enumerate()
        .min_by_key(|(_, shard)| shard.connections.load(Ordering::Relaxed));
    let Some((number, shard)) = least else { return status(410) };
    let (sender, opened) = oneshot::channel();
    if !shard.inbox.push(Task::OpenPoll(Box::new(opening), sender)) {
        plane.metrics.refuse("inbox");
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Ok((slot, id)) = opened.await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let shard = u16::try_from(number).unwrap_or(u16::MAX);
    let session = Session { node: plane.instance, shard, slot, id };
    let token = token::sign(&session, &plane.secret.signing(Instant::now()), now());
    axum::Json::<Value>(json!({"status": 410, "token": token, "messages": []})).into_response()
}

/// Takes messages (`P-LP-4`).
async fn post(place: &Place, session: Session, window: Duration, request: Request) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE).cloned();
    let limit = place.mount.max_frame.unwrap_or_default();
    let body = upload::read(&place.plane, session, window, limit, request.into_body()).await;
    let body = match body {
        Ok(body) => body,
        Err(Unread::Gone) => return status(410),
        Err(Unread::Full) => return busy(Refusal::Full),
        Err(Unread::Late) => return status(408),
        Err(Unread::TooLarge) => return StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(Unread::Broken) => return StatusCode::BAD_REQUEST.into_response(),
    };
    let Ok(messages) = body::messages(kind.as_ref().map(HeaderValue::as_bytes), body) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    match ask(&place.plane, session, Question::Post(messages, window)).await {
        Answer::Taken => status(200),
        Answer::Late => status(408),
        Answer::TooLarge => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Answer::Gone | Answer::Messages(_) => status(410),
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
