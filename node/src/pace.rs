//! How much a second is let through: a bucket that holds a second's worth, of a client's messages on a
//! channel or of handshakes at the door.
//! Sans-I/O: the time is an argument.

use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);

/// What is left of an allowance: kept as the time at which it is whole again, so that it is no larger
/// than a time.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    whole: Instant,
}

impl Pace {
    /// Whole.
    pub fn new(now: Instant) -> Self {
        Self { whole: now }
    }

    /// Whether nothing is missing.
    pub fn is_whole(&self, now: Instant) -> bool {
        self.whole <= now
    }

    /// Takes one, if there is room for it at `rate` a second. The rate may be another than before.
    pub fn take(&mut self, rate: u32, now: Instant) -> bool {
        self.take_of(1, rate, now)
    }

    /// Takes one, if there is room for it in what `seconds` hold: of two who take, the one with more
    /// seconds still finds room where the other does not.
    pub fn take_of(&mut self, seconds: u32, rate: u32, now: Instant) -> bool {
        let share = SECOND / rate.max(1);
        let whole = self.whole.max(now) + share;
        let taken = whole - now <= SECOND * seconds;
        if taken {
            self.whole = whole;
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
            let mut pace = Pace::new(start);
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
    fn who_may_take_of_two_seconds_finds_room_when_the_first_is_used_up() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!((0..50).filter(|_| pace.take(10, now)).count(), 10);
        assert_eq!((0..50).filter(|_| pace.take_of(2, 10, now)).count(), 10);
        assert!(!pace.take(10, now + SECOND), "what was taken in advance is missing later");
        assert!(pace.take(10, now + SECOND * 2));
    }

    #[test]
    fn a_clock_that_stands_or_a_rate_that_changes_does_no_harm() {
        let now = Instant::now();
        let mut pace = Pace::new(now);
        assert!(pace.take(1, now) && !pace.take(1, now));
        assert!(!pace.take(100, now - Duration::from_secs(5)));
        assert!(pace.take(100, now + Duration::from_secs(5)));
    }
}
