//! A token that may be replaced while the node runs. The one before is taken for a while longer:
//! the nodes, the operator and whoever publishes do not hear of a new one at the same moment.
//!
//! No token is ever printed. Time is an argument.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

/// For how long a token is still taken once there is another.
pub const OVERLAP: Duration = Duration::from_secs(300);

/// A cheap handle to one token and the one before it. No `Debug`.
#[derive(Clone)]
pub struct Keys(Arc<Mutex<Held>>);

struct Held {
    now: Bytes,
    /// The one before, and when it was replaced.
    before: Option<(Bytes, Instant)>,
}

impl Keys {
    /// Of this token alone.
    pub fn new(token: Bytes) -> Self {
        Self(Arc::new(Mutex::new(Held { now: token, before: None })))
    }

    /// Puts `token` in place of the one that is held; whether it is another one.
    pub fn replace(&self, token: Bytes, at: Instant) -> bool {
        let mut held = self.0.lock();
        if held.now == token {
            return false;
        }
        let before = std::mem::replace(&mut held.now, token);
        held.before = Some((before, at));
        true
    }

    /// The tokens that are taken: the one that is held, then the one before for [`OVERLAP`].
    pub fn taken(&self, at: Instant) -> Vec<Bytes> {
        let mut held = self.0.lock();
        // Not kept for longer than it is of use.
        if held.before.as_ref().is_some_and(|(_, since)| at.duration_since(*since) >= OVERLAP) {
            held.before = None;
        }
        let before = held.before.iter().map(|(token, _)| token.clone());
        std::iter::once(held.now.clone()).chain(before).collect()
    }

    /// The token to sign with: the one before, until all who share it have read the new one.
    pub fn signing(&self, at: Instant) -> Bytes {
        let held = self.0.lock();
        let before = held.before.as_ref();
        let before = before.filter(|(_, since)| at.duration_since(*since) < OVERLAP / 2);
        before.map_or(&held.now, |(token, _)| token).clone()
    }

    /// The token for the `n`th try at a peer: the one that is held and the one before in turn,
    /// since the peer may not have read the new one yet.
    pub fn for_try(&self, n: u32, at: Instant) -> Bytes {
        let taken = self.taken(at);
        taken[n as usize % taken.len()].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_before_is_taken_for_five_minutes() {
        let (a, b, c) = ("a".into(), Bytes::from("b"), Bytes::from("c"));
        let (keys, t) = (Keys::new(a), Instant::now());
        assert!(!keys.replace("a".into(), t), "the same one");
        assert_eq!(keys.taken(t), ["a"]);
        assert!(keys.replace(b.clone(), t));
        assert_eq!(keys.taken(t + OVERLAP - Duration::from_secs(1)), ["b", "a"]);
        // Another one begins anew; no more than two are ever taken.
        assert!(keys.replace(c, t + Duration::from_secs(60)));
        assert_eq!(keys.taken(t + OVERLAP), ["c", "b"]);
        assert_eq!(keys.taken(t + Duration::from_secs(60) + OVERLAP), ["c"]);
        // And one that is put back is as good as any.
        assert!(keys.replace(b, t + OVERLAP * 2));
        assert_eq!(keys.taken(t + OVERLAP * 2), ["b", "c"]);
    }

    #[test]
    fn what_is_signed_is_taken_by_who_reads_a_new_token_a_minute_earlier_or_later() {
        let (t, late) = (Instant::now(), Duration::from_secs(60));
        let (early_bird, sleeper) = (Keys::new("a".into()), Keys::new("a".into()));
        early_bird.replace("b".into(), t);
        for second in 0..600 {
            let at = t + Duration::from_secs(second);
            if at == t + late {
                sleeper.replace("b".into(), at);
            }
            assert!(sleeper.taken(at).contains(&early_bird.signing(at)), "{second}");
            assert!(early_bird.taken(at).contains(&sleeper.signing(at)), "{second}");
        }
        assert_eq!(sleeper.signing(t + OVERLAP + late), "b");
    }

    #[test]
    fn a_peer_is_tried_with_each_in_turn() {
        let (keys, t) = (Keys::new("a".into()), Instant::now());
        assert_eq!((keys.for_try(0, t), keys.for_try(1, t)), ("a".into(), "a".into()));
        keys.replace("b".into(), t);
        let tried: Vec<Bytes> = (0..4).map(|n| keys.for_try(n, t)).collect();
        assert_eq!(tried, ["b", "a", "b", "a"]);
    }
}
