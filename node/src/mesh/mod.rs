//! Links between the nodes of a cluster: TCP, authenticated, one link for each direction.
//!
//! Node X dials Y to carry what is broadcast on X to Y. Y learns X's own address in the handshake
//! and dials it back at once, so that a new node is linked both ways after one lookup. At most
//! once (`P-PS-3`): nothing is acknowledged or repeated, what finds no room is dropped and counted.
//! One sender's broadcasts reach a node in order (`P-PS-4`): one queue, one connection at a time.
//!
//! The mesh never blocks a sender and never says a word of substance to whoever lacks the token.

pub mod codec;
pub mod handshake;
mod inbound;
pub mod metrics;
mod outbound;
mod peers;
pub mod transport;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sluice_node_api::admin::PeerStatus;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::keys::Keys;
use crate::pubsub::{Adapter, Broadcast, Instance, Local, Signal};
use crate::queue::Item;
use handshake::Identity;
use metrics::{MeshMetrics, count};
use peers::Peers;
use transport::Transport;

/// Most peers a node links to; addresses past that are ignored and logged.
pub const MAX_PEERS: usize = 1024;

/// The times of a link.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats, both ways.
    pub heartbeat: Duration,
    /// Without a byte for this long the other end is taken for dead.
    pub silence: Duration,
    /// For connecting, and again for the handshake.
    pub handshake: Duration,
    /// The shortest pause before dialling again.
    pub retry_min: Duration,
    /// The longest.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(1),
            silence: Duration::from_secs(5),
            handshake: Duration::from_secs(3),
            retry_min: Duration::from_millis(100),
            retry_max: Duration::from_secs(2),
        }
    }
}

/// What a mesh is made of.
pub struct MeshConfig {
    /// Who this node is. Cluster and name at most 255 bytes.
    pub identity: Identity,
    /// The cluster's mesh token.
    pub keys: Keys,
    /// Bytes that may wait for one peer.
    pub peer_buffer: usize,
    /// The times of a link.
    pub timing: Timing,
}

/// A cheap handle to this node's mesh.
#[derive(Clone)]
pub struct Mesh(Arc<Inner>);

struct Inner {
    config: MeshConfig,
    transport: Arc<dyn Transport>,
    local: Arc<dyn Local>,
    metrics: MeshMetrics,
    peers: Peers,
    /// Discovery has told of every node that was there before this one.
    whole: AtomicBool,
    /// When a refusal was last logged: strangers must not fill the log.
    refusal_logged: Mutex<Option<Instant>>,
    /// Stop politely: flush, say goodbye.
    leaving: CancellationToken,
    /// Stop now.
    stop: CancellationToken,
    outbound_tasks: TaskTracker,
    inbound_tasks: TaskTracker,
}

impl Mesh {
    /// Starts taking links on `listener` and delivering what comes to `local`.
    pub fn start(
        config: MeshConfig,
        listener: TcpListener,
        transport: Arc<dyn Transport>,
        local: Arc<dyn Local>,
    ) -> Self {
        let inner = Arc::new(Inner {
            config,
            transport,
            local,
            whole: AtomicBool::new(false),
            refusal_logged: Mutex::default(),
            metrics: MeshMetrics::default(),
            peers: Peers::default(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            outbound_tasks: TaskTracker::new(),
            inbound_tasks: TaskTracker::new(),
        });
        inner.inbound_tasks.spawn(inbound::accept(inner.clone(), listener));
        Self(inner)
    }

    /// The addresses that discovery sees now. New ones are dialled; those no longer listed keep
    /// their link while it lives.
    pub fn set_discovered(&self, view: &BTreeSet<SocketAddr>) {
        if view.len() > MAX_PEERS {
            warn!(listed = view.len(), limit = MAX_PEERS, "too many peers: the rest is ignored");
        }
        self.0.peers.set_listed(view.iter().take(MAX_PEERS).copied().collect());
        for addr in view.iter().take(MAX_PEERS) {
            outbound::ensure(&self.0, *addr);
        }
    }

    /// Discovery has told of every node that was there before this one.
    pub fn set_whole(&self) {
        self.0.whole.store(true, Ordering::Release);
    }

    /// Whether what is broadcast here reaches every node that was there before this one.
    pub fn formed(&self) -> bool {
        self.0.whole.load(Ordering::Acquire) && self.peers().iter().all(|p| p.outbound)
    }

    /// The other nodes, by address.
    pub fn peers(&self) -> Vec<PeerStatus> {
        self.0.peers.status()
    }

    /// Peers linked both ways.
    pub fn linked(&self) -> usize {
        self.peers().iter().filter(|p| p.inbound && p.outbound).count()
    }

    /// Leaves: sends what waits, says goodbye, and is gone after `bound` at the latest.
    pub async fn leave(&self, bound: Duration) {
        self.0.leaving.cancel();
        self.0.outbound_tasks.close();
        self.0.inbound_tasks.close();
        let flushed = tokio::time::timeout(bound, self.0.outbound_tasks.wait()).await;
        if flushed.is_err() {
            warn!(?bound, "left the mesh before everything was sent");
        }
        self.0.stop.cancel();
        self.0.outbound_tasks.wait().await;
        self.0.inbound_tasks.wait().await;
    }

    /// Registers the mesh's metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.0.metrics.register(registry);
        registry.register_collector(Box::new(Gauges(self.clone())));
    }
}

impl Inner {
    /// Whether a refusal may be logged: once a second, all being counted.
    fn may_log_refusal(&self) -> bool {
        let mut last = self.refusal_logged.lock();
        let may = last.is_none_or(|at| at.elapsed() > Duration::from_secs(1));
        if may {
            *last = Some(Instant::now());
        }
        may
    }
}

impl Mesh {
    /// Queues a frame for the node `to`, or for every node.
    fn queue(&self, frame: Option<Item>, to: Option<Instance>) {
        let Some(frame) = frame else {
            count(&self.0.metrics.dropped, "too_long", 1);
            return;
        };
        self.0.peers.each_node(|peer| {
            if to.is_none() || peer.seen.lock().instance == to {
                let dropped = peer.queue.push(frame.clone());
                count(&self.0.metrics.dropped, "full", dropped.full);
                count(&self.0.metrics.dropped, "stale", dropped.stale);
            }
        });
    }
}

impl Adapter for Mesh {
    fn send(&self, broadcast: &Broadcast) {
        self.queue(codec::encode(broadcast), None);
    }

    fn signal(&self, to: Option<Instance>, signal: &Signal, until: Option<Instant>) {
        let frame = codec::encode_signal(signal);
        self.queue(frame.map(|frame| Item { until, ..frame }), to);
    }

    /// Every node gets every broadcast, so there is nothing to wait for. Routing by interest
    /// would tell the peers here, and hold the future until the linked ones have heard it.
    fn subscribe(&self, _topic: &Arc<str>) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    fn unsubscribe(&self, _topic: &Arc<str>) {}
}

/// Gauges read from the live state at each scrape.
struct Gauges(Mesh);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let peers = self.0.peers();
        let mut links =
            encoder.encode_descriptor("mesh_links", "Links up", None, MetricType::Gauge)?;
        let outbound = peers.iter().filter(|p| p.outbound).count() as i64;
        let inbound = peers.iter().filter(|p| p.inbound).count() as i64;
        for (direction, n) in [("outbound", outbound), ("inbound", inbound)] {
            let labels = [("direction", direction)];
            ConstGauge::new(n).encode(links.encode_family(&labels)?)?;
        }
        for (name, help, n) in [
            ("mesh_peers", "Other nodes known, linked or not", peers.len()),
            ("mesh_linked", "Peers linked both ways", self.0.linked()),
            ("mesh_queue_bytes", "Bytes that wait for peers", self.0.0.peers.queued_bytes()),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(n as i64).encode(gauge)?;
        }
        Ok(())
    }
}
