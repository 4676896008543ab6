//! Starts the data plane: shards, listener, [`Hub`].

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use axum::Router;
use bytes::Bytes;
use sluice_node_api::config::{LiveConfig, NodeConfig};
use tokio_util::sync::CancellationToken;

use crate::{
    accept,
    channel::Mount,
    handshake,
    hub::Hub,
    keys::Keys,
    listen,
    plane::{Plane, Settings},
    shard,
    webhook::Webhook,
};

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
    /// The path of a mount is none, or is that of another.
    #[error("cannot serve sockets under {path:?}: {why}")]
    Mount {
        /// The path as the mount has it.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A shard's thread or runtime could not be made.
    #[error("cannot start a shard")]
    Shard(#[source] std::io::Error),
}

/// A data plane that is not started yet.
///
/// ```no_run
/// # async fn example() -> Result<(), sluice_node::server::StartError> {
/// use sluice_node::server::Builder;
/// use tokio_util::sync::CancellationToken;
///
/// let config = sluice_node_api::config::NodeConfig::default();
/// let shutdown = CancellationToken::new();
/// let (hub, address) = Builder::new(&config).name("chat-0").start(shutdown.clone()).await?;
/// println!("{address} has {} sockets", hub.counts().connections);
/// shutdown.cancel();
/// hub.stopped().await;
/// # Ok(())
/// # }
/// ```
pub struct Builder {
    config: NodeConfig,
    name: String,
    live: Arc<LiveConfig>,
    shards: usize,
    routes: Router,
    mounts: Vec<Mount>,
    secret: Keys,
    webhook: Option<Webhook>,
}

impl Builder {
    /// With `config`'s socket settings, the default topic rules and one shard a core.
    pub fn new(config: &NodeConfig) -> Self {
        Self {
            config: config.clone(),
            name: String::new(),
            live: Arc::default(),
            shards: 0,
            routes: Router::new(),
            mounts: Vec::new(),
            secret: Keys::new(Bytes::copy_from_slice(&rand::random::<[u8; 32]>())),
            webhook: None,
        }
    }

    /// The node's name, as joins announce it.
    #[must_use]
    pub fn name(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The topic rules.
    #[must_use]
    pub fn live(self, live: Arc<LiveConfig>) -> Self {
        Self { live, ..self }
    }

    /// How many shards; 0 is one a core.
    #[must_use]
    pub fn shards(self, shards: usize) -> Self {
        Self { shards, ..self }
    }

    /// Routes to serve beside the socket, on the clients' address.
    #[must_use]
    pub fn routes(self, routes: Router) -> Self {
        Self { routes, ..self }
    }

    /// Serves sockets under the mount's path. Without any mount the node relays topics by its
    /// rules, under the configured path.
    #[must_use]
    pub fn mount(mut self, mount: Mount) -> Self {
        self.mounts.push(mount);
        self
    }

    /// What all nodes of a cluster share, to sign long-poll sessions: any of them can serve the
    /// sessions of the others (`P-LP-7`).
    #[must_use]
    pub fn secret(self, secret: impl Into<Vec<u8>>) -> Self {
        self.secrets(Keys::new(Bytes::from(secret.into())))
    }

    /// As [`Builder::secret`], of one that may be replaced while the node runs.
    #[must_use]
    pub fn secrets(self, secret: Keys) -> Self {
        Self { secret, ..self }
    }

    /// The backend that topic rules may call.
    #[must_use]
    pub fn webhook(self, webhook: Webhook) -> Self {
        Self { webhook: Some(webhook), ..self }
    }

    /// Starts; see [`start`].
    ///
    /// # Errors
    ///
    /// When a mount's path is none or that of another, the address cannot be bound, or a thread cannot be
    /// started.
    pub async fn start(self, shutdown: CancellationToken) -> Result<(Hub, SocketAddr), StartError> {
        let Self { config, name, live, shards, routes, mut mounts, secret, webhook } = self;
        let refused = |source| StartError::Listen { address: config.listen.http.clone(), source };
        let listener = listen::bind(&config.listen.http).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let shards = if shards == 0 { cores() } else { shards }.min(usize::from(u16::MAX));
        let stop = shutdown.clone();
        if mounts.is_empty() {
            mounts.push(Mount::stock(&config.socket));
        }
        check_paths(&mounts)?;
        let settings = Settings::from(&config.socket);
        let mounts: Vec<_> =
            mounts.into_iter().map(|mount| Arc::new(mount.or(&settings))).collect();
        let idle = mounts.iter().flat_map(|mount| [mount.idle_timeout, mount.longpoll]);
        let idle = idle.flatten().min();
        let idle = idle.unwrap_or(settings.idle_timeout);
        let mut plane = Plane::new(name, &config.socket, &live, idle, secret, shards, stop);
        plane.webhook = webhook;
        let plane = Arc::new(plane);
        let routes = handshake::routes(&mounts, &plane, routes);
        for id in 0..shards {
            let id = u16::try_from(id).unwrap_or(u16::MAX);
            if let Err(error) = shard::spawn(id, plane.clone(), routes.clone()) {
                shutdown.cancel();
                return Err(StartError::Shard(error));
            }
        }
        tokio::spawn(accept::accept(listener, plane.clone(), shutdown));
        Ok((Hub::start(plane), address))
    }
}

/// What a router would panic at.
fn check_paths(mounts: &[Mount]) -> Result<(), StartError> {
    let mut seen = BTreeSet::new();
    for Mount { path, .. } in mounts {
        let wrong = |why| Err(StartError::Mount { path: path.clone(), why });
        if !(path.is_empty() || path.starts_with('/')) {
            return wrong("it must begin with a slash, such as `/socket`");
        }
        let named = |part: &str| part.strip_prefix('{')?.strip_suffix('}').map(str::to_owned);
        let plain = |part: &str| !part.is_empty() && !part.contains(['{', '}', '*', '?', '#']);
        let parts = || path.split('/').skip(1);
        if !parts().all(|part| plain(&named(part).unwrap_or_else(|| part.to_owned()))) {
            return wrong("each part must be letters, or one `{name}`");
        }
        let shape: Vec<_> = parts().map(|part| named(part).map_or(part, |_| "{}")).collect();
        if !seen.insert(shape) {
            return wrong("another mount has it");
        }
    }
    Ok(())
}

/// Starts the data plane with `shards` threads (0: one a core) and serves `config.listen.http`.
/// Gives the handle and the bound address. When `shutdown` is cancelled, no connection is taken
/// any more, what is open is closed with code 1012, and [`Hub::stopped`] ends.
///
/// # Errors
///
/// When the address cannot be bound or a thread cannot be started.
pub async fn start(
    config: &NodeConfig,
    node_name: String,
    live: Arc<LiveConfig>,
    shards: usize,
    shutdown: CancellationToken,
) -> Result<(Hub, SocketAddr), StartError> {
    Builder::new(config).name(node_name).live(live).shards(shards).start(shutdown).await
}
