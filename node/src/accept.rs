//! The door of a node: who is let in, and which shard a connection goes to.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{listen, pace::Pace, plane::Plane, shard::inbox::Task};

/// Why a handshake is refused, with 503 and `Retry-After`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Cordoned, draining or shutting down.
    Closed(&'static str),
    /// More handshakes a second than configured.
    Rate,
    /// As many connections as the node holds.
    Full,
}

impl Refusal {
    /// The label of the metric.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::Closed(reason) => reason,
            Self::Rate => "rate",
            Self::Full => "full",
        }
    }
}

/// Whether new connections are refused, a drain aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cordon {
    Off,
    /// Until it is lifted.
    On,
    /// Until then: who asked for it may be gone for good.
    Until(Instant),
}

/// Whether handshakes are taken, and at which rate.
pub(crate) struct Door {
    cordon: Mutex<Cordon>,
    draining: AtomicBool,
    /// Most connections; 0: as many as the node can hold.
    most: AtomicU32,
    rate: u32,
    pace: Mutex<Pace>,
}

impl Door {
    /// An open door that lets in `rate` a second.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        let rate = rate.max(1);
        Self {
            cordon: Mutex::new(Cordon::Off),
            draining: false.into(),
            most: 0.into(),
            rate,
            pace: Mutex::new(Pace::new(now)),
        }
    }

    /// Asks for one connection, with `held` of the `capacity` there already.
    pub(crate) fn admit(&self, held: u64, capacity: u64, now: Instant) -> Result<(), Refusal> {
        if self.draining() {
            return Err(Refusal::Closed("drain"));
        }
        if self.cordoned(now) {
            return Err(Refusal::Closed("cordon"));
        }
        if held >= capacity {
            return Err(Refusal::Full);
        }
        if !self.pace.lock().take(self.rate, now) {
            return Err(Refusal::Rate);
        }
        Ok(())
    }

    /// Whether a drain is on: clients are led to other nodes.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Refuses connections: for `ttl` from `now`, or until [`Door::uncordon`].
    pub(crate) fn cordon(&self, ttl: Option<Duration>, now: Instant) {
        // An end that is too far to be told is none.
        let until = ttl.and_then(|ttl| now.checked_add(ttl));
        *self.cordon.lock() = until.map_or(Cordon::On, Cordon::Until);
    }

    /// Takes connections again.
    pub(crate) fn uncordon(&self) {
        *self.cordon.lock() = Cordon::Off;
    }

    /// Whether a cordon is on.
    pub(crate) fn cordoned(&self, now: Instant) -> bool {
        match *self.cordon.lock() {
            Cordon::Off => false,
            Cordon::On => true,
            Cordon::Until(end) => now < end,
        }
    }

    /// How long a cordon that ends by itself still lasts.
    pub(crate) fn cordon_left(&self, now: Instant) -> Option<Duration> {
        match *self.cordon.lock() {
            Cordon::Until(end) if now < end => Some(end.duration_since(now)),
            _ => None,
        }
    }

    /// Lets in no more than `most` connections; 0: as many as the node can hold.
    pub(crate) fn limit(&self, most: u32) {
        self.most.store(most, Ordering::Release);
    }

    pub(crate) fn most(&self) -> u32 {
        self.most.load(Ordering::Acquire)
    }

    pub(crate) fn set_draining(&self, on: bool) {
        self.draining.store(on, Ordering::Release);
    }
}

/// Takes connections and hands each to the shard with the fewest, until `shutdown`.
pub(crate) async fn accept(listener: TcpListener, plane: Arc<Plane>, shutdown: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            accepted = listen::accept(&listener) => accepted,
            () = shutdown.cancelled() => return,
        };
        let handed = accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer)));
        match handed {
            Ok((stream, peer)) => hand_over(&plane, stream, peer),
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would spin.
                tracing::warn!(%error, "cannot take a connection");
                plane.metrics.refuse("accept");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn hand_over(plane: &Plane, stream: std::net::TcpStream, peer: SocketAddr) {
    if plane.streams() >= plane.files.taken {
        // Those who say nothing count as well. There is no file left with which to tell it.
        return plane.metrics.refuse("files");
    }
    let least = plane.shards.iter().min_by_key(|shard| shard.sockets.load(Ordering::Relaxed));
    let Some(shard) = least else { return };
    shard.sockets.fetch_add(1, Ordering::Relaxed);
    if !shard.inbox.push(Task::Socket(stream, peer)) {
        shard.sockets.fetch_sub(1, Ordering::Relaxed);
        plane.metrics.refuse("inbox");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_lets_in_its_rate_a_second() {
        let start = Instant::now();
        let door = Door::new(3, start);
        let taken = |at| (0..10).filter(|_| door.admit(0, 9, at).is_ok()).count();
        assert_eq!(taken(start), 3);
        assert_eq!(door.admit(0, 9, start), Err(Refusal::Rate));
        assert_eq!(taken(start + Duration::from_millis(700)), 2);
        assert_eq!(taken(start + Duration::from_secs(60)), 3, "no more than a second's worth");
    }

    #[test]
    fn a_full_house_lets_nobody_in_until_there_is_room() {
        let start = Instant::now();
        let door = Door::new(9, start);
        assert_eq!(door.admit(1, 2, start), Ok(()));
        assert_eq!(door.admit(2, 2, start), Err(Refusal::Full));
        assert_eq!(door.admit(2, 3, start), Ok(()));
    }

    #[test]
    fn a_cordon_and_a_drain_close_it_each() {
        let start = Instant::now();
        let door = Door::new(3, start);
        door.cordon(None, start);
        assert_eq!(door.admit(0, 9, start), Err(Refusal::Closed("cordon")));
        door.set_draining(true);
        door.uncordon();
        assert_eq!(door.admit(0, 9, start), Err(Refusal::Closed("drain")));
        door.set_draining(false);
        assert_eq!(door.admit(0, 9, start), Ok(()));
    }

    #[test]
    fn a_cordon_with_an_end_ends_unless_it_is_renewed() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let door = Door::new(3, start);
        door.cordon(Some(Duration::from_secs(10)), start);
        assert_eq!(door.admit(0, 9, at(9)), Err(Refusal::Closed("cordon")));
        assert_eq!(door.cordon_left(at(9)), Some(Duration::from_secs(1)));
        door.cordon(Some(Duration::from_secs(10)), at(9));
        assert!(door.cordoned(at(18)));
        assert_eq!((door.admit(0, 9, at(19)), door.cordon_left(at(19))), (Ok(()), None));
        door.cordon(Some(Duration::MAX), at(19));
        assert!(door.cordoned(at(1 << 30)) && door.cordon_left(at(19)).is_none());
    }
}
