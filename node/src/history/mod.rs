//! History: the last broadcasts of the topics whose rule says so, for clients that join.
//!
//! Each broadcast reaches a client that joins once, in the reply to its join or after it. For that
//! two things are done under one lock: a broadcast is kept and handed to the inboxes of the shards,
//! and what is kept is read and the join's acceptance handed to the inbox of its shard. A shard takes
//! its inbox in order. So nothing of such a topic may reach a socket past the inbox.
//!
//! A topic that is kept is of interest to the node as if one shard more, [`KEEPER`], subscribed it:
//! the other nodes' broadcasts arrive though nobody here has joined, and a broadcast of any other
//! topic finds out without a lock that nothing is to be done here. For the first broadcast of a
//! topic the mesh is told the rules' patterns ([`Plane::set_live`]).

mod log;
mod shelf;

use std::{
    hash::{BuildHasher, RandomState},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use sluice_node_api::config::HistoryRule;

use self::shelf::{LetGo, Shelf};
use crate::{
    arrivals::DISCONNECT,
    channel::Payload,
    memory::signed,
    plane::Plane,
    relay::{Rule, Rules},
    shard::fanout::Fanout,
};

/// The shard that subscribes topics that are kept; there are never so many.
pub(crate) const KEEPER: u16 = u16::MAX;
/// Locks among which the topics are divided.
const SHELVES: usize = 16;
/// Between two looks for what is too old.
const SWEEP: Duration = Duration::from_secs(10);

/// What a node keeps of its topics.
pub(crate) struct History {
    /// Some rule has history kept.
    on: AtomicBool,
    hasher: RandomState,
    shelves: Box<[Mutex<Shelf>]>,
}

impl Default for History {
    fn default() -> Self {
        let shelves = (0..SHELVES).map(|_| Mutex::default()).collect();
        Self { on: AtomicBool::default(), hasher: RandomState::new(), shelves }
    }
}

/// A shelf that is locked; what has changed in its size is told before it is not.
struct Open<'a> {
    plane: &'a Plane,
    shelf: MutexGuard<'a, Shelf>,
    size: (usize, usize),
}

impl<'a> Open<'a> {
    fn new(plane: &'a Plane, shelf: &'a Mutex<Shelf>) -> Self {
        let shelf = shelf.lock();
        Self { plane, size: shelf.size(), shelf }
    }

    /// Begins the log of a topic that has none.
    fn begin(&mut self, topic: &Arc<str>) {
        if !self.shelf.has(topic) {
            let (name, _) = self.plane.interest.acquire(topic.clone(), KEEPER);
            self.shelf.open(name);
        }
    }

    /// Ends the interest in topics that are kept no more.
    fn release(&self, gone: LetGo) {
        for topic in &gone.topics {
            self.plane.interest.release(topic, KEEPER);
        }
        if gone.broadcasts > 0 {
            self.plane.metrics.drop("history", gone.broadcasts);
        }
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let change = |now: usize, before: usize| signed(now) - signed(before);
        let (topics, bytes) = self.shelf.size();
        self.plane.metrics.history_topics.inc_by(change(topics, self.size.0));
        self.plane.metrics.history_bytes.inc_by(change(bytes, self.size.1));
    }
}

impl History {
    fn shelf(&self, topic: &str) -> &Mutex<Shelf> {
        &self.shelves[self.hasher.hash_one(topic) as usize % SHELVES]
    }

    /// Whether a broadcast may have to be kept, whose topic these shards subscribe. One that nobody
    /// here has joined may be the first.
    pub(crate) fn concerns(&self, shards: &[u16]) -> bool {
        shards.contains(&KEEPER) || shards.is_empty() && self.on.load(Ordering::Relaxed)
    }

    /// Keeps a broadcast and hands it to the shards; false, with nothing done, if it is none to be
    /// kept.
    pub(crate) fn record(&self, plane: &Plane, fanout: &Arc<Fanout>, now: Instant) -> bool {
        let rules = plane.rules.read().clone();
        let (topic, event) = (fanout.topic(), fanout.event());
        let rule = rules.find(topic).filter(|rule| rule.keeps(event)).and_then(Rule::history);
        let Some(rule) = rule else { return false };
        let mut open = Open::new(plane, self.shelf(topic));
        // A disconnect is about an id, which would be kept as a topic of its own.
        if event != DISCONNECT {
            open.begin(topic);
        }
        let gone = open.shelf.push(fanout.broadcast(), rule, now);
        open.release(gone);
        // Who subscribes is asked anew: a join may have come before the lock was taken.
        plane.hand_out(fanout, &plane.interest.shards(topic), None);
        true
    }

    /// Reads what is kept of a topic, and has the join accepted with it.
    fn join(
        &self,
        plane: &Plane,
        topic: &Arc<str>,
        rule: &HistoryRule,
        accept: impl FnOnce(String),
    ) {
        let mut open = Open::new(plane, self.shelf(topic));
        open.begin(topic);
        let (list, gone) = open.shelf.list(topic, rule, Instant::now());
        open.release(gone);
        accept(list);
    }

    /// Puts other rules in force.
    pub(crate) fn set_rules(&self, plane: &Plane, rules: &Rules) {
        let on = rules.keep_history();
        if self.on.swap(on, Ordering::Relaxed) || on {
            self.sweep(plane, rules, Instant::now());
        }
    }

    /// Lets go what the rules do not have kept any more.
    fn sweep(&self, plane: &Plane, rules: &Rules, now: Instant) {
        let rule = |topic: &str| rules.find(topic).and_then(Rule::history);
        let joined = |topic: &str| plane.interest.shards(topic).iter().any(|one| *one != KEEPER);
        for shelf in &self.shelves {
            let mut open = Open::new(plane, shelf);
            let gone = open.shelf.sweep(rule, joined, now);
            open.release(gone);
        }
    }
}

/// Has a join of the stock node accepted with `response`, and with what is kept of the topic if its
/// rule has history.
pub(crate) fn accept(
    plane: &Plane,
    topic: &Arc<str>,
    response: Payload,
    say: impl FnOnce(Payload),
) {
    let rules = plane.rules.read().clone();
    match rules.find(topic).and_then(Rule::history) {
        Some(rule) => {
            plane.history.join(plane, topic, rule, |list| say(with_history(response, &list)));
        }
        None => say(response),
    }
}

/// A join's response with a list; one that is no object stays as it is.
fn with_history(response: Payload, list: &str) -> Payload {
    let text = std::str::from_utf8(response.bytes()).ok().filter(|_| !response.is_binary());
    let inner = text.and_then(|text| text.trim().strip_prefix('{')?.strip_suffix('}'));
    let Some(inner) = inner else { return response };
    let comma = if inner.trim().is_empty() { "" } else { "," };
    Payload::json_text(format!(r#"{{{inner}{comma}"history":{list}}}"#).into())
}

/// Lets go what is too old, until shutdown.
pub(crate) async fn sweep(plane: Arc<Plane>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = plane.shutdown.cancelled() => return,
        }
        if plane.history.on.load(Ordering::Relaxed) {
            let rules = plane.rules.read().clone();
            plane.history.sweep(&plane, &rules, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
