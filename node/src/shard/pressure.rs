//! What waits for all clients of the node together, and what they have begun to send, takes no more memory than
//! it may: past that the slowest are let go of, until it is well below.
//!
//! Each shard counts for itself, tells the sum of all once a turn, and lets go of its own clients alone:
//! [`Bound::keep`](crate::memory::Bound::keep) says how much. That is not per client but for the whole, so
//! nothing here is done for a delivery.

use std::{cell::Cell, cmp::Ordering, collections::BinaryHeap, rc::Rc};

use tokio::time::Instant;

use super::{Shard, conn::Conn, outbox::Excess};

/// A client for which frames wait, or of which a message is not whole.
struct Behind<C> {
    rank: u64,
    client: C,
}

impl<C> PartialEq for Behind<C> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<C> Eq for Behind<C> {}

impl<C> PartialOrd for Behind<C> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<C> Ord for Behind<C> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// How slow a client is: by what its frames cost, and for how long they have. One that is in the midst of
/// a large message comes after one that has taken nothing of a smaller for seconds.
fn rank(weight: usize, since: Option<Instant>, now: Instant) -> u64 {
    let waited = since.map_or(0, |since| now.duration_since(since).as_millis());
    let waited = u64::try_from(waited).unwrap_or(u64::MAX);
    (weight as u64).saturating_mul(waited.saturating_add(1000))
}

/// Lets go of the slowest, then of the next, while there is too much. One that stays, with less, has its
/// rank anew.
fn relieve<C>(
    behind: Vec<Behind<C>>,
    mut too_much: impl FnMut() -> bool,
    mut let_go: impl FnMut(&C) -> Option<u64>,
) {
    let mut behind = BinaryHeap::from(behind);
    while too_much() {
        let Some(mut slowest) = behind.pop() else { return };
        if let Some(rank) = let_go(&slowest.client) {
            slowest.rank = rank;
            behind.push(slowest);
        }
    }
}

/// Whether what waits for a client can't go, and a write has shown so.
fn is_slow(conn: &Conn) -> bool {
    conn.is_behind() && !conn.dirty.get()
}

impl Conn {
    /// How slow the client is, both in what it takes and in what it sends.
    fn rank(&self, now: Instant) -> u64 {
        let (weight, since) = self.weight();
        let sends = rank(self.unfinished.get(), Some(self.begun.get()), now);
        rank(weight, since, now).saturating_add(sends)
    }
}

impl Shard {
    /// Tells the other shards what is counted here, and lets go of the slowest clients if what waits for
    /// those of all shards is too much.
    pub(super) fn account(&self) {
        let metrics = &self.plane.metrics;
        self.tally.publish(metrics);
        let (held, all) = (self.ledger.held(), self.ledger.publish(&metrics.buffered));
        let keep = self.plane.bound.keep(held, all, self.plane.shards.len());
        // Clients that are being closed hold the rest of a frame until they have it, which may be seconds.
        if let Some(keep) = keep.filter(|_| held >= self.pressed.get()) {
            self.press(keep, all);
            self.pressed.set(self.ledger.held() + keep / 16);
            self.ledger.publish(&metrics.buffered);
        }
    }

    /// Lets go of the slowest clients until `keep` bytes are left: drops broadcasts that may be dropped, and
    /// closes those for whom nothing else helps.
    fn press(&self, keep: usize, all: usize) {
        let now = Instant::now();
        let (mut leaving, mut going) = (Vec::new(), 0);
        let mut behind = Vec::new();
        for conn in self.behind.borrow().iter() {
            if conn.closing.get().is_some() {
                going += conn.weight().0;
                leaving.push(conn.clone());
            } else if !conn.dead.get() && (is_slow(conn) || conn.unfinished.get() > 0) {
                behind.push(Behind { rank: conn.rank(now), client: conn.clone() });
            }
        }
        for (_, conn) in self.conns.borrow().iter() {
            if conn.unfinished.get() > 0 && !conn.watched.get() && !conn.dead.get() {
                behind.push(Behind { rank: conn.rank(now), client: conn.clone() });
            }
        }
        let (mut dropped, going) = (0, Cell::new(going));
        let (before, too_much) = (leaving.len(), || self.ledger.held() > keep + going.get());
        relieve(behind, too_much, |conn: &Rc<Conn>| {
            let shed = if is_slow(conn) { self.shed(conn, Excess::Memory).dropped } else { 0 };
            dropped += shed;
            if shed > 0 {
                return Some(conn.rank(now));
            }
            dropped += if conn.unfinished.get() > conn.weight().0 {
                self.turn_away(conn)
            } else {
                self.give_up(conn, "memory")
            };
            going.set(going.get() + conn.weight().0);
            leaving.push(conn.clone());
            None
        });
        let closed = leaving.len() - before;
        // They get the rest of what they are in the midst of, and why they are closed, if there is room.
        for conn in leaving {
            if self.ledger.held() <= keep + keep / 3 {
                break;
            }
            conn.cut();
        }
        if dropped > 0 && self.plane.bound.may_warn(now.into_std()) {
            tracing::warn!(
                shard = self.id,
                bytes = all,
                dropped,
                closed,
                "too much waits for clients, or comes of them and does not end: the slowest miss it or are closed; \
                 said once a minute at the most"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, time::Duration};

    use super::*;

    #[test]
    fn who_waits_with_most_for_longest_is_the_slowest() {
        let now = Instant::now() + Duration::from_secs(60);
        let ago = |seconds| Some(now - Duration::from_secs(seconds));
        let in_order = [
            rank(200_000, ago(9), now),
            rank(200_000, ago(3), now),
            // Of a large message, but only just now.
            rank(500_000, None, now),
            rank(100_000, ago(3), now),
            // In a tunnel, with one heartbeat.
            rank(100, ago(9), now),
            rank(50, ago(9), now),
            rank(0, ago(9), now),
        ];
        assert!(in_order.is_sorted_by(|one, next| one > next), "{in_order:?}");
        assert_eq!(rank(usize::MAX, ago(60), now), u64::MAX);
    }

    /// Clients with so many bytes, of which so many may be dropped; down to `keep`.
    fn let_go(clients: &[(usize, usize)], keep: usize) -> Vec<String> {
        let held = RefCell::new(clients.to_vec());
        let mut done = Vec::new();
        let behind = clients.iter().enumerate();
        let behind = behind.map(|(client, (all, _))| Behind { rank: *all as u64, client });
        let too_much = || held.borrow().iter().map(|(all, _)| all).sum::<usize>() > keep;
        relieve(behind.collect(), too_much, |client| {
            let (all, may) = &mut held.borrow_mut()[*client];
            let dropped = std::mem::take(may);
            *all -= dropped;
            if dropped > 0 {
                done.push(format!("{client} misses {dropped}"));
                return Some(*all as u64);
            }
            done.push(format!("{client} is closed"));
            *all = 0;
            None
        });
        done
    }

    #[test]
    fn the_slowest_go_first_each_by_its_policy_until_it_is_enough() {
        let clients = [(10, 0), (40, 0), (50, 45), (30, 0)];
        assert_eq!(let_go(&clients, 130), Vec::<String>::new());
        assert_eq!(let_go(&clients, 120), ["2 misses 45"]);
        assert_eq!(let_go(&clients, 50), ["2 misses 45", "1 is closed"]);
        let all = ["2 misses 45", "1 is closed", "3 is closed", "0 is closed", "2 is closed"];
        assert_eq!(let_go(&clients, 0), all);
        assert_eq!(let_go(&[], 0), Vec::<String>::new());
    }

    #[test]
    fn one_that_misses_what_may_be_dropped_is_closed_only_if_it_is_the_slowest_still() {
        assert_eq!(let_go(&[(90, 10), (20, 20)], 95), ["0 misses 10", "0 is closed"]);
        assert_eq!(let_go(&[(90, 80), (20, 20)], 20), ["0 misses 80", "1 misses 20"]);
    }
}
