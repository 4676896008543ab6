//! The handle by which the rest of a node talks to its data plane.
//!
//! A [`Hub`] never holds a socket: it passes work to the shards and reads counters. Every call
//! returns at once, from any thread.

mod metrics;
mod presences;
mod topics;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use sluice_node_api::{
    admin::{DrainPhase, DrainRequest, DrainStatus, ShedRequest, ShedResponse},
    config::LiveConfig,
};

pub use self::metrics::{Code, HubMetrics, Reason};
pub use self::presences::{PresencePage, PresenceQuery, Presences};
pub use self::topics::{TopicCount, TopicQuery};
use crate::{
    drain::{self, Drain, Shed},
    history,
    longpoll::served,
    plane::{Pacing, Plane},
    presence::{GRACE, Presence},
    pubsub::{Adapter, Broadcast, Instance as NodeId, Local, Signal},
    shard::{fanout::Fanout, inbox::Task},
};

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
pub struct Hub {
    plane: Arc<Plane>,
}

impl Hub {
    pub(crate) fn start(plane: Arc<Plane>) -> Self {
        tokio::spawn(pace(plane.clone()));
        tokio::spawn(Presence::beat(plane.clone()));
        tokio::spawn(history::sweep(plane.clone()));
        Self { plane }
    }

    /// Puts the adapter in force that carries broadcasts to the other nodes; until then there is
    /// none. Topics that already have subscribers are subscribed again through it.
    ///
    /// The adapter's `subscribe` and `unsubscribe` must not call back into the hub.
    pub fn set_adapter(&self, adapter: Arc<dyn Adapter>) {
        self.plane.interest.set_adapter(adapter);
    }

    /// Broadcasts to every node: through the adapter, then to the subscribers here (`P-PS-2`).
    pub fn broadcast(&self, broadcast: Broadcast) {
        self.plane.interest.send(&broadcast);
        self.fan_out("local", broadcast);
    }

    fn fan_out(&self, origin: &'static str, broadcast: Broadcast) {
        self.plane.metrics.broadcasts.get_or_create(&Reason { reason: origin }).inc();
        self.plane.fan_out(&Arc::new(Fanout::new(broadcast)), None);
    }

    /// Puts other topic rules in force, from the next message on.
    pub fn set_live(&self, live: Arc<LiveConfig>) {
        self.plane.set_live(&live);
    }

    /// What is open on this node.
    pub fn counts(&self) -> Counts {
        let channels = u64::try_from(self.plane.metrics.channels.get()).unwrap_or(0);
        Counts { connections: self.plane.connections(), channels }
    }

    /// This run of the node, as other nodes must know it: a long-poll session is found by it.
    pub fn instance(&self) -> NodeId {
        self.plane.instance
    }

    /// Connections that the node holds, long-poll sessions among them.
    pub fn capacity(&self) -> u64 {
        self.plane.capacity()
    }

    /// Refuses new connections with 503: for `ttl`, or until [`Hub::uncordon`]. Each call replaces
    /// the one before.
    pub fn cordon(&self, ttl: Option<Duration>) {
        self.plane.door.cordon(ttl, Instant::now());
    }

    /// Takes new connections again.
    pub fn uncordon(&self) {
        self.plane.door.uncordon();
    }

    /// Whether [`Hub::cordon`] is on; a drain refuses connections without it.
    pub fn cordoned(&self) -> bool {
        self.plane.door.cordoned(Instant::now())
    }

    /// How long a cordon with a time to live still lasts.
    pub fn cordon_left(&self) -> Option<Duration> {
        self.plane.door.cordon_left(Instant::now())
    }

    /// Starts a drain, or changes the one under way, and renews its TTL.
    pub fn start_drain(&self, request: DrainRequest) -> DrainStatus {
        let now = Instant::now();
        let open = self.plane.connections();
        let mut pacing = self.plane.pacing.lock();
        let Pacing { drain, shed, .. } = &mut *pacing;
        let drain = match drain {
            Some(drain) => {
                drain.renew(request, now);
                drain
            }
            none => {
                self.plane.metrics.drain("started");
                // What it would have moved leaves with everybody else.
                *shed = None;
                none.insert(Drain::new(request, now, Timestamp::now(), open))
            }
        };
        self.plane.door.set_draining(true);
        self.plane.repaced.notify_one();
        drain.status(now, open)
    }

    /// How far the drain is.
    pub fn drain_status(&self) -> DrainStatus {
        let open = self.plane.connections();
        let pacing = self.plane.pacing.lock();
        match &pacing.drain {
            Some(drain) => drain.status(Instant::now(), open),
            None => DrainStatus { remaining: open, ..DrainStatus::default() },
        }
    }

    /// Ends the drain: the node takes connections again.
    pub fn cancel_drain(&self) -> DrainStatus {
        give_up(&self.plane, &mut self.plane.pacing.lock(), "cancelled");
        self.drain_status()
    }

    /// Closes some sockets with code 1012, paced, and goes on serving. A shed under way is
    /// replaced.
    pub fn shed(&self, request: ShedRequest) -> ShedResponse {
        let open = self.plane.open().iter().sum();
        let shed = Shed::new(&request, Instant::now(), open);
        let shedding = shed.left();
        self.plane.pacing.lock().shed = Some(shed);
        self.plane.repaced.notify_one();
        ShedResponse { shedding }
    }

    /// Sockets that the shed under way closes or has closed; 0 without one.
    pub fn shedding(&self) -> u64 {
        self.plane.pacing.lock().shed.as_ref().map_or(0, Shed::shedding)
    }

    /// Sockets that sheds have closed since the node began.
    pub fn shed_ever(&self) -> u64 {
        self.plane.pacing.lock().shed_ever.load(Ordering::Relaxed)
    }

    /// Ends when a drain is over: phase `Drained`. Never ends without a drain.
    pub async fn drained(&self) {
        // The sender lives as long as the plane, which we hold.
        let _ = self.plane.drained.subscribe().wait_for(|drained| *drained).await;
    }

    /// Ends when, after shutdown, every shard has closed its sockets and its thread is gone, and other
    /// nodes are told what they asked of its long-poll sessions.
    pub async fn stopped(&self) {
        self.plane.stopped().await;
        self.plane.polls.served().await;
    }

    /// What the data plane counts.
    pub fn metrics(&self) -> &HubMetrics {
        &self.plane.metrics
    }

    /// Registers the data plane's metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.plane.metrics.register(registry);
    }
}

impl Local for Hub {
    fn deliver(&self, broadcast: Broadcast) {
        self.fan_out("remote", broadcast);
    }

    fn signal(&self, from: NodeId, signal: Signal) {
        match signal {
            Signal::Presence(word) => self.plane.presence.hear(&self.plane, from, &word),
            Signal::Poll(letter) => served::receive(&self.plane, from, &letter),
        }
    }

    fn departed(&self, instance: NodeId) {
        let (plane, since) = (self.plane.clone(), Instant::now());
        tokio::spawn(async move {
            tokio::time::sleep(GRACE).await;
            plane.presence.forget(&plane, instance, since);
        });
    }
}

fn give_up(plane: &Plane, pacing: &mut Pacing, outcome: &'static str) {
    if pacing.drain.take().is_some() {
        plane.metrics.drain(outcome);
        plane.door.set_draining(false);
        plane.drained.send_replace(false);
    }
}

/// Carries out drains and sheds until shutdown.
async fn pace(plane: Arc<Plane>) {
    while !plane.shutdown.is_cancelled() {
        let again = step(&plane);
        tokio::select! {
            () = plane.repaced.notified() => {}
            () = tokio::time::sleep(again) => {}
            () = plane.shutdown.cancelled() => return,
        }
    }
}

/// What is due now; gives the time until there is more.
fn step(plane: &Plane) -> Duration {
    let now = Instant::now();
    let open = plane.open();
    let mut again = Duration::from_secs(3600);
    let pacing = &mut *plane.pacing.lock();
    if let Some(drain) = &mut pacing.drain {
        let step = drain.step(now, open.iter().sum());
        again = step.again;
        close(plane, step.close, &open, drain.moved());
        let drained = drain.phase(now, plane.connections()) == DrainPhase::Drained;
        if plane.drained.send_replace(drained) != drained && drained {
            plane.metrics.drain("completed");
        }
        if drain.is_expired(now) {
            tracing::warn!("nobody renewed the drain: serving again");
            give_up(plane, pacing, "expired");
        }
    } else if let Some(shed) = &mut pacing.shed {
        let step = shed.step(now);
        again = step.again;
        close(plane, step.close, &open, &pacing.shed_ever);
        if shed.is_over(now) {
            pacing.shed = None;
        }
    }
    again
}

fn close(plane: &Plane, count: u64, open: &[u64], moved: &Arc<AtomicU64>) {
    for (shard, share) in plane.shards.iter().zip(drain::split(count, open)) {
        if share > 0 {
            shard.inbox.push(Task::Close(share, moved.clone()));
        }
    }
}
