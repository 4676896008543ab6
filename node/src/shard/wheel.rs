//! A hashed timer wheel: one for all idle checks of a shard. It knows ticks, not time.

const BUCKETS: usize = 128;

/// Keys that are due at a tick.
#[derive(Debug)]
pub(crate) struct Wheel<K> {
    buckets: Vec<Vec<(u64, K)>>,
    now: u64,
}

impl<K> Default for Wheel<K> {
    fn default() -> Self {
        Self { buckets: (0..BUCKETS).map(|_| Vec::new()).collect(), now: 0 }
    }
}

impl<K> Wheel<K> {
    /// Makes `key` due `after` ticks from now, at least one.
    pub(crate) fn insert(&mut self, after: u64, key: K) {
        let due = self.now.saturating_add(after.max(1));
        self.buckets[due as usize % BUCKETS].push((due, key));
    }

    /// One tick later: moves what is due into `out`.
    pub(crate) fn tick(&mut self, out: &mut Vec<K>) {
        self.now += 1;
        let now = self.now;
        let bucket = &mut self.buckets[now as usize % BUCKETS];
        let mut at = 0;
        while at < bucket.len() {
            if bucket[at].0 <= now {
                out.push(bucket.swap_remove(at).1);
            } else {
                at += 1;
            }
        }
        if bucket.is_empty() {
            bucket.shrink_to(16);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_due_at_their_tick_also_after_several_turns() {
        let mut wheel = Wheel::default();
        for after in [0, 1, 5, 127, 128, 129, 700] {
            wheel.insert(after, after);
        }
        let mut got = Vec::new();
        for tick in 1..=800 {
            let mut due = Vec::new();
            wheel.tick(&mut due);
            due.sort_unstable();
            got.extend(due.into_iter().map(|key| (tick, key)));
        }
        let want = [(1, 0), (1, 1), (5, 5), (127, 127), (128, 128), (129, 129), (700, 700)];
        assert_eq!(got, want);
    }
}
