//! Carries broadcasts through Redis, subscribed by topic: a node receives only the topics that it
//! has subscribers of. Presence, and what closes sockets by their id, reaches all of them; a letter
//! about a long-poll session the node that has it. A node that says nothing any more is gone; while
//! Redis is away nobody is.
//!
//! That Redis hands a letter to nobody proves nothing: so it says of a node too that connects again
//! after Redis was away, and of one behind another server of a Redis Cluster. The silence counts.
//!
//! Delivery on this node never depends on Redis. While Redis is away, joins do not wait, chat
//! among the clients of one node goes on, and what is for others waits a few seconds in a bounded
//! queue. At most once: what was being written when a connection broke is not repeated.
//!
//! The URL holds a password: it is read anew for each connection, so that it may be rotated, and
//! is never logged.

mod envelope;
mod failure;
mod nodes;
mod publisher;
mod reconnect;
mod shared;
mod subscriber;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use sluice_node_api::admin::RedisFailure;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::small_file;
use crate::mesh::handshake::Instance;
use crate::mesh::metrics::{ByReason, count};
use crate::pubsub::{Adapter, Broadcast, Local, Signal};
use crate::queue::{Item, Queue};
pub use failure::Failure;
use nodes::Nodes;
use subscriber::Wanted;

/// For connecting to Redis, and for its answer to a command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);
/// Largest file of a URL, in bytes.
const MAX_URL: u64 = 8192;
/// How long a join waits for Redis to confirm the subscription of its topic.
pub const CONFIRM_WAIT: Duration = Duration::from_secs(1);
/// Between two signs of life asked from Redis.
pub(crate) const PING: Duration = Duration::from_secs(1);

/// What an adapter is made of.
pub struct RedisConfig {
    /// The file with the URL.
    pub url_file: PathBuf,
    /// The cluster's name; its channels are `sluice:{cluster}:{topic}`.
    pub cluster: String,
    /// This run of this node's process; its own messages are skipped by it.
    pub instance: Instance,
    /// Bytes that may wait to be published.
    pub buffer: usize,
}

/// A cheap handle to the adapter.
#[derive(Clone)]
pub struct RedisAdapter(Arc<Inner>);

struct Inner {
    config: RedisConfig,
    local: Arc<dyn Local>,
    queue: Queue,
    wanted: Mutex<Wanted>,
    nodes: Mutex<Nodes>,
    changed: Notify,
    /// One connection broke: the other had better look at once.
    suspect: Notify,
    publisher_up: AtomicBool,
    subscriber_up: AtomicBool,
    failed: Mutex<Option<RedisFailure>>,
    metrics: Metrics,
    leaving: CancellationToken,
    stop: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Clone, Default)]
struct Metrics {
    dropped: ByReason,
    published: Counter,
    received: Counter,
    silent: Counter,
    lost_connections: Counter,
}

/// Reads the URL in `path`.
///
/// # Errors
/// What is wrong, without a word of the URL itself.
pub fn read_url(path: &Path) -> Result<redis::Client, Failure> {
    let shown = path.display();
    let text = small_file::read_text(path, MAX_URL).map_err(|e| {
        Failure::new(RedisFailure::Url, format!("cannot read the Redis URL in {shown}: {e}"))
    })?;
    let url = text.trim();
    if url.get(..9).is_some_and(|scheme| scheme.eq_ignore_ascii_case("rediss://")) {
        let said = format!("{shown}: TLS to Redis (`rediss://`) is not supported: use `redis://`");
        return Err(Failure::new(RedisFailure::Tls, said));
    }
    redis::Client::open(url).map_err(|_| {
        let said = format!("{shown} holds no `redis://[user:password@]host:port[/db]`");
        Failure::new(RedisFailure::Url, said)
    })
}

impl RedisAdapter {
    /// Starts both connections; whether Redis is there yet does not matter.
    pub fn start(config: RedisConfig, local: Arc<dyn Local>) -> Self {
        let inner = Arc::new(Inner {
            queue: Queue::new(config.buffer),
            config,
            local,
            wanted: Mutex::default(),
            nodes: Mutex::default(),
            changed: Notify::new(),
            suspect: Notify::new(),
            publisher_up: AtomicBool::new(false),
            subscriber_up: AtomicBool::new(false),
            failed: Mutex::default(),
            metrics: Metrics::default(),
            leaving: CancellationToken::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        // What is said before the first connection waits as if one had been lost.
        inner.queue.open();
        inner.queue.lost();
        inner.tasks.spawn(publisher::run(inner.clone()));
        inner.tasks.spawn(subscriber::run(inner.clone()));
        Self(inner)
    }

    /// Whether both connections are up and every topic is subscribed.
    pub fn connected(&self) -> bool {
        self.0.publisher_up.load(Ordering::Acquire) && self.0.subscriber_up.load(Ordering::Acquire)
    }

    /// Why the last attempt failed; `None` while both connections are up.
    pub fn failure(&self) -> Option<RedisFailure> {
        if self.connected() { None } else { *self.0.failed.lock() }
    }

    /// Publishes what waits, and is gone after `bound` at the latest.
    pub async fn leave(&self, bound: Duration) {
        self.0.leaving.cancel();
        self.0.tasks.close();
        let _ = tokio::time::timeout(bound, self.0.tasks.wait()).await;
        self.0.stop.cancel();
        self.0.tasks.wait().await;
    }

    /// Registers the adapter's metrics.
    pub fn register(&self, registry: &mut Registry) {
        let m = &self.0.metrics;
        let help = "Broadcasts and words between nodes that were not published or not understood";
        registry.register("redis_dropped", help, m.dropped.clone());
        let help = "Broadcasts and words between nodes published";
        registry.register("redis_published", help, m.published.clone());
        let help = "Broadcasts and words of other nodes";
        registry.register("redis_received", help, m.received.clone());
        let help = "Other nodes that fell silent: their presences have left";
        registry.register("redis_silent_nodes", help, m.silent.clone());
        registry.register(
            "redis_lost_connections",
            "Connections to Redis that broke",
            m.lost_connections.clone(),
        );
        registry.register_collector(Box::new(Gauges(self.clone())));
    }
}

impl RedisAdapter {
    fn queue(&self, item: Item) {
        let dropped = self.0.queue.push(item);
        count(&self.0.metrics.dropped, "full", dropped.full);
        count(&self.0.metrics.dropped, "stale", dropped.stale);
    }
}

impl Adapter for RedisAdapter {
    fn send(&self, broadcast: &Broadcast) {
        let config = &self.0.config;
        let item = match shared::is_for_all(broadcast) {
            true => shared::encode_broadcast(config, broadcast),
            false => envelope::encode(config, broadcast),
        };
        match item {
            Some(item) => self.queue(item),
            None => count(&self.0.metrics.dropped, "too_long", 1),
        }
    }

    fn signal(&self, to: Option<Instance>, signal: &Signal, until: Option<Instant>) {
        let item = shared::encode_signal(&self.0.config, to.as_ref(), signal);
        self.queue(Item { until, ..item });
    }

    fn is_up(&self) -> bool {
        self.connected()
    }

    fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()> {
        let (tell, told) = oneshot::channel();
        let wait = self.0.wanted.lock().want(topic, tell);
        self.0.changed.notify_one();
        Box::pin(async move {
            if wait {
                // Whatever comes of it, a join goes on.
                let _ = tokio::time::timeout(CONFIRM_WAIT, told).await;
            }
        })
    }

    fn unsubscribe(&self, topic: &Arc<str>) {
        self.0.wanted.lock().unwant(topic);
        self.0.changed.notify_one();
    }
}

/// Gauges read from the live state at each scrape.
struct Gauges(RedisAdapter);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (name, help, n) in [
            ("redis_connected", "Whether Redis is connected", i64::from(self.0.connected())),
            ("redis_queue_bytes", "Bytes that wait for Redis", self.0.0.queue.bytes() as i64),
            ("redis_topics", "Topics wanted", self.0.0.wanted.lock().len() as i64),
            ("redis_nodes", "Other nodes with presences", self.0.0.nodes.lock().len() as i64),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(n).encode(gauge)?;
        }
        Ok(())
    }
}
