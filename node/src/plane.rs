//! What the shards of a node share. Everything else that a shard has is its own, and unlocked.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, RwLock};
use sluice_node_api::config::{self, SlowConsumer};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::{
    accept::{Door, Refusal},
    arrivals::{Arrivals, DISCONNECT},
    channel::room::NodeRoom,
    drain::{Drain, Shed},
    files::Files,
    history::History,
    hub::HubMetrics,
    interest::Interest,
    keys::Keys,
    longpoll::ask::Polls,
    memory::{Bound, signed},
    origin::Policy,
    presence::Presence,
    pubsub::{Broadcast, Instance},
    relay::Rules,
    shard::{
        fanout::Fanout,
        inbox::{Inbox, Task},
    },
    webhook::Webhook,
};

/// The socket settings of a node.
pub(crate) struct Settings {
    /// Time without an inbound frame after which a socket is closed.
    pub(crate) idle_timeout: Duration,
    /// Largest message in bytes.
    pub(crate) max_frame: usize,
    /// Channels a socket may join.
    pub(crate) max_channels: usize,
    /// Joins that it may ask for in a second; none: as its mount says.
    pub(crate) max_joins: Option<u32>,
    /// Messages that it may send in a second; none: as its mount says.
    pub(crate) max_messages: Option<u32>,
    /// Which pages may connect.
    pub(crate) origins: Policy,
}

impl From<&config::Socket> for Settings {
    fn from(socket: &config::Socket) -> Self {
        Self {
            idle_timeout: Duration::from_secs(socket.idle_timeout_seconds.max(1).into()),
            max_frame: usize::try_from(socket.max_frame_bytes).unwrap_or(usize::MAX),
            max_channels: usize::try_from(socket.max_channels).unwrap_or(usize::MAX),
            max_joins: socket.max_joins_per_second,
            max_messages: socket.max_messages_per_second,
            origins: Policy::new(socket),
        }
    }
}

/// A shard, seen from other threads.
#[derive(Default)]
pub(crate) struct ShardHandle {
    /// What it shall do.
    pub(crate) inbox: Inbox,
    /// TCP connections, channel sockets or not.
    pub(crate) sockets: AtomicUsize,
    /// Channel sockets.
    pub(crate) connections: AtomicU64,
    /// Channel sockets that have been told to close.
    pub(crate) closing: AtomicU64,
}

/// The drain and the shed under way.
#[derive(Default)]
pub(crate) struct Pacing {
    pub(crate) drain: Option<Drain>,
    pub(crate) shed: Option<Shed>,
    /// Counts the sockets that sheds have closed, also those that are over.
    pub(crate) shed_ever: Arc<AtomicU64>,
}

/// The shared part of a node's data plane.
pub(crate) struct Plane {
    pub(crate) node: String,
    pub(crate) instance: Instance,
    /// What signs long-poll tokens; shared by the nodes of a cluster.
    pub(crate) secret: Keys,
    pub(crate) polls: Polls,
    /// The backend that rules may call.
    pub(crate) webhook: Option<Webhook>,
    /// The shortest idle timeout of its mounts.
    pub(crate) shortest_idle: Duration,
    pub(crate) rules: RwLock<Arc<Rules>>,
    /// Some rule has broadcasts dropped for clients that are slow.
    drops: AtomicBool,
    pub(crate) arrivals: Arrivals,
    pub(crate) interest: Interest,
    pub(crate) presence: Presence,
    pub(crate) history: History,
    pub(crate) shards: Vec<ShardHandle>,
    pub(crate) door: Door,
    /// What its clients may have open.
    pub(crate) files: Files,
    /// What may wait for clients.
    pub(crate) bound: Bound,
    /// What may wait for channels.
    pub(crate) mailed: Arc<NodeRoom>,
    pub(crate) metrics: HubMetrics,
    pub(crate) pacing: Mutex<Pacing>,
    /// Something in `pacing` changed.
    pub(crate) repaced: Notify,
    /// Whether a drain is over; sends on every change.
    pub(crate) drained: watch::Sender<bool>,
    /// Shards that still run.
    pub(crate) running: watch::Sender<usize>,
    pub(crate) shutdown: CancellationToken,
}

impl Plane {
    pub(crate) fn new(
        node: String,
        socket: &config::Socket,
        live: &config::LiveConfig,
        shortest_idle: Duration,
        secret: Keys,
        shards: usize,
        shutdown: CancellationToken,
    ) -> Self {
        let (instance, metrics) = (rand::random(), HubMetrics::default());
        let plane = Self {
            shortest_idle,
            rules: RwLock::default(),
            drops: AtomicBool::default(),
            node,
            instance,
            secret,
            polls: Polls::default(),
            webhook: None,
            arrivals: Arrivals::default(),
            interest: Interest::default(),
            presence: Presence::new(instance),
            history: History::default(),
            shards: (0..shards).map(|_| ShardHandle::default()).collect(),
            files: Files::of_process(shards),
            door: Door::new(socket.max_connects_per_second, Instant::now()),
            bound: Bound::new(),
            mailed: NodeRoom::new(metrics.mailed.clone()),
            metrics,
            pacing: Mutex::default(),
            repaced: Notify::new(),
            drained: watch::Sender::new(false),
            running: watch::Sender::new(shards),
            shutdown,
        };
        plane.set_live(live);
        plane
    }

    /// Ends when every shard has ended.
    pub(crate) async fn stopped(&self) {
        // The sender lives as long as the plane.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }

    /// Channel sockets now open.
    pub(crate) fn connections(&self) -> u64 {
        self.shards.iter().map(|shard| shard.connections.load(Ordering::Relaxed)).sum()
    }

    /// Connections beside the one that asks: long-poll sessions among them, and handshakes, so that
    /// many at once do not slip past a limit.
    fn others(&self) -> u64 {
        self.streams().saturating_sub(1).max(self.connections())
    }

    /// TCP connections of clients, channel sockets or not.
    pub(crate) fn streams(&self) -> u64 {
        let all: usize = self.shards.iter().map(|s| s.sockets.load(Ordering::Relaxed)).sum();
        u64::try_from(all).unwrap_or(u64::MAX)
    }

    /// Connections that the node holds, long-poll sessions among them: these take no file each, and
    /// are as many at the most all the same.
    pub(crate) fn capacity(&self) -> u64 {
        match u64::from(self.door.most()) {
            0 => self.files.held,
            most => self.files.held.min(most),
        }
    }

    /// Asks the door for the connection that asks.
    pub(crate) fn admit(&self) -> Result<(), Refusal> {
        self.door.admit(self.others(), self.capacity(), Instant::now())
    }

    /// Puts a live configuration in force.
    pub(crate) fn set_live(&self, live: &config::LiveConfig) {
        let rules = Rules::new(live, &self.node);
        self.drops.store(rules.may_drop_any(), Ordering::Relaxed);
        let rules = Arc::new(rules);
        *self.rules.write() = rules.clone();
        self.interest.set_patterns(|| self.rules.read().kept().map(Into::into).collect());
        self.history.set_rules(self, &rules);
        self.door.limit(live.limits.max_connections);
        let capacity = i64::try_from(self.capacity()).unwrap_or(i64::MAX);
        self.metrics.capacity.set(capacity);
        let most = self.bound.set(live.limits.max_buffered_bytes);
        self.mailed.set(most);
        self.polls.set(most);
        self.metrics.buffered_limit.set(signed(most));
    }

    /// Channel sockets of each shard that are not being closed.
    pub(crate) fn open(&self) -> Vec<u64> {
        let open = |shard: &ShardHandle| {
            let connections = shard.connections.load(Ordering::Relaxed);
            connections.saturating_sub(shard.closing.load(Ordering::Relaxed))
        };
        self.shards.iter().map(open).collect()
    }

    /// What becomes of a client that is too slow for a broadcast.
    pub(crate) fn slow_consumer(&self, broadcast: &Broadcast) -> SlowConsumer {
        if !self.drops.load(Ordering::Relaxed) {
            return SlowConsumer::Disconnect;
        }
        self.rules.read().slow_consumer(&broadcast.topic, &broadcast.event)
    }

    /// Hands a broadcast to every shard with subscribers but `except`; whether `except` has some that
    /// it must serve itself.
    pub(crate) fn fan_out(&self, fanout: &Arc<Fanout>, except: Option<u16>) -> bool {
        if fanout.event() == DISCONNECT {
            self.arrivals.disconnect(fanout.topic());
        }
        let shards = self.interest.shards(fanout.topic());
        // Where history is kept `except` has it from its inbox too, in the order of the joins there.
        if self.history.concerns(&shards) && self.history.record(self, fanout, Instant::now()) {
            return false;
        }
        self.hand_out(fanout, &shards, except)
    }

    /// Hands a broadcast to these shards but `except`; whether that is one of them.
    pub(crate) fn hand_out(
        &self,
        fanout: &Arc<Fanout>,
        shards: &[u16],
        except: Option<u16>,
    ) -> bool {
        let mut excepted = false;
        for shard in shards {
            if Some(*shard) == except {
                excepted = true;
            } else if let Some(handle) = self.shards.get(usize::from(*shard))
                && !handle.inbox.push(Task::Fanout(fanout.clone()))
            {
                self.metrics.drop("inbox", 1);
            }
        }
        excepted
    }
}
