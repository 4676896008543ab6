//! Leader election on a `coordination.k8s.io` Lease, by client-go's rules: replaces guarded by
//! resourceVersion, expiry counted from changes seen here on a monotonic clock, a renew deadline
//! shorter than the lease, release at the end.
//!
//! It must never trust another machine's clock, and never report leadership that it could not
//! renew in time: [`Leadership::still_valid`] is asked right before each write and compares the
//! last renewal with the clock, so a process that was stopped and wakes up finds out by itself.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use crate::lease_store::{KubeLeases, LeaseRecord, StoreError, Versioned};
use crate::telemetry;

/// Between two log lines about the same failure.
const AGAIN: Duration = Duration::from_secs(60);

/// Where the lease is kept. In production a Lease object, in tests a value in memory.
pub trait LeaseStore: Send + Sync {
    /// Reads the lease; `None` when there is none.
    fn get(&self) -> impl Future<Output = Result<Option<Versioned>, StoreError>> + Send;
    /// Creates the lease; a conflict when there is one.
    fn create(
        &self,
        record: &LeaseRecord,
    ) -> impl Future<Output = Result<Versioned, StoreError>> + Send;
    /// Replaces the lease if it still has this version; a conflict otherwise.
    fn replace(
        &self,
        record: &LeaseRecord,
        version: &str,
    ) -> impl Future<Output = Result<Versioned, StoreError>> + Send;
}

/// The election's times. The defaults are client-go's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last change they saw before they take the lease.
    pub lease: Duration,
    /// How long a leader goes on without a renewal that succeeded.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

impl Timing {
    /// Whether the times fit together; otherwise what is wrong.
    pub fn check(&self) -> Result<(), Error> {
        if self.lease <= self.renew_deadline {
            return Err(Error::Timing("the renew deadline must be shorter than the lease"));
        }
        if self.renew_deadline.as_secs_f64() <= 1.2 * self.retry.as_secs_f64() {
            return Err(Error::Timing("the renew deadline must be above 1.2 × the retry period"));
        }
        Ok(())
    }
}

/// What can go wrong with the election.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The times do not fit together.
    #[error("leader election: {0}")]
    Timing(&'static str),
    /// The lease could not be renewed in time, or another process holds it.
    #[error("leadership lost: {0}")]
    Lost(String),
}

impl Error {
    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Timing(_) => "leader_timing",
            Self::Lost(_) => "leader_lost",
        }
    }
}

/// Whether this process leads, for everyone who is about to write.
#[derive(Clone, Debug, Default)]
pub struct Leadership {
    valid_until: Arc<Mutex<Validity>>,
    denied: Arc<AtomicBool>,
}

#[derive(Clone, Copy, Debug, Default)]
enum Validity {
    #[default]
    No,
    Until(Instant),
    Always,
}

impl Leadership {
    /// For a single process without an election.
    pub fn always() -> Self {
        Self { valid_until: Arc::new(Mutex::new(Validity::Always)), ..Self::default() }
    }

    /// Whether this process may write now: its last renewal *began* less than the renew deadline
    /// ago, on a clock that also counts while the process is stopped.
    pub fn still_valid(&self) -> bool {
        match *self.valid_until.lock() {
            Validity::No => false,
            Validity::Always => true,
            Validity::Until(deadline) => Instant::now() < deadline,
        }
    }

    /// Whether this process may not even read or write the lease: it can't stand by either.
    pub fn is_denied(&self) -> bool {
        self.denied.load(Ordering::Relaxed)
    }

    fn denied(&self, denied: bool) {
        self.denied.store(denied, Ordering::Relaxed);
    }

    fn set(&self, validity: Validity) {
        *self.valid_until.lock() = validity;
    }
}

/// One candidate.
pub struct Elector<S> {
    store: S,
    identity: String,
    timing: Timing,
    leadership: Leadership,
    /// The lease as last seen, and when it was first seen so.
    observed: Option<(Versioned, Instant)>,
    /// When the last renewal that succeeded began.
    renewed: Instant,
}

impl<S: LeaseStore> Elector<S> {
    /// A candidate called `identity`, which must differ between processes.
    pub fn new(store: S, identity: String, timing: Timing) -> Result<Self, Error> {
        timing.check()?;
        let leadership = Leadership::default();
        Ok(Self { store, identity, timing, leadership, observed: None, renewed: Instant::now() })
    }

    /// The handle that writers ask.
    pub fn leadership(&self) -> Leadership {
        self.leadership.clone()
    }

    /// Waits until this process leads. `false`: `stop` came first.
    pub async fn acquire(&mut self, stop: &CancellationToken) -> bool {
        let mut told = String::new();
        let mut failures = Failures::default();
        loop {
            let begun = Instant::now();
            let attempt = tokio::select! {
                () = stop.cancelled() => return false,
                attempt = timeout(self.timing.renew_deadline, self.attempt()) => attempt,
            };
            match attempt {
                Ok(Ok(true)) => {
                    self.leadership.denied(false);
                    self.renewed = begun;
                    self.leadership.set(Validity::Until(begun + self.timing.renew_deadline));
                    tracing::info!(identity = self.identity, "leading");
                    return true;
                }
                Ok(Ok(false)) => {
                    failures = Failures::default();
                    self.leadership.denied(false);
                    let holder = self.holder();
                    if holder != told {
                        tracing::info!(holder, "standing by");
                        told = holder;
                    }
                }
                Ok(Err(StoreError::Conflict)) => tracing::debug!("somebody else wrote the lease"),
                Ok(Err(error)) => {
                    self.leadership.denied(error.denied());
                    failures.tell(&error, "can't get the lease");
                }
                Err(_) => tracing::warn!("getting the lease took too long"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = sleep(spread(self.timing.retry)) => {}
            }
        }
    }

    /// Renews until `stop`, then returns `Ok`; or returns the error that says how leadership was
    /// lost. The caller must then end the process: what it has under way may not go on.
    pub async fn keep(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let mut failures = Failures::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = sleep(self.timing.retry) => {}
            }
            let deadline = self.renewed + self.timing.renew_deadline;
            let begun = Instant::now();
            let left = deadline.saturating_duration_since(begun);
            if left.is_zero() {
                let silence = begun - self.renewed;
                return Err(self.lost(format!("no renewal for {silence:?}")));
            }
            // A hanging call must not eat the whole deadline: the next attempt may get through.
            let patience = left.min(self.timing.renew_deadline / 2);
            match timeout(patience, self.attempt()).await {
                Ok(Ok(true)) if Instant::now() < deadline => {
                    failures = Failures::default();
                    self.renewed = begun;
                    self.leadership.set(Validity::Until(begun + self.timing.renew_deadline));
                }
                Ok(Ok(true)) => {
                    return Err(self.lost("the renewal came after its deadline".into()));
                }
                Ok(Ok(false)) => {
                    let holder = self.holder();
                    return Err(self.lost(format!("{holder} holds the lease")));
                }
                Ok(Err(error)) => failures.tell(&error, "can't renew the lease"),
                Err(_) => tracing::warn!("renewing the lease took too long"),
            }
        }
    }

    /// Gives the lease back, so that a successor needn't wait for it to expire. Call it once
    /// nothing writes any more.
    pub async fn release(&mut self) {
        self.leadership.set(Validity::No);
        let Some((seen, _)) = self.observed.take() else { return };
        if seen.record.holder.as_deref() != Some(&self.identity) {
            return;
        }
        let record = LeaseRecord { holder: None, duration_seconds: 1, ..seen.record };
        match timeout(self.timing.retry, self.store.replace(&record, &seen.version)).await {
            Ok(Ok(_)) => tracing::info!("lease released"),
            Ok(Err(error)) => {
                tracing::warn!(error = telemetry::told(&error), "can't release the lease");
            }
            Err(_) => tracing::warn!("releasing the lease took too long"),
        }
    }

    fn lost(&self, why: String) -> Error {
        self.leadership.set(Validity::No);
        Error::Lost(why)
    }

    fn holder(&self) -> String {
        let holder = self.observed.as_ref().and_then(|(seen, _)| seen.record.holder.clone());
        holder.unwrap_or_else(|| "nobody".into())
    }

    /// Takes or renews the lease once; `false`: somebody else has it.
    async fn attempt(&mut self) -> Result<bool, StoreError> {
        if let Some((seen, _)) = &self.observed
            && seen.record.holder.as_deref() == Some(&self.identity)
        {
            let record = seen.record.taken(&self.identity, self.timing.lease, true);
            match self.store.replace(&record, &seen.version).await {
                Ok(written) => {
                    self.observed = Some((written, Instant::now()));
                    return Ok(true);
                }
                // Perhaps our own write whose answer was lost: read what is there.
                Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        let Some(live) = self.store.get().await? else {
            let record = LeaseRecord::first(&self.identity, self.timing.lease);
            let made = self.store.create(&record).await?;
            self.observed = Some((made, Instant::now()));
            return Ok(true);
        };
        let since = match &self.observed {
            Some((seen, since)) if seen.same(&live) => *since,
            _ => {
                let now = Instant::now();
                self.observed = Some((live.clone(), now));
                now
            }
        };
        let ours = live.record.holder.as_deref() == Some(&self.identity);
        let free = live.record.holder.as_deref().unwrap_or("").is_empty();
        // Their duration counts, not ours: they may have been told another.
        let theirs = Duration::from_secs(live.record.duration_seconds.into());
        if !ours && !free && since.elapsed() < theirs {
            return Ok(false);
        }
        let record = live.record.taken(&self.identity, self.timing.lease, ours);
        let written = self.store.replace(&record, &live.version).await?;
        self.observed = Some((written, Instant::now()));
        Ok(true)
    }
}

/// Failures in a row; one that repeats is told once a minute.
#[derive(Default)]
struct Failures {
    last: Option<(String, Instant)>,
}

impl Failures {
    /// Without the right to it nothing will ever be different: that is for a person.
    fn tell(&mut self, error: &StoreError, what: &'static str) {
        let told = telemetry::told(error);
        let lately = |(last, at): &(String, Instant)| *last == told && at.elapsed() < AGAIN;
        if self.last.as_ref().is_some_and(lately) {
            return tracing::debug!(error = told, "{what}, still");
        }
        if error.denied() {
            tracing::error!(error = told, "{what}: grant get, create and update of the lease");
        } else {
            tracing::warn!(error = told, "{what}");
        }
        self.last = Some((told, Instant::now()));
    }
}

/// Up to a fifth longer, so that candidates do not run in step.
fn spread(period: Duration) -> Duration {
    period.mul_f64(1.0 + rand::RngExt::random_range(&mut rand::rng(), 0.0..0.2))
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
