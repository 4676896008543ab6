//! What this node wants of the others, how far each has been told, and what each has confirmed. Pure;
//! time is an argument.
//!
//! Changes are numbered. A peer is told them in order on the link that it dials, and confirms by
//! number what is in force there; so a topic that is wanted, unwanted and wanted again needs no
//! more thought. Begin with [`Wanted::want`]: a join waits until every peer that may be holding back
//! broadcasts has confirmed its topic. A peer holds nothing back before it has been told all
//! (`heard`), nor once it has confirmed that it shall send everything again.
//!
//! A topic that nobody subscribes any more stays wanted for [`LINGER`]: a client that comes back finds it
//! confirmed. A topic that matches a pattern is not told by itself.

mod link;
mod log;

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::sync::{oneshot, watch};

use self::{
    link::{Link, Source},
    log::{Change, Log},
};
use super::{handshake::Instance, heard};
use crate::message::matches;

/// How long a topic stays wanted after its last subscriber.
pub(super) const LINGER: Duration = Duration::from_secs(5);
/// How long a link that broke is waited for: its peer may hold back broadcasts until it notices, and
/// dials again as soon as it has.
pub(super) const LOST: Duration = Duration::from_secs(1);

/// How much of it there may be.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Topics that are told; with more peers send everything, until half of them are gone.
    pub(super) topics: usize,
    /// Changes that are kept for peers that are slow to take them.
    pub(super) changes: usize,
    /// Topics that nobody subscribes any more.
    pub(super) lingering: usize,
    /// Bytes of one portion.
    pub(super) portion: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { topics: heard::MAX_TOPICS, changes: 1 << 16, lingering: 10_000, portion: 64 << 10 }
    }
}

/// A topic with subscribers here.
struct Want {
    /// It is told by itself: no pattern matches it.
    told: bool,
    /// The number with which it was.
    number: u64,
    /// It has no subscribers any more.
    left: Option<u64>,
}

/// A link that broke while its peer may have held back broadcasts.
struct Lost {
    instance: Instance,
    sure: u64,
    until: Instant,
}

/// All of it.
pub(super) struct Wanted {
    bounds: Bounds,
    topics: HashMap<Arc<str>, Want>,
    /// How many are told by themselves.
    told: usize,
    /// They were too many.
    too_many: bool,
    /// Nothing is told before these are known.
    patterns: Option<Arc<[Arc<str>]>>,
    patterns_number: u64,
    /// Until when, and which leave it was.
    lingering: VecDeque<(Instant, u64, Arc<str>)>,
    leaves: u64,
    log: Log,
    links: HashMap<u64, Link>,
    lost: Vec<Lost>,
    /// Joins, by the number that they wait for.
    waiting: BTreeMap<u64, Vec<oneshot::Sender<()>>>,
    changed: watch::Sender<()>,
}

impl Wanted {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            topics: HashMap::new(),
            told: 0,
            too_many: false,
            patterns: None,
            patterns_number: 0,
            lingering: VecDeque::new(),
            leaves: 0,
            log: Log::default(),
            links: HashMap::new(),
            lost: Vec::new(),
            waiting: BTreeMap::new(),
            changed: watch::Sender::new(()),
        }
    }

    /// Changes whenever there may be something to [take](Self::take).
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Wants a topic. What to wait for, if not every peer has confirmed it already.
    pub(super) fn want(&mut self, topic: &Arc<str>) -> Option<oneshot::Receiver<()>> {
        // A broadcast on it could not be sent either.
        if topic.len() > usize::from(u16::MAX) {
            return None;
        }
        let covered = self.covers(topic);
        let number = match self.topics.entry(topic.clone()) {
            Entry::Occupied(mut known) => {
                known.get_mut().left = None;
                known.get().number
            }
            Entry::Vacant(entry) => {
                let number = self.patterns_number;
                entry.insert(Want { told: false, number, left: None });
                if covered { number } else { self.tell(topic) }
            }
        };
        if number <= self.sure() {
            return None;
        }
        let (confirmed, wait) = oneshot::channel();
        let waiting = self.waiting.entry(number).or_default();
        waiting.retain(|one| !one.is_closed());
        waiting.push(confirmed);
        Some(wait)
    }

    /// A topic has no subscribers any more.
    pub(super) fn unwant(&mut self, topic: &Arc<str>, now: Instant) {
        let Some(want) = self.topics.get_mut(topic) else { return };
        if !want.told {
            self.topics.remove(topic);
            return;
        }
        self.leaves += 1;
        want.left = Some(self.leaves);
        self.lingering.push_back((now + LINGER, self.leaves, topic.clone()));
        while self.lingering.len() > self.bounds.lingering {
            self.drop_oldest();
        }
    }

    /// Ends what has lasted long enough.
    pub(super) fn expire(&mut self, now: Instant) {
        while self.lingering.front().is_some_and(|(until, ..)| *until <= now) {
            self.drop_oldest();
        }
        if self.lost.iter().any(|lost| lost.until <= now) {
            self.lost.retain(|lost| lost.until > now);
            self.release();
        }
    }

    /// Puts other patterns in force: topics that match them are wanted, subscribed or not.
    pub(super) fn set_patterns(&mut self, patterns: &[Arc<str>]) {
        let too_long = |pattern: &Arc<str>| pattern.len() > usize::from(u16::MAX);
        let patterns: Arc<[Arc<str>]> =
            match patterns.len() > heard::MAX_PATTERNS || patterns.iter().any(too_long) {
                true => Arc::new(["*".into()]),
                false => patterns.into(),
            };
        if self.patterns.as_ref() == Some(&patterns) {
            return;
        }
        let matches = |topic: &str| patterns.iter().any(|pattern| matches(pattern, topic));
        let bare = self.topics.iter().filter(|(topic, want)| !want.told && !matches(topic));
        // These go first: at no time is one neither told nor matched.
        for topic in bare.map(|(topic, _)| topic.clone()).collect::<Vec<_>>() {
            self.tell(&topic);
        }
        self.patterns = Some(patterns.clone());
        self.patterns_number = self.push(Change::Patterns(patterns));
    }

    /// The peer of link `id` has what was told up to `number` in force. With the first word it asks
    /// to be told.
    pub(super) fn confirm(&mut self, id: u64, instance: Instance, number: u64) {
        let number = number.min(self.log.last());
        match self.links.entry(id) {
            Entry::Occupied(mut link) => link.get_mut().confirm(number),
            Entry::Vacant(entry) => {
                entry.insert(Link::new(instance));
                // It dials only once it has noticed that the link before is gone.
                self.lost.retain(|lost| lost.instance != instance);
                self.changed.send_replace(());
            }
        }
        self.release();
    }

    /// The link `id` is gone. Unless that was `expected`, its peer may not have noticed.
    pub(super) fn unlink(&mut self, id: u64, expected: bool, now: Instant) {
        let Some(link) = self.links.remove(&id) else { return };
        let sure = link.sure();
        if !expected && sure < u64::MAX {
            self.lost.push(Lost { instance: link.instance, sure, until: now + LOST });
        }
        self.trim();
        self.release();
    }

    /// Appends the next portion of what the peer of link `id` is to be told.
    pub(super) fn take(&mut self, id: u64, out: &mut BytesMut) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let source = Source {
            log: &self.log,
            patterns: self.patterns.clone().filter(|_| !self.too_many),
            portion: self.bounds.portion,
        };
        let told = self.topics.iter().filter(|(_, want)| want.told);
        link.take(&source, || told.map(|(topic, _)| topic.clone()).collect(), out);
        self.trim();
    }

    fn covers(&self, topic: &str) -> bool {
        self.patterns.iter().flat_map(|all| all.iter()).any(|pattern| matches(pattern, topic))
    }

    /// Every peer is sure to send what was wanted up to this number.
    fn sure(&self) -> u64 {
        let links = self.links.values().map(Link::sure);
        links.chain(self.lost.iter().map(|lost| lost.sure)).min().unwrap_or(u64::MAX)
    }

    /// Lets the joins go on that have waited long enough.
    fn release(&mut self) {
        let sure = self.sure();
        while let Some(first) = self.waiting.first_entry()
            && *first.key() <= sure
        {
            for confirmed in first.remove() {
                let _ = confirmed.send(());
            }
        }
    }

    /// Tells of a topic by itself from now on; the number.
    fn tell(&mut self, topic: &Arc<str>) -> u64 {
        self.told += 1;
        self.too_many |= self.told > self.bounds.topics;
        let number = self.push(Change::On(topic.clone()));
        if let Some(want) = self.topics.get_mut(topic) {
            (want.told, want.number) = (true, number);
        }
        number
    }

    /// Ends the oldest topic without subscribers, if it still has none.
    fn drop_oldest(&mut self) {
        let Some((_, leave, topic)) = self.lingering.pop_front() else { return };
        if self.topics.get(&topic).is_none_or(|want| want.left != Some(leave)) {
            return;
        }
        self.topics.remove(&topic);
        self.told -= 1;
        self.too_many &= self.told > self.bounds.topics / 2;
        self.push(Change::Off(topic));
    }

    /// A change; its number.
    fn push(&mut self, change: Change) -> u64 {
        // Who has nobody to tell, or too much, keeps nothing.
        let number = match self.links.is_empty() || self.too_many {
            true => self.log.skip(),
            false => self.log.push(change, self.bounds.changes),
        };
        self.changed.send_replace(());
        number
    }

    /// Drops the changes that all peers have been told.
    fn trim(&mut self) {
        let needed = self.links.values().filter_map(Link::needs_after).min();
        self.log.trim(needed.unwrap_or_else(|| self.log.last()));
    }
}

#[cfg(test)]
mod tests;
