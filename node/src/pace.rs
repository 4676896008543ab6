//! How much a second is let through: a bucket that holds a second's worth, of a client's messages on a
//! channel or of handshakes at the door.
//! Sans-I/O: the time is an argument.

use std::time::Instant;

/// What is left of an allowance.
#[derive(Debug)]
pub struct Pace {
    left: f64,
    seen: Instant,
}

impl Pace {
    /// Full, for `rate` a second.
    pub fn new(rate: u32, now: Instant) -> Self {
        Self { left: rate.into(), seen: now }
    }

    /// Takes one, if there is room for it. The rate may be another than before.
    pub fn take(&mut self, rate: u32, now: Instant) -> bool {
        let rate = f64::from(rate);
        let passed = now.saturating_duration_since(self.seen).as_secs_f64();
        self.seen = now;
        self.left = (self.left + passed * rate).min(rate);
        let taken = self.left >= 1.0;
        if taken {
            self.left -= 1.0;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_second_holds_its_rate_however_it_is_cut() {
        let start = Instant::now();
        for parts in [1, 7, 1000] {
            let mut pace = Pace::new(10, start);
            let burst = (0..50).filter(|_| pace.take(10, start)).count();
            assert_eq!(burst, 10);
            let later = |part| start + Duration::from_secs(3) * part / parts;
            let taken: usize = (1..=parts)
                .map(|part| (0..50).filter(|_| pace.take(10, later(part))).count())
                .sum();
            assert!(if parts == 1 { taken == 10 } else { (29..=30).contains(&taken) }, "{taken}");
        }
    }

    #[test]
    fn a_clock_that_stands_or_a_rate_that_changes_does_no_harm() {
        let now = Instant::now();
        let mut pace = Pace::new(1, now);
        assert!(pace.take(1, now) && !pace.take(1, now));
        assert!(!pace.take(100, now - Duration::from_secs(5)));
        assert!(pace.take(100, now + Duration::from_secs(5)));
    }
}
