//! Starts the parts of a node and ties them together.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use futures::FutureExt;
use prometheus_client::registry::Registry;
use sluice_node_api::config::{Adapter, NodeConfig};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::admin::Admin;
use crate::api::Token;
use crate::api::serve::{Limits, serve};
use crate::channel::Mount;
use crate::config::{Env, Loaded, live};
use crate::discovery::{self, DiscoveryMetrics, View, dns::Dns};
use crate::files;
use crate::hub::{Hub, PresenceQuery};
use crate::keys::Keys;
use crate::links::Links;
use crate::listen;
use crate::mesh::handshake::{Identity, Instance};
use crate::mesh::transport::Tcp;
use crate::mesh::{Mesh, MeshConfig, Timing};
use crate::process::Process;
use crate::publish::{Publish, PublishMetrics};
use crate::redis_adapter::{RedisAdapter, RedisConfig};
use crate::server::Builder;
use crate::webhook::{Door, Webhook};

const ADMIN: Limits = Limits { connections: 256, per_ip: 64, request: Duration::from_secs(10) };
const PUBLISH: Limits = Limits { connections: 1024, per_ip: 512, request: Duration::from_secs(30) };

/// Where a node listens, as bound.
#[derive(Clone, Copy, Debug)]
pub struct Addresses {
    /// Clients.
    pub http: SocketAddr,
    /// Other nodes; absent without a mesh.
    pub mesh: Option<SocketAddr>,
    /// Admin API.
    pub admin: SocketAddr,
    /// Publish API.
    pub publish: SocketAddr,
}

/// A node that runs.
pub struct Node {
    /// Where it listens.
    pub addresses: Addresses,
    /// Its admin API.
    pub admin: Admin,
    /// Its data plane.
    pub hub: Hub,
    pub(super) links: Links,
    pub(super) webhook: Option<Webhook>,
    pub(super) live: crate::config::LiveFile,
    pub(super) shutdown_bound: Duration,
    /// Takes no more publishes and looks for no more changes.
    pub(super) stop_intake: CancellationToken,
    /// Closes the sockets.
    pub(super) stop_sockets: CancellationToken,
    /// Closes the admin API.
    pub(super) stop_admin: CancellationToken,
    pub(super) intake: TaskTracker,
    pub(super) last: TaskTracker,
}

/// Starts everything; every address is bound before this returns.
///
/// # Errors
/// An address that is taken or cannot be bound, a thread that cannot be started.
pub async fn start(loaded: Loaded, shards: usize) -> anyhow::Result<Node> {
    let Loaded { config, env, tokens, auth, webhook_secrets, live } = loaded;
    let admin_listener = bind("listen.admin", &config.listen.admin).await?;
    let publish_listener = bind("listen.publish", &config.listen.publish).await?;
    let meshed = config.pubsub.adapter == Adapter::Mesh;
    let mesh_listener = match tokens.mesh.clone().filter(|_| meshed) {
        Some(keys) => Some((bind("listen.mesh", &config.listen.mesh).await?, keys)),
        None => None,
    };
    let stop_sockets = CancellationToken::new();
    let stop_intake = CancellationToken::new();
    // A start that fails half way leaves nothing running.
    let guards = [stop_sockets.clone().drop_guard(), stop_intake.clone().drop_guard()];

    let mut builder = Builder::new(&config).name(&env.node).live(live.config()).shards(shards);
    let webhook = match (&config.webhooks, webhook_secrets) {
        (Some(settings), Some(secrets)) => {
            let made = Webhook::new(settings.clone(), secrets, &config.cluster, &env.node);
            Some(made.map_err(|(field, reason)| anyhow::anyhow!("webhooks.{field}: {reason}"))?)
        }
        _ => None,
    };
    let path = &config.socket.path;
    let mount = match (&webhook, &auth) {
        (Some(webhook), auth) => Some(Mount::new(path, Door::new(webhook.clone(), auth.clone()))),
        (None, Some(auth)) => Some(Mount::new(path, auth.clone())),
        (None, None) => None,
    };
    if let Some(mount) = mount {
        builder = builder.mount(mount.auth_token().stock_longpoll(&config.socket));
    }
    if let Some(webhook) = &webhook {
        builder = builder.webhook(webhook.clone());
    }
    // Nodes with the same mesh token serve each other's long-poll sessions, through Redis too.
    if let Some(keys) = &tokens.mesh {
        builder = builder.secrets(keys.clone());
    }
    let (hub, http) = builder.start(stop_sockets.clone()).await?;

    let mut addresses = Addresses {
        http,
        mesh: None,
        admin: admin_listener.local_addr()?,
        publish: publish_listener.local_addr()?,
    };
    let intake = TaskTracker::new();
    if let Some(auth) = auth.clone() {
        intake.spawn(auth.run(stop_intake.clone()));
    }
    let discovery_metrics = DiscoveryMetrics::default();
    let links = if let Some((listener, keys)) = mesh_listener {
        let own = listener.local_addr()?;
        addresses.mesh = Some(own);
        let mesh = start_mesh(&config, &env, keys, listener, own, &hub);
        let own = env.ip().map(|ip| SocketAddr::new(ip, own.port()));
        let view = View::new(&config.discovery, own, Instant::now());
        let (alone, apply) = (mesh.clone(), mesh.clone());
        intake.spawn(discovery::run(
            view,
            Arc::new(Dns::default()),
            discovery_metrics.clone(),
            move || alone.linked() == 0,
            move |peers, whole| {
                apply.set_discovered(peers);
                if whole {
                    apply.set_whole();
                }
            },
            stop_intake.clone(),
        ));
        Links::Mesh(mesh)
    } else if let (Adapter::Redis, Some(redis)) = (config.pubsub.adapter, &config.pubsub.redis) {
        let redis = RedisConfig {
            url_file: PathBuf::from(&redis.url_file),
            cluster: config.cluster.clone(),
            instance: hub.instance(),
            buffer: buffer(&config),
        };
        if tokens.mesh.is_none() {
            warn!("no mesh token: no other node serves the long-poll sessions of this one");
        }
        Links::Redis(RedisAdapter::start(redis, Arc::new(hub.clone())))
    } else {
        info!("no mesh token: the node runs alone");
        Links::Alone
    };
    if let Some(adapter) = links.adapter() {
        hub.set_adapter(adapter);
    }

    let apply = hub.clone();
    intake.spawn(live.clone().watch(live::INTERVAL, stop_intake.clone(), move |config| {
        apply.set_live(config);
    }));
    if let Some(webhook) = webhook.clone() {
        intake.spawn(webhook.watch(live::INTERVAL, stop_intake.clone()));
    }
    intake.spawn(tokens.clone().watch(live::INTERVAL, stop_intake.clone()));

    let publish_metrics = PublishMetrics::default();
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    hub.register(&mut registry);
    let ours = registry.sub_registry_with_prefix("sluice");
    links.register(ours);
    live.register(ours);
    discovery_metrics.register(ours);
    publish_metrics.register(ours);
    if let Some(auth) = &auth {
        auth.register(ours);
    }
    if let Some(webhook) = &webhook {
        webhook.register(ours);
    }

    let files = files::of_server();
    let token = Token::new(tokens.admin.clone());
    // A node that does not reach its peers yet is not ready: whoever publishes by a Service is not led
    // to one that must refuse.
    let formed = Arc::new(AtomicBool::new(false));
    let admin = Admin::new(
        hub.clone(),
        links.clone(),
        live.clone(),
        env.clone(),
        token,
        registry,
        formed.clone(),
    );
    let (stop_admin, last) = (CancellationToken::new(), TaskTracker::new());
    last.spawn(serve(
        admin_listener,
        admin.clone().router(),
        ADMIN.within(files),
        stop_admin.clone(),
    ));

    let sink = hub.clone();
    let token = Token::new(tokens.publish.clone());
    let lister = hub.clone();
    let list = move |query| {
        let hub = lister.clone();
        async move { hub.topics(query).await }.boxed()
    };
    let sink = move |broadcast| sink.broadcast(broadcast);
    let known = hub.clone();
    let who = Arc::new(move |query: &PresenceQuery| known.presences(query));
    let (sink, list) = (Arc::new(sink), Arc::new(list));
    let publish = Publish::new(token, sink, list, who, formed.clone(), publish_metrics);
    let (waits, stop) = (links.clone(), stop_intake.clone());
    intake.spawn(async move {
        if stop.run_until_cancelled(waits.formed()).await.is_some() {
            formed.store(true, Ordering::Release);
        }
    });
    intake.spawn(serve(
        publish_listener,
        publish.router(),
        PUBLISH.within(files),
        stop_intake.clone(),
    ));

    for (name, token) in [("admin", &tokens.admin), ("publish", &tokens.publish)] {
        if token.is_none() {
            warn!("no {name} token: the {name} API refuses every call that needs one");
        }
    }
    info!(node = env.node, ?addresses, "the node serves");
    for guard in guards {
        guard.disarm();
    }
    Ok(Node {
        addresses,
        admin,
        hub,
        links,
        webhook,
        live,
        shutdown_bound: Duration::from_secs(config.shutdown_seconds.into()),
        stop_intake,
        stop_sockets,
        stop_admin,
        intake,
        last,
    })
}

fn start_mesh(
    config: &NodeConfig,
    env: &Env,
    keys: Keys,
    listener: TcpListener,
    own: SocketAddr,
    hub: &Hub,
) -> Mesh {
    let instance: Instance = hub.instance();
    let bound_ip = Some(own.ip()).filter(|ip| !ip.is_unspecified());
    let mesh = MeshConfig {
        identity: Identity {
            cluster: config.cluster.clone(),
            name: env.node.clone(),
            instance,
            ip: env.ip().or(bound_ip),
            port: own.port(),
        },
        keys,
        peer_buffer: buffer(config),
        routing: config.pubsub.routing,
        timing: Timing::default(),
    };
    Mesh::start(mesh, listener, Arc::new(Tcp), Arc::new(hub.clone()))
}

fn buffer(config: &NodeConfig) -> usize {
    usize::try_from(config.pubsub.peer_buffer_bytes).unwrap_or(usize::MAX)
}

async fn bind(field: &str, address: &str) -> anyhow::Result<TcpListener> {
    listen::bind(address).await.with_context(|| {
        format!("cannot listen on {address} ({field}): choose another address, or end what has it")
    })
}
