//! Whether the backend is called at all. After some failures in a row it is left alone for a while,
//! then called once to see; so nothing piles up behind a backend that is down. Pure: the time is an
//! argument.

use std::time::{Duration, Instant};

/// Failures in a row that open the circuit.
const FAILURES: u32 = 5;
/// The first pause; each further one is twice as long.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(10);

/// A circuit, closed at first.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    /// In a row.
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    until: Instant,
    pause: Duration,
    /// A call is under way to see whether the backend is back.
    probing: bool,
}

impl Breaker {
    /// Whether a call may be made now; each call that may is followed by [`Breaker::end`].
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        let Some(open) = &mut self.open else { return true };
        let admitted = !open.probing && now >= open.until;
        open.probing |= admitted;
        admitted
    }

    /// A call has ended.
    pub(super) fn end(&mut self, ok: bool, now: Instant) {
        if ok {
            *self = Self::default();
            return;
        }
        self.failures = self.failures.saturating_add(1);
        match &mut self.open {
            Some(open) if open.probing => {
                let pause = (open.pause * 2).min(LONGEST);
                *open = Open { until: now + pause, pause, probing: false };
            }
            // It was under way when the circuit opened.
            Some(_) => {}
            None if self.failures >= FAILURES => {
                self.open = Some(Open { until: now + FIRST, pause: FIRST, probing: false });
            }
            None => {}
        }
    }

    /// A call was given up before its end: another may go to see.
    pub(super) fn give_up(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// Whether it is open: the last calls have failed.
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// How long until a call may be made; zero when one may be now.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let until = self.open.as_ref().map(|open| open.until.saturating_duration_since(now));
        until.unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_failures_in_a_row_open_it_and_one_success_closes_it() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for _ in 0..4 {
            assert!(breaker.admit(start));
            breaker.end(false, start);
        }
        breaker.end(true, start);
        for _ in 0..5 {
            assert!(breaker.admit(start));
            breaker.end(false, start);
        }
        assert!(!breaker.admit(start) && breaker.is_open());
        assert_eq!(breaker.wait(start), Duration::from_secs(1));
        // One that was under way changes nothing.
        breaker.end(false, start);
        assert!(breaker.admit(at(1)), "one goes to see");
        assert!(!breaker.admit(at(1)), "and no other");
        breaker.end(false, at(1));
        assert!(!breaker.admit(at(2)) && breaker.admit(at(3)), "twice as long");
        breaker.end(true, at(3));
        assert!(breaker.admit(at(3)) && !breaker.is_open());
    }

    #[test]
    fn a_call_that_is_given_up_says_nothing_and_lets_another_see() {
        let (mut breaker, start) = (Breaker::default(), Instant::now());
        for _ in 0..FAILURES {
            breaker.give_up();
        }
        assert!(!breaker.is_open());
        for _ in 0..FAILURES {
            breaker.end(false, start);
        }
        let later = start + FIRST;
        assert!(breaker.admit(later) && !breaker.admit(later));
        breaker.give_up();
        assert!(breaker.is_open() && breaker.admit(later));
    }

    #[test]
    fn the_pause_has_an_end() {
        let (mut breaker, mut now) = (Breaker::default(), Instant::now());
        for _ in 0..50 {
            now += breaker.wait(now);
            assert!(breaker.admit(now));
            breaker.end(false, now);
        }
        assert_eq!(breaker.wait(now), LONGEST);
    }
}
