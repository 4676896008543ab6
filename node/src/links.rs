//! How this node reaches the others: not at all, by the mesh, or through Redis.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use sluice_node_api::admin::{PeerStatus, RedisFailure};
use tokio::time::Instant;

use crate::mesh::Mesh;
use crate::pubsub::Adapter;
use crate::redis_adapter::RedisAdapter;

/// How long a new node waits for peers that it does not reach, or for its own entry among them.
const FORMED_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const FORMED_LOOK: Duration = Duration::from_millis(20);

/// The adapter in force, and what can be asked of it beyond carrying broadcasts.
#[derive(Clone)]
pub enum Links {
    /// The node runs alone.
    Alone,
    /// By the mesh.
    Mesh(Mesh),
    /// Through Redis.
    Redis(RedisAdapter),
}

impl Links {
    /// What carries broadcasts; none when alone.
    pub fn adapter(&self) -> Option<Arc<dyn Adapter>> {
        match self {
            Self::Alone => None,
            Self::Mesh(mesh) => Some(Arc::new(mesh.clone())),
            Self::Redis(redis) => Some(Arc::new(redis.clone())),
        }
    }

    /// The other nodes; empty without a mesh.
    pub fn peers(&self) -> Vec<PeerStatus> {
        match self {
            Self::Mesh(mesh) => mesh.peers(),
            _ => Vec::new(),
        }
    }

    /// Whether Redis is connected; `None` without Redis.
    pub fn redis_connected(&self) -> Option<bool> {
        match self {
            Self::Redis(redis) => Some(redis.connected()),
            _ => None,
        }
    }

    /// Why Redis is not connected, if it is not.
    pub fn redis_failure(&self) -> Option<RedisFailure> {
        match self {
            Self::Redis(redis) => redis.failure(),
            _ => None,
        }
    }

    /// Ends when a broadcast made here reaches the other nodes, or when a peer that is not to be
    /// reached has been waited for long enough.
    pub async fn formed(&self) {
        let formed = || match self {
            Self::Alone => true,
            Self::Mesh(mesh) => mesh.formed(),
            Self::Redis(redis) => redis.connected(),
        };
        let end = Instant::now() + FORMED_WITHIN;
        while !formed() && Instant::now() < end {
            tokio::time::sleep(FORMED_LOOK).await;
        }
    }

    /// Sends what waits and leaves, within `bound`.
    pub async fn leave(&self, bound: Duration) {
        match self {
            Self::Alone => {}
            Self::Mesh(mesh) => mesh.leave(bound).await,
            Self::Redis(redis) => redis.leave(bound).await,
        }
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        match self {
            Self::Alone => {}
            Self::Mesh(mesh) => mesh.register(registry),
            Self::Redis(redis) => redis.register(registry),
        }
    }
}
