//! The admin API, port 4002: probes and metrics for everyone, the rest by the admin token. What is
//! said on the wire stands in `sluice_node_api::admin`.
//!
//! Level-triggered: every call may be repeated. Nothing here decides when to drain.

mod routes;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::routing::{get, post};
use jiff::Timestamp;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use sluice_node_api::admin::{DrainRequest, NodeStatus};

use crate::api::{Token, error};
use crate::config::{Env, LiveFile};
use crate::hub::Hub;
use crate::links::Links;

/// Largest body, in bytes.
const MAX_BODY: usize = 64 << 10;

/// What the admin API shows and moves.
#[derive(Clone)]
pub struct Admin(Arc<Inner>);

struct Inner {
    hub: Hub,
    links: Links,
    live: LiveFile,
    env: Env,
    token: Token,
    registry: Registry,
    started_at: Timestamp,
    formed: Arc<AtomicBool>,
    leaving: AtomicBool,
    drain: Mutex<Option<DrainRequest>>,
}

impl Admin {
    /// Of this node; `formed`: it serves, and reaches its peers.
    pub fn new(
        hub: Hub,
        links: Links,
        live: LiveFile,
        env: Env,
        token: Token,
        registry: Registry,
        formed: Arc<AtomicBool>,
    ) -> Self {
        Self(Arc::new(Inner {
            hub,
            links,
            live,
            env,
            token,
            registry,
            started_at: Timestamp::now(),
            formed,
            leaving: AtomicBool::new(false),
            drain: Mutex::new(None),
        }))
    }

    /// From now on the node is not ready any more, and its drain is its own: nobody ends it or
    /// slows it down.
    pub fn set_leaving(&self) {
        // A call that is under way is over first.
        let _asked = self.0.drain.lock();
        self.0.leaving.store(true, Ordering::Release);
    }

    fn leaves(&self) -> bool {
        self.0.leaving.load(Ordering::Acquire)
    }

    /// What `/readyz` answers. A cordon or a drain does not change it.
    pub fn ready(&self) -> bool {
        self.0.formed.load(Ordering::Acquire) && !self.leaves()
    }

    /// What the last `POST /drain` asked for, until a `DELETE /drain`.
    pub fn drain_asked(&self) -> Option<DrainRequest> {
        self.0.drain.lock().clone()
    }

    /// What `GET /status` answers now.
    pub fn status(&self) -> NodeStatus {
        let counts = self.0.hub.counts();
        NodeStatus {
            node: self.0.env.node.clone(),
            pod_uid: self.0.env.pod_uid.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Some(self.0.started_at),
            connections: counts.connections,
            capacity: self.0.hub.capacity(),
            channels: counts.channels,
            cordoned: self.0.hub.cordoned(),
            cordon_seconds_left: self.0.hub.cordon_left().map(|left| left.as_secs_f64()),
            drain: self.0.hub.drain_status(),
            shedding: self.0.hub.shedding(),
            shed: self.0.hub.shed_ever(),
            peers: self.0.links.peers(),
            redis_connected: self.0.links.redis_connected(),
            redis_failure: self.0.links.redis_failure(),
            live_config_hash: self.0.live.hash(),
            live_config_refused: self.0.live.refused(),
        }
    }

    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/healthz", get(routes::healthz))
            .route("/readyz", get(routes::readyz))
            .route("/metrics", get(routes::metrics))
            .route("/status", get(routes::status))
            .route(
                "/drain",
                get(routes::drain_status).post(routes::drain).delete(routes::cancel_drain),
            )
            .route("/cordon", post(routes::cordon).delete(routes::uncordon))
            .route("/shed", post(routes::shed))
            .fallback(error::not_found)
            .method_not_allowed_fallback(error::wrong_method)
            .with_state(self)
    }
}
