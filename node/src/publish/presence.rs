//! `GET /api/presence`: who is on a topic, by key, in pages.

use axum::Json;
use axum::extract::{Query, State, rejection::QueryRejection};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Authorized, MAX_NAME, Publish, control::MAX_PAGE};
use crate::api::ApiError;
use crate::hub::{PresenceQuery, Presences};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    topic: String,
    after: Option<String>,
    limit: Option<usize>,
}

/// All that is present under one key: a meta for each channel.
#[derive(Debug, Serialize)]
struct Entry {
    key: String,
    metas: Vec<Map<String, Value>>,
}

/// A page of those who are on a topic.
#[derive(Debug, Serialize)]
pub(super) struct Present {
    topic: String,
    presences: Vec<Entry>,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Who is on a topic, on all nodes, as this one knows it.
pub(super) async fn presence(
    _: Authorized,
    State(publish): State<Publish>,
    page: Result<Query<Page>, QueryRejection>,
) -> Result<Json<Present>, ApiError> {
    let answer = publish.formed().and_then(|()| list(&publish, page));
    publish.counted(answer, StatusCode::OK).map(Json)
}

fn list(publish: &Publish, page: Result<Query<Page>, QueryRejection>) -> Result<Present, ApiError> {
    let wrong =
        "the parameters are `topic` of 1 to 255 bytes, `after`, and `limit`, which is 1 to 1000";
    let Query(page) = page.map_err(|_| ApiError::unprocessable(wrong))?;
    let limit = page.limit.unwrap_or(100);
    let topic = (1..=MAX_NAME).contains(&page.topic.len());
    if !topic || !(1..=MAX_PAGE).contains(&limit) {
        return Err(ApiError::unprocessable(wrong));
    }
    let query = PresenceQuery {
        topic: page.topic.as_str().into(),
        after: page.after.map(Into::into),
        limit,
    };
    let Some(found) = (publish.who)(&query) else {
        return Err(ApiError::unprocessable(
            "no presence is kept of this topic: set `presence` in the topic rule that matches it",
        ));
    };
    let last = found.presences.last().filter(|_| found.more);
    let next = last.map(|last| last.key.to_string());
    let entry = |Presences { key, metas }| Entry { key: key.to_string(), metas };
    let presences = found.presences.into_iter().map(entry).collect();
    Ok(Present { topic: page.topic, presences, next })
}
