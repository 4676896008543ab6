//! The last broadcasts of one topic, always so many in a row: what is let go is the oldest. Pure;
//! time is an argument.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use sluice_node_api::config::HistoryRule;

use crate::pubsub::{Broadcast, Kind};

/// What an entry takes beside its text.
const OVERHEAD: usize = 64;

struct Entry {
    /// As a client gets it.
    json: Box<str>,
    at: Instant,
}

/// The broadcasts that are kept of a topic, oldest first.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    bytes: usize,
}

impl Log {
    /// Bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many broadcasts there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Appends a broadcast; gives how many were let go because there are too many bytes. One that is
    /// too large alone is let go with all before it: those that are left would have a gap.
    pub(super) fn push(&mut self, broadcast: &Broadcast, rule: &HistoryRule, now: Instant) -> u64 {
        let json = entry(broadcast);
        self.bytes += json.len() + OVERHEAD;
        self.entries.push_back(Entry { json, at: now });
        self.trim(rule, now)
    }

    /// Lets go what the rule does not have kept; gives how many because of their bytes.
    pub(super) fn trim(&mut self, rule: &HistoryRule, now: Instant) -> u64 {
        let most = usize::try_from(rule.size).unwrap_or(usize::MAX);
        let age = Duration::from_secs(rule.max_age_seconds.into());
        while let Some(first) = self.entries.front()
            && (self.entries.len() > most || now.saturating_duration_since(first.at) >= age)
        {
            self.drop_first();
        }
        let room = usize::try_from(rule.max_bytes).unwrap_or(usize::MAX);
        let mut dropped = 0;
        while self.bytes > room {
            self.drop_first();
            dropped += 1;
        }
        if self.entries.len() * 4 < self.entries.capacity() {
            self.entries.shrink_to(self.entries.len() * 2);
        }
        dropped
    }

    fn drop_first(&mut self) {
        if let Some(Entry { json, .. }) = self.entries.pop_front() {
            self.bytes -= json.len() + OVERHEAD;
        }
    }

    /// All of it, as a JSON list.
    pub(super) fn list(&self) -> String {
        let mut list = String::with_capacity(self.bytes + 2);
        for (i, entry) in self.entries.iter().enumerate() {
            list.push(if i == 0 { '[' } else { ',' });
            list.push_str(&entry.json);
        }
        list.push_str(if list.is_empty() { "[]" } else { "]" });
        list
    }
}

/// A broadcast as a client gets it.
fn entry(broadcast: &Broadcast) -> Box<str> {
    let event = serde_json::Value::from(&*broadcast.event);
    match (broadcast.kind, std::str::from_utf8(&broadcast.payload)) {
        (Kind::Json, Ok(payload)) => format!(r#"{{"event":{event},"payload":{payload}}}"#),
        // JSON is text, always.
        (Kind::Binary, _) | (Kind::Json, Err(_)) => {
            let bytes = STANDARD.encode(&broadcast.payload);
            format!(r#"{{"event":{event},"payloadBase64":"{bytes}"}}"#)
        }
    }
    .into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn broadcast(kind: Kind, payload: impl Into<Bytes>) -> Broadcast {
        Broadcast { topic: "t".into(), event: "say \"x\"".into(), kind, payload: payload.into() }
    }

    fn number(n: usize, fill: usize) -> Broadcast {
        broadcast(Kind::Json, json!({"n": n, "fill": "x".repeat(fill)}).to_string())
    }

    fn numbers(log: &Log) -> Vec<u64> {
        let list: Value = serde_json::from_str(&log.list()).expect("JSON");
        let list = list.as_array().expect("a list");
        list.iter().map(|entry| entry["payload"]["n"].as_u64().expect("a number")).collect()
    }

    #[test]
    fn json_stays_as_it_came_and_bytes_are_base64() {
        let (mut log, rule, now) = (Log::default(), HistoryRule::default(), Instant::now());
        assert_eq!(log.list(), "[]");
        log.push(&broadcast(Kind::Json, r#"{"a": 1e999}"#), &rule, now);
        log.push(&broadcast(Kind::Binary, vec![0, 255, 7]), &rule, now);
        let want = r#"[{"event":"say \"x\"","payload":{"a": 1e999}},{"event":"say \"x\"","payloadBase64":"AP8H"}]"#;
        assert_eq!(log.list(), want);
    }

    #[test]
    fn what_is_too_old_goes_and_the_rule_may_change() {
        let start = Instant::now();
        let mut log = Log::default();
        let mut rule = HistoryRule { size: 3, max_age_seconds: 10, ..HistoryRule::default() };
        for n in 0..5 {
            assert_eq!(log.push(&number(n, 0), &rule, start + Duration::from_secs(n as u64)), 0);
        }
        assert_eq!(numbers(&log), [2, 3, 4]);
        log.trim(&rule, start + Duration::from_secs(12));
        assert_eq!(numbers(&log), [3, 4]);
        rule.size = 1;
        log.trim(&rule, start + Duration::from_secs(12));
        assert_eq!(numbers(&log), [4]);
        log.trim(&rule, start + Duration::from_secs(14));
        assert_eq!((numbers(&log), log.bytes()), (Vec::new(), 0));
    }

    #[test]
    fn one_too_large_leaves_no_gap() {
        let (mut log, now) = (Log::default(), Instant::now());
        let rule = HistoryRule { max_bytes: 1024, ..HistoryRule::default() };
        for (n, fill) in [0, 0, 2000, 0].into_iter().enumerate() {
            log.push(&number(n, fill), &rule, now);
        }
        assert_eq!(numbers(&log), [3]);
    }

    proptest! {
        #[test]
        fn it_is_the_last_in_a_row_within_its_bounds(
            fills in proptest::collection::vec(0usize..1500, 0..60),
            size in 1u32..20,
            max_bytes in 1024u32..8192,
        ) {
            let (mut log, now) = (Log::default(), Instant::now());
            let rule = HistoryRule { size, max_bytes, ..HistoryRule::default() };
            for (n, fill) in fills.iter().enumerate() {
                log.push(&number(n, *fill), &rule, now);
            }
            let got = numbers(&log);
            let last = fills.len() as u64;
            prop_assert!(got.len() <= size as usize && log.bytes() <= max_bytes as usize);
            prop_assert_eq!(&got, &(last - got.len() as u64..last).collect::<Vec<_>>());
            prop_assert!(log.list().len() <= log.bytes() + 2);
        }
    }
}
