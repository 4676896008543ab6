//! The pause before trying again: doubling, bounded, with jitter so that nodes that failed
//! together do not come back together.

use std::time::Duration;

use rand::RngExt;

/// Pauses that grow with each failure.
#[derive(Clone, Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// From `min`, doubling, up to `max`.
    pub fn new(min: Duration, max: Duration) -> Self {
        Self { min, max, next: min }
    }

    /// The next pause: between half of it and the whole.
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(self.max);
        whole.mul_f64(rand::rng().random_range(0.5..=1.0))
    }

    /// It worked: the next pause is the shortest again.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_starts_over() {
        let (min, max) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut b = Backoff::new(min, max);
        for want in [100, 200, 400, 800, 1000, 1000] {
            let got = b.pause();
            let want = Duration::from_millis(want);
            assert!(got >= want / 2 && got <= want, "{got:?} for {want:?}");
        }
        b.reset();
        assert!(b.pause() <= min);
    }
}
