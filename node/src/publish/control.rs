//! What the publish API does beside publishing: `POST /api/disconnect` closes the sockets of ids,
//! `GET /api/topics` lists what is subscribed on this node, `GET /api/openapi.json` describes it all.

use axum::Json;
use axum::body::Body;
use axum::extract::{Query, State, rejection::QueryRejection};
use bytes::Bytes;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};

use super::{Authorized, MAX_MESSAGES, MAX_NAME, Publish};
use crate::api::{self, ApiError};
use crate::hub::{TopicCount, TopicQuery};
use crate::pubsub::{Broadcast, Kind};

/// Most topics, or keys of presence, of one page.
pub(super) const MAX_PAGE: usize = 1000;

/// The description of the API.
pub(super) const OPENAPI: &str = include_str!("../../schema/publish.json");

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `id` or `ids`")]
struct Disconnect {
    id: Option<String>,
    ids: Option<Vec<String>>,
}

/// How many ids a call was about; not how many sockets had them.
#[derive(Debug, Serialize)]
pub(super) struct Disconnected {
    ids: usize,
}

/// Closes every socket of these ids, on every node (`P-CON-10`).
pub(super) async fn disconnect(
    _: Authorized,
    State(publish): State<Publish>,
    body: Body,
) -> Result<(StatusCode, Json<Disconnected>), ApiError> {
    let ids = publish.read(body).await.and_then(|bytes| ids(&bytes));
    let ids = publish.counted(ids, StatusCode::ACCEPTED)?;
    for id in &ids {
        (publish.sink)(Broadcast {
            topic: id.as_str().into(),
            event: "disconnect".into(),
            kind: Kind::Json,
            payload: Bytes::from_static(b"{}"),
        });
    }
    Ok((StatusCode::ACCEPTED, Json(Disconnected { ids: ids.len() })))
}

fn ids(bytes: &[u8]) -> Result<Vec<String>, ApiError> {
    let ids = match api::json(bytes)? {
        Disconnect { id: Some(id), ids: None } => vec![id],
        Disconnect { id: None, ids: Some(ids) } => ids,
        _ => return Err(ApiError::unprocessable("send one of `id` and `ids`")),
    };
    let sizes = ids.iter().all(|id| (1..=MAX_NAME).contains(&id.len()));
    match (1..=MAX_MESSAGES).contains(&ids.len()) && sizes {
        true => Ok(ids),
        false => Err(ApiError::unprocessable("send 1 to 1000 ids of 1 to 255 bytes")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    prefix: String,
    #[serde(default)]
    after: String,
    limit: Option<usize>,
}

/// A topic and how many sockets of this node subscribe it.
#[derive(Debug, Serialize)]
struct Entry {
    topic: String,
    subscribers: usize,
}

/// A page of this node's topics.
#[derive(Debug, Serialize)]
pub(super) struct Topics {
    topics: Vec<Entry>,
    /// Where the next page begins, if there may be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Topics with subscribers on this node, by name.
pub(super) async fn topics(
    _: Authorized,
    State(publish): State<Publish>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Topics>, ApiError> {
    let answer = list(&publish, page).await;
    publish.counted(answer, StatusCode::OK).map(Json)
}

async fn list(
    publish: &Publish,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Topics, ApiError> {
    let wrong = "the parameters are `prefix`, `after` and `limit`, which is 1 to 1000";
    let Query(page) = page.map_err(|_| ApiError::unprocessable(wrong))?;
    let limit = page.limit.unwrap_or(100);
    if !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::unprocessable(wrong));
    }
    let query = TopicQuery { prefix: page.prefix.into(), after: page.after.into(), limit };
    let topics = (publish.list)(query).await;
    let topics = topics.ok_or_else(|| ApiError::unavailable("this node is too busy to count"))?;
    let last = topics.last().filter(|_| topics.len() == limit);
    let next = last.map(|last| last.topic.to_string());
    let entry = |count: TopicCount| {
        let TopicCount { topic, subscribers } = count;
        Entry { topic: topic.to_string(), subscribers }
    };
    Ok(Topics { topics: topics.into_iter().map(entry).collect(), next })
}

/// The description, for everybody.
pub(super) async fn openapi() -> ([(header::HeaderName, &'static str); 1], &'static str) {
    ([(header::CONTENT_TYPE, "application/json")], OPENAPI)
}
