//! The handle by which the rest of a node talks to its data plane.
//!
//! A [`Hub`] never holds a socket: it passes work to the shards and reads counters. Every call
//! returns at once, from any thread.

use std::sync::Arc;

use prometheus_client::registry::Registry;
use sluice_node_api::{
    admin::{DrainRequest, DrainStatus, ShedRequest, ShedResponse},
    config::LiveConfig,
};

use crate::pubsub::{Adapter, Broadcast, Local};

/// What is open on this node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Channel sockets, with or without channels.
    pub connections: u64,
    /// Channels joined, over all sockets.
    pub channels: u64,
}

/// A cheap handle to a running data plane.
#[derive(Clone)]
pub struct Hub {}

impl Hub {
    /// Puts the adapter in force that carries broadcasts to the other nodes; until then there is
    /// none. Topics that already have subscribers are subscribed again through it.
    pub fn set_adapter(&self, _adapter: Arc<dyn Adapter>) {}

    /// Broadcasts to every node: through the adapter, then to the subscribers here (`P-PS-2`).
    pub fn broadcast(&self, _broadcast: Broadcast) {}

    /// Puts other topic rules in force, from the next message on.
    pub fn set_live(&self, _live: Arc<LiveConfig>) {}

    /// What is open on this node.
    pub fn counts(&self) -> Counts {
        Counts::default()
    }

    /// Refuses new connections with 503, or takes them again.
    pub fn cordon(&self, _on: bool) {}

    /// Whether [`Hub::cordon`] is on; a drain refuses connections without it.
    pub fn cordoned(&self) -> bool {
        false
    }

    /// Starts a drain, or changes the one under way, and renews its TTL.
    pub fn start_drain(&self, _request: DrainRequest) -> DrainStatus {
        DrainStatus::default()
    }

    /// How far the drain is.
    pub fn drain_status(&self) -> DrainStatus {
        DrainStatus::default()
    }

    /// Ends the drain: the node takes connections again.
    pub fn cancel_drain(&self) -> DrainStatus {
        DrainStatus::default()
    }

    /// Closes some sockets with code 1012, paced, and goes on serving.
    pub fn shed(&self, _request: ShedRequest) -> ShedResponse {
        ShedResponse { shedding: 0 }
    }

    /// Ends when a drain is over: phase `Drained`. Never ends without a drain.
    pub async fn drained(&self) {}

    /// Ends when, after shutdown, every shard has closed its sockets and its thread is gone.
    pub async fn stopped(&self) {}

    /// Registers the data plane's metrics.
    pub fn register(&self, _registry: &mut Registry) {}
}

impl Local for Hub {
    fn deliver(&self, _broadcast: Broadcast) {}
}
