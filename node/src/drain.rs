//! The pace of a drain and of a shed: pure state machines. The time and the number of open sockets
//! are arguments; nothing here closes anything.
//!
//! A drain counts sockets, with channels or without (`P-DRAIN-4`, G-6).

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use sluice_node_api::admin::{DrainMode, DrainPhase, DrainRequest, DrainStatus, ShedRequest};

#[cfg(test)]
mod tests;

/// How often a state machine wants to be asked when it has nothing to wait for.
const STEP: Duration = Duration::from_millis(100);
/// How long a client that was shed may need to be back on another node.
const SETTLE: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Seconds of a request as a duration: negative and not-a-number are none.
fn seconds(value: f64) -> Duration {
    if value > LONGEST.as_secs_f64() {
        return LONGEST;
    }
    Duration::try_from_secs_f64(value).unwrap_or(Duration::ZERO)
}

/// What to do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Close that many sockets.
    pub close: u64,
    /// Ask again after this time, or when the request changes.
    pub again: Duration,
}

/// A drain under way.
#[derive(Clone, Debug)]
pub struct Drain {
    request: DrainRequest,
    started: Instant,
    started_at: Timestamp,
    renewed: Instant,
    last_batch: Option<Instant>,
    /// What is over stays so, whatever a later request says.
    delayed: bool,
    waited: bool,
    initial: u64,
    moved: Arc<AtomicU64>,
}

impl Drain {
    /// Begins at `now` (`started_at` by the clock on the wall) with `open` sockets.
    pub fn new(request: DrainRequest, now: Instant, started_at: Timestamp, open: u64) -> Self {
        Self {
            request,
            started: now,
            started_at,
            renewed: now,
            last_batch: None,
            delayed: false,
            waited: false,
            initial: open,
            moved: Arc::default(),
        }
    }

    /// Another `POST /drain`: the start stays, what is left follows `request`, the TTL begins anew.
    /// A delay or a wait that is over does not come again.
    pub fn renew(&mut self, request: DrainRequest, now: Instant) {
        let elapsed = now.duration_since(self.started);
        self.delayed |= elapsed >= self.delay();
        self.waited |= self.request.mode != DrainMode::Wait && elapsed >= self.closing_after();
        self.request = request;
        self.renewed = now;
    }

    /// Counts the sockets that this drain closed.
    pub fn moved(&self) -> &Arc<AtomicU64> {
        &self.moved
    }

    /// Whether nobody has renewed the drain for its TTL.
    pub fn is_expired(&self, now: Instant) -> bool {
        now.duration_since(self.renewed) >= seconds(self.request.ttl_seconds)
    }

    /// How far the drain is, with `open` sockets left.
    pub fn phase(&self, now: Instant, open: u64) -> DrainPhase {
        let elapsed = now.duration_since(self.started);
        if elapsed < self.delay() {
            DrainPhase::Delay
        } else if open == 0 {
            DrainPhase::Drained
        } else if self.request.mode == DrainMode::Wait || elapsed < self.closing_after() {
            DrainPhase::Waiting
        } else {
            DrainPhase::Closing
        }
    }

    /// Time from the start until balancers have heard of it.
    fn delay(&self) -> Duration {
        match self.delayed {
            true => Duration::ZERO,
            false => seconds(self.request.initial_delay_seconds),
        }
    }

    /// Time from the start until sockets are closed.
    fn closing_after(&self) -> Duration {
        if self.waited {
            return Duration::ZERO;
        }
        // Counted from the start even when the delay is over.
        let delay = seconds(self.request.initial_delay_seconds);
        match self.request.mode {
            DrainMode::Batched => delay.saturating_add(seconds(self.request.wait_seconds)),
            DrainMode::Wait | DrainMode::Immediate => self.delay(),
        }
    }

    /// What to do at `now`, with `open` sockets that are not being closed yet.
    pub fn step(&mut self, now: Instant, open: u64) -> Step {
        let elapsed = now.duration_since(self.started);
        if self.request.mode == DrainMode::Wait || elapsed < self.closing_after() {
            let left = self.closing_after().saturating_sub(elapsed);
            let again = if left.is_zero() { STEP } else { left.min(STEP) };
            return Step { close: 0, again };
        }
        if self.request.mode == DrainMode::Immediate {
            return Step { close: open, again: STEP };
        }
        let interval = seconds(self.request.batch_interval_seconds);
        let since = self.last_batch.map(|last| now.duration_since(last));
        if let Some(since) = since.filter(|since| *since < interval) {
            return Step { close: 0, again: (interval - since).min(STEP) };
        }
        if open > 0 {
            self.last_batch = Some(now);
        }
        Step { close: open.min(u64::from(self.request.batch_size.max(1))), again: STEP }
    }

    /// What `GET /drain` answers, with `open` sockets left.
    pub fn status(&self, now: Instant, open: u64) -> DrainStatus {
        DrainStatus {
            phase: self.phase(now, open),
            started_at: Some(self.started_at),
            initial: self.initial,
            remaining: open,
            moved: self.moved.load(Ordering::Relaxed),
        }
    }
}

/// A shed under way.
#[derive(Clone, Debug)]
pub struct Shed {
    left: u64,
    rate: u32,
    started: Instant,
    done: u64,
    last: Option<Instant>,
}

impl Shed {
    /// Begins at `now` with `open` sockets, of which it will close [`Shed::left`].
    pub fn new(request: &ShedRequest, now: Instant, open: u64) -> Self {
        let left = u64::from(request.count).min(open);
        let started = now + seconds(request.delay_seconds);
        Self { left, rate: request.rate_per_second.max(1), started, done: 0, last: None }
    }

    /// Sockets still to be closed.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Sockets that it has closed or will.
    pub fn shedding(&self) -> u64 {
        self.left + self.done
    }

    /// Whether all are closed, and their clients have had the time to be back elsewhere: until
    /// then, counts of sockets say too little.
    pub fn is_over(&self, now: Instant) -> bool {
        self.left == 0 && self.last.is_none_or(|last| now.duration_since(last) >= SETTLE)
    }

    /// What to do at `now`: after the delay the first socket at once, then `rate` a second, evenly.
    pub fn step(&mut self, now: Instant) -> Step {
        if now < self.started {
            return Step { close: 0, again: self.started.duration_since(now).min(STEP) };
        }
        let elapsed = now.duration_since(self.started).as_secs_f64();
        let due = (elapsed * f64::from(self.rate)) as u64 + 1;
        let close = due.saturating_sub(self.done).min(self.left);
        self.left -= close;
        self.done += close;
        if close > 0 {
            self.last = Some(now);
        }
        Step { close, again: STEP }
    }
}

/// Splits a batch of `close` over shards with `open` sockets each, evenly: in proportion.
pub fn split(close: u64, open: &[u64]) -> Vec<u64> {
    let total: u64 = open.iter().sum();
    let close = close.min(total);
    let mut shares = Vec::with_capacity(open.len());
    let (mut seen, mut given) = (0, 0);
    for open in open {
        seen += open;
        // Rounding the running sum keeps the total exact and every share within its shard.
        let upto = (u128::from(close) * u128::from(seen)).checked_div(u128::from(total));
        let upto = upto.map_or(0, |upto| u64::try_from(upto).unwrap_or(close));
        shares.push(upto - given);
        given = upto;
    }
    shares
}
