//! How long to wait after a failure: per object, exponential with jitter, forgotten on success.
//!
//! It never decides whether to try again, and one object's failures never delay another.

use std::{collections::HashMap, hash::Hash, time::Duration};

use parking_lot::Mutex;
use rand::RngExt;

/// The first wait.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait: well below the lifetime of a drain, which each pass renews.
pub const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by object.
#[derive(Debug)]
pub struct Backoff<K> {
    failures: Mutex<HashMap<K, u32>>,
}

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self { failures: Mutex::new(HashMap::new()) }
    }
}

impl<K: Hash + Eq> Backoff<K> {
    /// Counts a failure of `key` and says how long to wait before the next attempt.
    pub fn failed(&self, key: K) -> Duration {
        let failures = {
            let mut map = self.failures.lock();
            let n = map.entry(key).or_insert(0);
            *n = n.saturating_add(1);
            *n
        };
        jittered(delay(failures), rand::rng().random_range(0.0..1.0))
    }

    /// How often `key` has failed since it last succeeded.
    pub fn failures(&self, key: &K) -> u32 {
        self.failures.lock().get(key).copied().unwrap_or(0)
    }

    /// Forgets the failures of `key`: it succeeded, or it is gone.
    pub fn reset(&self, key: &K) {
        self.failures.lock().remove(key);
    }

    /// How many objects have failed since they last succeeded.
    pub fn failing(&self) -> usize {
        self.failures.lock().len()
    }
}

/// For a stream whose parts wait by themselves.
pub struct NoPause;

impl Iterator for NoPause {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(Duration::ZERO)
    }
}

impl kube::runtime::utils::Backoff for NoPause {
    fn reset(&mut self) {}
}

/// The wait after the `failures`-th failure in a row, without jitter.
fn delay(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST.saturating_mul(1 << doublings).min(LONGEST)
}

/// `full`, shortened by up to a half: objects that failed together do not come back together.
fn jittered(full: Duration, random: f64) -> Duration {
    full.mul_f64(1.0 - random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest() {
        assert_eq!(delay(1), Duration::from_secs(1));
        assert_eq!(delay(2), Duration::from_secs(2));
        assert_eq!(delay(5), Duration::from_secs(16));
        assert_eq!(delay(6), Duration::from_secs(32));
        assert_eq!(delay(7), LONGEST);
        assert_eq!(delay(u32::MAX), LONGEST);
    }

    #[test]
    fn a_failing_cluster_is_looked_at_before_its_drains_are_given_up() {
        assert!(LONGEST.as_secs_f64() * 4.0 < crate::plan::DRAIN_TTL_SECONDS);
    }

    #[test]
    fn jitter_keeps_at_least_half() {
        assert_eq!(jittered(Duration::from_secs(8), 0.0), Duration::from_secs(8));
        assert_eq!(jittered(Duration::from_secs(8), 1.0), Duration::from_secs(4));
    }

    #[test]
    fn counts_by_object_and_forgets_on_success() {
        let backoff = Backoff::default();
        for _ in 0..4 {
            backoff.failed("a");
        }
        assert!(backoff.failed("a") >= Duration::from_secs(8));
        assert!(backoff.failed("b") <= Duration::from_secs(1));
        backoff.reset(&"a");
        assert_eq!(backoff.failing(), 1);
        assert!(backoff.failed("a") <= Duration::from_secs(1));
    }
}
