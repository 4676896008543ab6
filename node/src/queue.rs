//! What waits for one peer, or for Redis: a queue bounded by bytes that drops its oldest, and
//! counts.
//!
//! Never blocks the sender. Order is that of the pushes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How long a link that was up may be down before what waits for it is stale, and dropped.
pub const RESUME_WINDOW: Duration = Duration::from_secs(10);

/// One message that waits; cheap to clone, so that the queues of all peers share it.
#[derive(Clone, Debug)]
pub struct Item {
    /// What comes first on the wire.
    pub head: Bytes,
    /// The payload.
    pub payload: Bytes,
    /// It must leave before, or not at all; and where there is no room it gives way to what waits.
    pub until: Option<Instant>,
}

impl Item {
    /// Bytes in all.
    pub fn size(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

/// Messages that wait.
pub struct Queue {
    limit: usize,
    state: Mutex<State>,
    ready: Notify,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    gate: Gate,
}

/// Whether frames are taken in.
#[derive(Clone, Copy, Default)]
enum Gate {
    /// No link yet, or none any more: nobody there asks for anything, and nothing is counted.
    #[default]
    Closed,
    /// The link is up.
    Open,
    /// The link went down at this time; frames wait for it to come back.
    Lost(Instant),
}

/// What became of frames, in frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dropped {
    /// The oldest, for want of room.
    pub full: u64,
    /// Those for a link that has not come back in time.
    pub stale: u64,
}

impl Queue {
    /// A queue of at most `limit` bytes, closed. One frame larger than the limit still passes
    /// when it is alone.
    pub fn new(limit: usize) -> Self {
        Self { limit, state: Mutex::default(), ready: Notify::new() }
    }

    /// Appends a frame; tells what was dropped for it.
    pub fn push(&self, frame: Item) -> Dropped {
        let mut dropped = Dropped::default();
        let mut s = self.state.lock();
        match s.gate {
            Gate::Closed => return dropped,
            Gate::Lost(since) if since.elapsed() > RESUME_WINDOW => {
                dropped.stale = s.clear() + 1;
                return dropped;
            }
            Gate::Open | Gate::Lost(_) => {}
        }
        let size = frame.size();
        if frame.until.is_some() && s.bytes + size > self.limit && !s.items.is_empty() {
            dropped.full = 1;
            return dropped;
        }
        while s.bytes + size > self.limit {
            let Some(old) = s.items.pop_front() else { break };
            s.bytes -= old.size();
            dropped.full += 1;
        }
        s.bytes += size;
        s.items.push_back(frame);
        let first = s.items.len() == 1;
        drop(s);
        if first {
            self.ready.notify_one();
        }
        dropped
    }

    /// Moves frames of about `bytes` in all, at least one if there is any, to `into`; how many were
    /// dropped because it is too late for them.
    pub fn take(&self, bytes: usize, into: &mut Vec<Item>) -> u64 {
        let now = Instant::now();
        let mut s = self.state.lock();
        let (mut taken, mut late) = (0, 0);
        while taken < bytes {
            let Some(f) = s.items.pop_front() else { break };
            s.bytes -= f.size();
            if f.until.is_some_and(|until| until <= now) {
                late += 1;
                continue;
            }
            taken += f.size();
            into.push(f);
        }
        late
    }

    /// Ends when there may be a frame; one task waits at a time.
    pub async fn ready(&self) {
        if !self.is_empty() {
            return;
        }
        self.ready.notified().await;
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.state.lock().items.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes
    }

    /// The link is up: frames are taken in.
    pub fn open(&self) {
        self.state.lock().gate = Gate::Open;
    }

    /// The link is down: frames wait for [`RESUME_WINDOW`].
    pub fn lost(&self) {
        let mut s = self.state.lock();
        if matches!(s.gate, Gate::Open) {
            s.gate = Gate::Lost(Instant::now());
        }
    }

    /// Drops what waits once the window is over; the number of frames.
    pub fn expire(&self) -> u64 {
        let mut s = self.state.lock();
        match s.gate {
            Gate::Lost(since) if since.elapsed() > RESUME_WINDOW => s.clear(),
            _ => 0,
        }
    }

    /// Drops what waits, for good; the number of frames.
    pub fn close(&self) -> u64 {
        self.state.lock().close()
    }
}

impl State {
    fn close(&mut self) -> u64 {
        self.gate = Gate::Closed;
        self.clear()
    }

    fn clear(&mut self) -> u64 {
        let n = self.items.len() as u64;
        self.items = VecDeque::new();
        self.bytes = 0;
        n
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(n: u8, size: usize) -> Item {
        let payload = Bytes::from(vec![n; size - 1]);
        Item { head: Bytes::copy_from_slice(&[n]), payload, until: None }
    }

    #[test]
    fn takes_nothing_in_before_the_first_link() {
        let q = Queue::new(100);
        assert_eq!(q.push(frame(1, 10)), Dropped::default());
        assert!(q.is_empty());
    }

    #[test]
    fn keeps_what_waits_for_a_short_cut() {
        let q = Queue::new(100);
        q.open();
        q.lost();
        q.push(frame(1, 10));
        assert_eq!(q.expire(), 0);
        assert_eq!(q.bytes(), 10);
        assert_eq!(q.close(), 1);
    }

    #[test]
    fn what_has_a_time_is_not_taken_after_it_and_takes_nobodys_room() {
        let q = Queue::new(100);
        q.open();
        let until = |item: Item, seconds| {
            let until = Instant::now().checked_add(Duration::from_secs(seconds));
            Item { until, ..item }
        };
        assert_eq!(q.push(until(frame(1, 101), 60)), Dropped::default(), "alone it passes");
        assert_eq!(q.push(frame(2, 60)).full, 1);
        assert_eq!(q.push(until(frame(3, 60), 60)), Dropped { full: 1, stale: 0 });
        assert_eq!(q.push(until(frame(4, 20), 60)), Dropped::default());
        assert_eq!(q.push(until(frame(5, 20), 0)), Dropped::default());
        let mut taken = Vec::new();
        assert_eq!(q.take(usize::MAX, &mut taken), 1);
        assert_eq!(taken.iter().map(|f| f.head[0]).collect::<Vec<_>>(), [2, 4]);
        assert_eq!(q.bytes(), 0);
    }

    proptest! {
        #[test]
        fn drops_the_oldest_and_counts_every_one(sizes in proptest::collection::vec(1_usize..60, 1..80)) {
            let q = Queue::new(100);
            q.open();
            let mut dropped = 0;
            for (n, size) in sizes.iter().enumerate() {
                dropped += q.push(frame(n as u8, *size)).full;
                prop_assert!(q.bytes() <= 100);
            }
            let mut left = Vec::new();
            q.take(usize::MAX, &mut left);
            prop_assert_eq!(left.len() as u64 + dropped, sizes.len() as u64);
            let first = sizes.len() - left.len();
            for (i, f) in left.iter().enumerate() {
                prop_assert_eq!(usize::from(f.head[0]), first + i);
            }
            prop_assert_eq!(q.bytes(), 0);
        }
    }
}
