//! Links between the nodes of a cluster: TCP, authenticated, one link for each direction.
//!
//! Node X dials Y to carry what is broadcast on X to Y. Y learns X's own address in the handshake
//! and dials it back at once, so that a new node is linked both ways after one lookup. At most
//! once (`P-PS-3`): no broadcast is acknowledged or repeated, what finds no room is dropped and counted.
//! One sender's broadcasts reach a node in order (`P-PS-4`): one queue, one connection at a time.
//!
//! On that same link Y tells X what it wants (`wanted`), and X sends only that once it has heard all
//! of it (`heard`). So what a node knows of a peer never outlives the link that it is for, and a peer that says
//! nothing gets everything.
//!
//! The mesh never blocks a sender and never says a word of substance to whoever lacks the token.

pub mod codec;
mod gauges;
pub mod handshake;
mod heard;
mod inbound;
pub mod metrics;
mod outbound;
mod peers;
pub mod transport;
mod wanted;
pub mod words;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use sluice_node_api::admin::PeerStatus;
use sluice_node_api::config::Routing;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::arrivals::DISCONNECT;
use crate::keys::Keys;
use crate::pubsub::{Adapter, Broadcast, Instance, Local, Signal};
use crate::queue::Item;
use handshake::Identity;
use heard::Marker;
use metrics::{MeshMetrics, count};
use peers::Peers;
use transport::Transport;
use wanted::{Bounds, Wanted};

/// Most peers a node links to; addresses past that are ignored and logged.
pub const MAX_PEERS: usize = 1024;

/// How long a join waits for peers to confirm its topic. One that does not speak at all is cut
/// off as soon.
const CONFIRM_WAIT: Duration = Duration::from_secs(5);
/// Between two looks for what is not wanted any more.
const LOOK: Duration = Duration::from_millis(250);

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
    /// Which nodes a broadcast is sent to.
    pub routing: Routing,
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
    marker: Marker,
    wanted: Mutex<Wanted>,
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
            marker: Marker::default(),
            wanted: Mutex::new(Wanted::new(Bounds::default())),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            outbound_tasks: TaskTracker::new(),
            inbound_tasks: TaskTracker::new(),
        });
        inner.inbound_tasks.spawn(inbound::accept(inner.clone(), listener));
        if inner.routes() {
            inner.inbound_tasks.spawn(expire(inner.clone()));
        }
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
        registry.register_collector(Box::new(gauges::Gauges(self.clone())));
    }
}

/// Unwants what nobody has subscribed for long enough, until the mesh ends.
async fn expire(inner: Arc<Inner>) {
    while inner.stop.run_until_cancelled(tokio::time::sleep(LOOK)).await.is_some() {
        inner.wanted.lock().expire(Instant::now());
    }
}

impl Inner {
    /// Whether nodes are sent only what they want.
    fn routes(&self) -> bool {
        self.config.routing == Routing::Interest
    }

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

/// Whether a broadcast is for every node: it closes sockets by their id, also those whose node is only
/// about to know it. An event of that name on a topic of channels is one too many for nodes without
/// subscribers, and does no harm.
fn is_for_all(broadcast: &Broadcast) -> bool {
    &*broadcast.event == DISCONNECT
}

impl Mesh {
    /// Queues a frame for each node that it is `meant` for. It is made for the first of them.
    fn queue(&self, make: impl Fn() -> Option<Item>, mut meant: impl FnMut(&peers::Peer) -> bool) {
        let mut made = None;
        self.0.peers.each_node(|peer| {
            if !meant(peer) {
                return;
            }
            if let Some(frame) = made.get_or_insert_with(&make) {
                let dropped = peer.queue.push(frame.clone());
                count(&self.0.metrics.dropped, "full", dropped.full);
                count(&self.0.metrics.dropped, "stale", dropped.stale);
            }
        });
        if let Some(None) = made {
            count(&self.0.metrics.dropped, "too_long", 1);
        }
    }
}

impl Adapter for Mesh {
    fn send(&self, broadcast: &Broadcast) {
        let make = || codec::encode(broadcast);
        if !self.0.routes() || is_for_all(broadcast) {
            return self.queue(make, |_| true);
        }
        let mark = self.0.marker.mark(&broadcast.topic);
        let mut unwanted = 0;
        self.queue(make, |peer| {
            let wants = peer.heard.wants(&broadcast.topic, mark);
            unwanted += u64::from(!wants);
            wants
        });
        if unwanted > 0 {
            self.0.metrics.unwanted.inc_by(unwanted);
        }
    }

    fn signal(&self, to: Option<Instance>, signal: &Signal, until: Option<Instant>) {
        let meant = |peer: &peers::Peer| to.is_none() || peer.seen.lock().instance == to;
        let make = || codec::encode_signal(signal).map(|frame| Item { until, ..frame });
        self.queue(make, meant);
    }

    fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()> {
        let wait = match self.0.routes() {
            true => self.0.wanted.lock().want(topic),
            false => None,
        };
        let Some(confirmed) = wait else { return Box::pin(std::future::ready(())) };
        let unconfirmed = self.0.metrics.unconfirmed.clone();
        Box::pin(async move {
            // Where there is no clock, who asked has one of its own.
            if tokio::runtime::Handle::try_current().is_err() {
                let _ = confirmed.await;
                return;
            }
            // Whatever comes of it, a join goes on.
            if tokio::time::timeout(CONFIRM_WAIT, confirmed).await.is_err() {
                unconfirmed.inc();
            }
        })
    }

    fn unsubscribe(&self, topic: &Arc<str>) {
        if self.0.routes() {
            self.0.wanted.lock().unwant(topic, Instant::now());
        }
    }

    fn set_patterns(&self, patterns: &[Arc<str>]) {
        self.0.wanted.lock().set_patterns(patterns);
    }
}

#[cfg(test)]
mod confirm_tests;
