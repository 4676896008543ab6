//! What is left of a socket's allowances, by topic: a channel that ends leaves its own behind, so that
//! nobody has more of it for leaving and joining again.
//!
//! An allowance is whole after a second at the latest, and then as good as none: it is forgotten. So
//! a socket keeps no more of them than it has channels and could join in the last seconds.

use std::{collections::HashMap, sync::Arc, time::Instant};

use parking_lot::Mutex;

use crate::pace::Pace;

/// Fewest that are kept before those that are whole are looked for.
const FEW: usize = 8;

/// A handle to the allowances of one socket, for all that speaks for it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Paces(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    topics: HashMap<Box<str>, Pace>,
    /// How many there must be before those that are whole are forgotten: twice as many as were not, so
    /// that looking for them costs each push next to nothing.
    sweep_at: usize,
}

impl Paces {
    /// Takes one message of `topic`, if there is room for it at `rate` a second.
    pub(crate) fn take(&self, topic: &str, rate: u32, now: Instant) -> bool {
        let Kept { topics, sweep_at } = &mut *self.0.lock();
        if let Some(pace) = topics.get_mut(topic) {
            return pace.take(rate, now);
        }
        if topics.len() >= (*sweep_at).max(FEW) {
            topics.retain(|_, pace| !pace.is_whole(now));
            *sweep_at = topics.len() * 2;
            topics.shrink_to(*sweep_at);
        }
        topics.entry(topic.into()).or_insert_with(|| Pace::new(now)).take(rate, now)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.lock().topics.len()
    }
}
