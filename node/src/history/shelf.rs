//! The logs of some topics: bounded in number and in bytes together. What is full lets go the log
//! that was used least recently. Pure.

use std::{collections::HashMap, sync::Arc, time::Instant};

use sluice_node_api::config::HistoryRule;

use super::log::Log;
use crate::pubsub::Broadcast;

/// Most topics.
pub(super) const MAX_TOPICS: usize = 640;
/// Most bytes, of all topics.
pub(super) const MAX_BYTES: usize = 4 << 20;
/// What a topic takes beside its log.
const OVERHEAD: usize = 512;

#[derive(Default)]
struct Kept {
    log: Log,
    used: u64,
}

/// The logs.
#[derive(Default)]
pub(super) struct Shelf {
    topics: HashMap<Arc<str>, Kept>,
    bytes: usize,
    clock: u64,
}

/// What is let go.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct LetGo {
    /// Topics.
    pub(super) topics: Vec<Arc<str>>,
    /// Broadcasts that the rules would have kept.
    pub(super) broadcasts: u64,
}

impl Shelf {
    /// How many topics there are, and their bytes.
    pub(super) fn size(&self) -> (usize, usize) {
        (self.topics.len(), self.bytes)
    }

    pub(super) fn has(&self, topic: &str) -> bool {
        self.topics.contains_key(topic)
    }

    /// Begins the log of a topic.
    pub(super) fn open(&mut self, topic: Arc<str>) {
        self.topics.insert(topic, Kept::default());
        self.bytes += OVERHEAD;
    }

    /// Appends a broadcast to its topic's log, if that is there.
    pub(super) fn push(
        &mut self,
        broadcast: &Broadcast,
        rule: &HistoryRule,
        now: Instant,
    ) -> LetGo {
        let broadcasts = self.with(&broadcast.topic, |log| log.push(broadcast, rule, now));
        self.fit(broadcasts.unwrap_or_default())
    }

    /// The log of a topic as a JSON list, and what is let go.
    pub(super) fn list(
        &mut self,
        topic: &str,
        rule: &HistoryRule,
        now: Instant,
    ) -> (String, LetGo) {
        let list = self.with(topic, |log| (log.trim(rule, now), log.list()));
        let (broadcasts, list) = list.unwrap_or_else(|| (0, Log::default().list()));
        (list, self.fit(broadcasts))
    }

    /// Lets go what the rules do not have kept any more: broadcasts, and topics that have no rule, or
    /// no broadcast and nobody who is `joined`.
    pub(super) fn sweep<'a>(
        &mut self,
        rule: impl Fn(&str) -> Option<&'a HistoryRule>,
        joined: impl Fn(&str) -> bool,
        now: Instant,
    ) -> LetGo {
        let mut gone = LetGo::default();
        for topic in self.topics.keys().cloned().collect::<Vec<_>>() {
            let trimmed = rule(&topic).and_then(|rule| self.trim(&topic, rule, now));
            gone.broadcasts += trimmed.map_or(0, |(dropped, _)| dropped);
            if trimmed.is_none_or(|(_, left)| left == 0 && !joined(&topic)) {
                self.close(&topic);
                gone.topics.push(topic);
            }
        }
        gone
    }

    fn trim(&mut self, topic: &str, rule: &HistoryRule, now: Instant) -> Option<(u64, usize)> {
        let kept = self.topics.get_mut(topic)?;
        let before = kept.log.bytes();
        let dropped = kept.log.trim(rule, now);
        self.bytes = self.bytes - before + kept.log.bytes();
        Some((dropped, kept.log.len()))
    }

    /// Uses the log of a topic.
    fn with<T>(&mut self, topic: &str, act: impl FnOnce(&mut Log) -> T) -> Option<T> {
        let kept = self.topics.get_mut(topic)?;
        self.clock += 1;
        kept.used = self.clock;
        let before = kept.log.bytes();
        let done = act(&mut kept.log);
        self.bytes = self.bytes - before + kept.log.bytes();
        Some(done)
    }

    /// Lets go of the logs that were used least recently, until the rest fits. The one in use stays:
    /// it fits alone.
    fn fit(&mut self, broadcasts: u64) -> LetGo {
        let mut gone = LetGo { broadcasts, ..LetGo::default() };
        while self.topics.len() > MAX_TOPICS || self.bytes > MAX_BYTES {
            let oldest = self.topics.iter().min_by_key(|(_, kept)| kept.used);
            let Some(topic) = oldest.map(|(topic, _)| topic.clone()) else { break };
            gone.broadcasts += self.close(&topic);
            gone.topics.push(topic);
        }
        gone
    }

    /// Ends the log of a topic; how many broadcasts it had.
    fn close(&mut self, topic: &str) -> u64 {
        let Some(kept) = self.topics.remove(topic) else { return 0 };
        self.bytes -= kept.log.bytes() + OVERHEAD;
        kept.log.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::pubsub::Kind;

    fn broadcast(topic: &str, bytes: usize) -> Broadcast {
        let payload = format!(r#"{{"fill":"{}"}}"#, "x".repeat(bytes)).into();
        Broadcast { topic: topic.into(), event: "e".into(), kind: Kind::Json, payload }
    }

    fn push(shelf: &mut Shelf, topic: &str, bytes: usize) -> LetGo {
        let rule = HistoryRule { max_bytes: 1 << 20, ..HistoryRule::default() };
        if !shelf.has(topic) {
            shelf.open(topic.into());
        }
        shelf.push(&broadcast(topic, bytes), &rule, Instant::now())
    }

    #[test]
    fn the_topic_that_was_used_least_recently_goes_first() {
        let mut shelf = Shelf::default();
        for n in 0..MAX_TOPICS {
            assert_eq!(push(&mut shelf, &format!("t{n}"), 1), LetGo::default());
        }
        let rule = HistoryRule::default();
        assert!(shelf.list("t0", &rule, Instant::now()).0.contains("fill"), "a join uses it");
        let gone = push(&mut shelf, "more", 1);
        assert_eq!(gone, LetGo { topics: vec!["t1".into()], broadcasts: 1 });
        for n in 0..4 {
            push(&mut shelf, &format!("large{n}"), 1_000_000);
        }
        let (topics, bytes) = shelf.size();
        assert!(
            topics < MAX_TOPICS && bytes <= MAX_BYTES && shelf.has("large3"),
            "{topics} {bytes}"
        );
        let small = shelf.topics.values().map(|kept| kept.log.bytes() + OVERHEAD).sum::<usize>();
        assert_eq!(bytes, small, "nothing is counted that is gone");
    }

    #[test]
    fn a_sweep_ends_what_nobody_needs() {
        let (mut shelf, now) = (Shelf::default(), Instant::now());
        for topic in ["joined", "left", "ruled-out"] {
            push(&mut shelf, topic, 1);
        }
        let rule = HistoryRule { max_age_seconds: 60, ..HistoryRule::default() };
        let find = |topic: &str| (topic != "ruled-out").then_some(&rule);
        let gone = shelf.sweep(find, |topic| topic == "joined", now);
        assert_eq!(gone, LetGo { topics: vec!["ruled-out".into()], broadcasts: 0 });
        let later = now + Duration::from_secs(61);
        let gone = shelf.sweep(find, |topic| topic == "joined", later);
        assert_eq!(gone.topics, [Arc::<str>::from("left")]);
        assert_eq!(shelf.list("joined", &rule, later).0, "[]");
        assert_eq!(shelf.size(), (1, OVERHEAD));
    }
}
