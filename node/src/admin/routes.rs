//! The calls of the admin API.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, header};
use sluice_node_api::admin::{
    CordonRequest, DrainMode, DrainRequest, DrainStatus, NodeStatus, ShedRequest, ShedResponse,
};
use tracing::info;

use super::{Admin, MAX_BODY};
use crate::api::{self, ApiError};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Longest time of a drain's field, in seconds: a day.
const MAX_SECONDS: f64 = 86_400.0;

type Answer<T> = Result<Json<T>, ApiError>;

/// Proof that a call bears the admin token; taken before the body is read.
pub(super) struct Authorized;

impl FromRequestParts<Admin> for Authorized {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, admin: &Admin) -> Result<Self, ApiError> {
        admin.0.token.check(&parts.headers).map(|()| Self)
    }
}

pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

pub(super) async fn readyz(State(admin): State<Admin>) -> Response {
    if admin.ready() {
        "ok\n".into_response()
    } else {
        let why = "the node is starting, does not reach its peers yet, or is shutting down";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, why).into_response()
    }
}

pub(super) async fn metrics(State(admin): State<Admin>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &admin.0.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(_) => {
            let why = "the metrics cannot be written";
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, why).into_response()
        }
    }
}

pub(super) async fn status(_: Authorized, State(admin): State<Admin>) -> Json<NodeStatus> {
    Json(admin.status())
}

pub(super) async fn drain_status(_: Authorized, State(admin): State<Admin>) -> Json<DrainStatus> {
    Json(admin.0.hub.drain_status())
}

pub(super) async fn drain(
    _: Authorized,
    State(admin): State<Admin>,
    body: Body,
) -> Answer<DrainStatus> {
    let request: DrainRequest = api::json(&api::body(body, MAX_BODY).await?)?;
    check(&request)?;
    // The lock is held over both: two calls at once leave what the later one asked.
    let mut asked = admin.0.drain.lock();
    if admin.leaves() {
        // Its drain is its own, but its time may be over.
        if request.mode == DrainMode::Immediate && request.initial_delay_seconds <= 0.0 {
            let request = DrainRequest { ttl_seconds: MAX_SECONDS, ..request };
            return Ok(Json(admin.0.hub.start_drain(request)));
        }
        return Ok(Json(admin.0.hub.drain_status()));
    }
    if asked.replace(request.clone()).as_ref() != Some(&request) {
        info!(?request, "asked to drain");
    }
    Ok(Json(admin.0.hub.start_drain(request)))
}

pub(super) async fn cancel_drain(_: Authorized, State(admin): State<Admin>) -> Json<DrainStatus> {
    let mut asked = admin.0.drain.lock();
    // The operator may not know yet that the pod is being deleted.
    if admin.leaves() {
        return Json(admin.0.hub.drain_status());
    }
    if asked.take().is_some() {
        info!("asked to drain no more");
    }
    Json(admin.0.hub.cancel_drain())
}

pub(super) async fn cordon(
    _: Authorized,
    State(admin): State<Admin>,
    body: Body,
) -> Answer<NodeStatus> {
    let body = api::body(body, MAX_BODY).await?;
    let ttl = if body.is_empty() {
        None
    } else {
        let CordonRequest { ttl_seconds } = api::json(&body)?;
        if !(0.0..=MAX_SECONDS).contains(&ttl_seconds) || ttl_seconds <= 0.0 {
            return Err(ApiError::unprocessable("ttlSeconds must be more than 0, at most 86400"));
        }
        Some(Duration::from_secs_f64(ttl_seconds))
    };
    if !admin.0.hub.cordoned() {
        info!(?ttl, "asked to cordon");
    }
    admin.0.hub.cordon(ttl);
    Ok(Json(admin.status()))
}

pub(super) async fn uncordon(_: Authorized, State(admin): State<Admin>) -> Json<NodeStatus> {
    if admin.0.hub.cordoned() {
        info!("asked to cordon no more");
    }
    admin.0.hub.uncordon();
    Json(admin.status())
}

pub(super) async fn shed(
    _: Authorized,
    State(admin): State<Admin>,
    body: Body,
) -> Answer<ShedResponse> {
    let request: ShedRequest = api::json(&api::body(body, MAX_BODY).await?)?;
    if request.rate_per_second == 0 {
        return Err(ApiError::unprocessable("ratePerSecond must be at least 1"));
    }
    if !(0.0..=MAX_SECONDS).contains(&request.delay_seconds) {
        return Err(ApiError::unprocessable("delaySeconds must be 0 to 86400"));
    }
    info!(?request, "asked to shed");
    Ok(Json(admin.0.hub.shed(request)))
}

fn check(request: &DrainRequest) -> Result<(), ApiError> {
    for (field, value) in [
        ("initialDelaySeconds", request.initial_delay_seconds),
        ("waitSeconds", request.wait_seconds),
        ("batchIntervalSeconds", request.batch_interval_seconds),
        ("ttlSeconds", request.ttl_seconds),
    ] {
        if !(0.0..=MAX_SECONDS).contains(&value) {
            return Err(ApiError::unprocessable(format!("{field} must be 0 to 86400")));
        }
    }
    if request.batch_size == 0 {
        return Err(ApiError::unprocessable("batchSize must be at least 1"));
    }
    if request.ttl_seconds <= 0.0 {
        return Err(ApiError::unprocessable("ttlSeconds must be more than 0"));
    }
    Ok(())
}
