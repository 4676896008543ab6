//! Serves `/healthz`, `/readyz` and `/metrics`. Readiness means that the CRD is there and caches
//! are in sync; it never depends on leadership: a replica that stands by is ready.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Whether the process can do its work.
#[derive(Debug, Default)]
pub struct Readiness {
    crd: AtomicBool,
    syncing: AtomicUsize,
}

impl Readiness {
    /// The CRD was found.
    pub fn crd_found(&self) {
        self.crd.store(true, Ordering::Relaxed);
    }

    /// A set of caches begins to fill.
    pub fn sync_begins(&self) {
        self.syncing.fetch_add(1, Ordering::Relaxed);
    }

    /// That set of caches is in sync.
    pub fn synced(&self) {
        self.syncing.fetch_sub(1, Ordering::Relaxed);
    }

    /// What is missing, if anything.
    pub fn missing(&self) -> Option<&'static str> {
        if !self.crd.load(Ordering::Relaxed) {
            return Some(
                "the ChannelCluster CRD is not installed, or the API server is not reached",
            );
        }
        (self.syncing.load(Ordering::Relaxed) > 0).then_some("caches are filling")
    }
}

#[derive(Clone)]
struct App {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
}

/// Serves until `stop`.
pub async fn serve(
    listener: TcpListener,
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(App { readiness, metrics });
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.cancelled().await }).await
}

async fn readyz(State(app): State<App>) -> Response {
    match app.readiness.missing() {
        None => "ok".into_response(),
        Some(missing) => (StatusCode::SERVICE_UNAVAILABLE, missing).into_response(),
    }
}

async fn scrape(State(app): State<App>) -> Response {
    match app.metrics.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ready_once_the_crd_is_there_and_caches_are_in_sync() {
        let (readiness, stop) = (Arc::new(Readiness::default()), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let metrics = Arc::new(Metrics::new());
        let server = tokio::spawn(serve(listener, readiness.clone(), metrics, stop.clone()));
        let code = async |path: &str| {
            reqwest::get(format!("{base}{path}")).await.unwrap().status().as_u16()
        };
        assert_eq!(code("/healthz").await, 200);
        assert_eq!(code("/readyz").await, 503);
        readiness.crd_found();
        assert_eq!(code("/readyz").await, 200);
        readiness.sync_begins();
        assert_eq!(code("/readyz").await, 503);
        readiness.synced();
        assert_eq!(code("/readyz").await, 200);
        assert_eq!(code("/metrics").await, 200);
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
