//! Serves `/healthz`, `/readyz` and `/metrics`. Readiness means that the CRD is there and caches
//! are in sync; it never depends on leadership: a replica that stands by is ready. One that may not
//! have the lease can't stand by.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{leader::Leadership, metrics::Metrics};

/// Whether the process can do its work.
#[derive(Debug, Default)]
pub struct Readiness {
    crd: Mutex<Crd>,
    lease: OnceLock<Leadership>,
    /// By namespace.
    scopes: Mutex<BTreeMap<String, Reading>>,
}

/// Whether ChannelClusters are known to the API server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crd {
    /// It has not answered yet.
    #[default]
    Unknown,
    /// They are not.
    Missing,
    /// They are.
    There,
}

impl Crd {
    /// What is said when it is missing.
    pub const MISSING: &str =
        "the ChannelCluster CRD is not installed: install the chart sluice-crds";
}

/// How far a namespace is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Its caches fill.
    Filling,
    /// They are in sync.
    Synced,
    /// It may not be read, or might not until now: perhaps it is gone. The others go on.
    Denied,
}

impl Readiness {
    /// Whether the CRD is there.
    pub fn crd(&self, crd: Crd) {
        *self.crd.lock() = crd;
    }

    /// Whose election it takes part in.
    pub fn elects(&self, leadership: Leadership) {
        let _ = self.lease.set(leadership);
    }

    /// How far a namespace is read.
    pub fn reads(&self, namespace: &str, reading: Reading) {
        self.scopes.lock().insert(namespace.into(), reading);
    }

    /// How far a namespace is read; `None` when nobody has begun.
    pub fn reading(&self, namespace: &str) -> Option<Reading> {
        self.scopes.lock().get(namespace).copied()
    }

    /// What is missing, if anything.
    pub fn missing(&self) -> Option<String> {
        match *self.crd.lock() {
            Crd::Unknown => return Some("the API server is not reached".into()),
            Crd::Missing => return Some(Crd::MISSING.into()),
            Crd::There => {}
        }
        if self.lease.get().is_some_and(Leadership::is_denied) {
            return Some("the lease may not be read or written: the log says what to grant".into());
        }
        let scopes = self.scopes.lock();
        let any = |reading| scopes.values().any(|is| *is == reading);
        if any(Reading::Filling) {
            return Some("caches are filling".into());
        }
        (any(Reading::Denied) && !any(Reading::Synced)).then(|| {
            let names: Vec<&str> = scopes.keys().map(String::as_str).collect();
            format!("may not be read: {}", names.join(", "))
        })
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
    use clap::Parser as _;

    use super::*;
    use crate::{args::Args, listen};

    #[tokio::test]
    async fn ready_while_the_crd_is_there_and_what_may_be_read_is_in_sync() {
        let (readiness, stop) = (Arc::new(Readiness::default()), CancellationToken::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        let metrics = Arc::new(Metrics::new());
        let server = tokio::spawn(serve(listener, readiness.clone(), metrics, stop.clone()));
        let get = async |path: &str| {
            let answer = reqwest::get(format!("{base}{path}")).await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let ready = async || match get("/readyz").await {
            (200, _) => None,
            (code, missing) => {
                assert_eq!(code, 503);
                Some(missing)
            }
        };
        let not = |missing: &str| Some(missing.to_owned());
        assert_eq!(get("/healthz").await.0, 200);
        assert_eq!(ready().await, not("the API server is not reached"));
        readiness.crd(Crd::Missing);
        assert_eq!(ready().await, not(Crd::MISSING));
        readiness.crd(Crd::There);
        assert_eq!(ready().await, None, "one that stands by");
        readiness.reads("gone", Reading::Filling);
        readiness.reads("ok", Reading::Filling);
        assert_eq!(ready().await, not("caches are filling"));
        readiness.reads("ok", Reading::Synced);
        assert_eq!(ready().await, not("caches are filling"));
        readiness.reads("gone", Reading::Denied);
        assert_eq!(ready().await, None, "one namespace is no reason to do nothing for the others");
        readiness.crd(Crd::Missing);
        assert_eq!(ready().await, not(Crd::MISSING), "it went later");
        readiness.crd(Crd::There);
        readiness.reads("ok", Reading::Denied);
        assert_eq!(ready().await, not("may not be read: gone, ok"));
        assert_eq!(get("/metrics").await.0, 200);
        stop.cancel();
        server.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn by_default_probes_are_answered_over_ipv4_and_ipv6() {
        let mut address = Args::parse_from(["op"]).metrics_addr;
        address.set_port(0);
        let listener = listen::bind(address).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (metrics, stop) = (Arc::new(Metrics::new()), CancellationToken::new());
        let server = tokio::spawn(serve(listener, Arc::default(), metrics, stop.clone()));
        // IPv6 is not everywhere.
        let loopbacks = ["127.0.0.1", "[::1]"];
        let there = |host: &&str| std::net::TcpListener::bind(format!("{host}:0")).is_ok();
        for host in loopbacks.into_iter().filter(there) {
            let answer = reqwest::get(format!("http://{host}:{port}/healthz")).await.unwrap();
            assert_eq!(answer.status().as_u16(), 200, "{host}");
        }
        stop.cancel();
        server.await.unwrap().unwrap();
    }
}
