//! Who is present where, as this node knows it: pure. Each node writes its own entries and numbers
//! its changes; the others [follow](super::follow) them in order, and ask for everything, portion by
//! portion, when one is missing.
//!
//! Time is an argument; nothing is sent from here.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io,
    ops::Bound,
    sync::Arc,
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::follow::{Followed, Heard};
use crate::hub::{PresencePage, Presences};

/// A run of a node's process.
pub(crate) type Replica = [u8; 16];
/// A channel of a node: shard, socket, channel.
pub(crate) type Owner = (u16, u64, u64);
/// What is known of one presence.
pub(crate) type Meta = Map<String, Value>;

/// Keys that one channel may track.
const MAX_KEYS: usize = 1000;
/// Objects and lists in each other that a meta may be. What other nodes are told has a few more
/// around it, and they read no more than 127: one meta too deep would cost them all the others.
pub(crate) const MAX_META_DEPTH: usize = 64;
/// Nodes that are followed; more are ignored.
const MAX_REPLICAS: usize = 1024;
/// Metas after which a page takes no further key.
const MAX_PAGE_METAS: usize = 10_000;
/// Bytes of JSON after which a portion ends: much less than what a link carries in one piece, and
/// little enough to be written while channels wait.
pub(crate) const PORTION: usize = 64 << 10;

/// One change of one presence: what leaves, what joins, or both (`P-PRES-4`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    #[serde(with = "shared")]
    pub(crate) topic: Arc<str>,
    #[serde(with = "shared")]
    pub(crate) key: Arc<str>,
    pub(crate) owner: Owner,
    pub(crate) left: Option<Meta>,
    pub(crate) joined: Option<Meta>,
}

impl Change {
    /// Where it is among all of its node.
    pub(super) fn cursor(&self) -> Cursor {
        Cursor { owner: self.owner, key: self.key.clone() }
    }
}

/// A place among all that a node tracks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Cursor {
    owner: Owner,
    #[serde(with = "shared")]
    key: Arc<str>,
}

/// A part of all that a node tracks, in the order of owners and keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Portion {
    /// The number of the last change when it was made.
    pub(super) number: u64,
    /// It goes on from here; the first one from nowhere.
    pub(super) after: Option<Cursor>,
    /// Each as something that joins.
    pub(super) changes: Vec<Change>,
    /// Whether it is not the last.
    pub(super) more: bool,
}

/// What one node tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// The changes with this number.
    Delta(u64, Vec<Change>),
    /// What was asked for.
    Portion(Portion),
    /// Nothing new: this was the last number.
    Beat(u64),
    /// Send the first portion of everything.
    Ask,
    /// Send the portion that goes on from here.
    More(Cursor),
}

/// A channel tracks a key twice, updates one that it does not track, or tracks too many
/// (`P-PRES-8`); or the meta is nested over 64 levels deep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key is tracked already, or not at all, or one too many, or its meta is too deep")]
pub struct PresenceError;

/// Whether a meta has at most [`MAX_META_DEPTH`] levels.
pub(crate) fn is_shallow(meta: &Meta) -> bool {
    fn fits(value: &Value, left: usize) -> bool {
        match value {
            Value::Array(list) => left > 0 && list.iter().all(|value| fits(value, left - 1)),
            Value::Object(map) => left > 0 && map.values().all(|value| fits(value, left - 1)),
            _ => true,
        }
    }
    meta.values().all(|value| fits(value, MAX_META_DEPTH - 1))
}

#[derive(Debug)]
struct Tracked {
    replica: Replica,
    owner: Owner,
    meta: Meta,
}

/// All presences.
#[derive(Debug)]
pub(crate) struct State {
    me: Replica,
    number: u64,
    topics: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<Tracked>>>,
    /// The keys of this node's channels.
    own: BTreeMap<Owner, (Arc<str>, BTreeSet<Arc<str>>)>,
    followed: HashMap<Replica, Followed>,
}

impl State {
    pub(crate) fn new(me: Replica) -> Self {
        Self {
            me,
            number: 0,
            topics: HashMap::new(),
            own: BTreeMap::new(),
            followed: HashMap::new(),
        }
    }

    /// The number of this node's last change; 0 before the first.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Tracks `key`, or with `update` replaces its meta. `reference` is new.
    pub(crate) fn track(
        &mut self,
        (topic, owner): (&Arc<str>, Owner),
        key: &str,
        mut meta: Meta,
        reference: &str,
        update: bool,
    ) -> Result<Change, PresenceError> {
        let me = self.me;
        let old = self.find(topic, key, (me, owner)).map(|tracked| tracked.meta.clone());
        if old.is_some() != update || !is_shallow(&meta) {
            return Err(PresenceError);
        }
        if let Some(previous) = old.as_ref().and_then(|old| old.get("phx_ref")) {
            meta.insert("phx_ref_prev".to_owned(), previous.clone());
        }
        meta.insert("phx_ref".to_owned(), reference.into());
        let key: Arc<str> = key.into();
        let (_, keys) = self.own.entry(owner).or_insert_with(|| (topic.clone(), BTreeSet::new()));
        if !update && keys.len() >= MAX_KEYS {
            return Err(PresenceError);
        }
        keys.insert(key.clone());
        let change = Change { topic: topic.clone(), key, owner, left: old, joined: Some(meta) };
        self.apply(me, &change);
        self.number += 1;
        Ok(change)
    }

    /// Stops tracking `key`, or all keys of a channel.
    pub(crate) fn untrack(&mut self, owner: Owner, key: Option<&str>) -> Vec<Change> {
        let Some((topic, keys)) = self.own.get_mut(&owner) else { return Vec::new() };
        let topic = topic.clone();
        let gone: Vec<Arc<str>> = match key {
            Some(key) => keys.take(key).into_iter().collect(),
            None => std::mem::take(keys).into_iter().collect(),
        };
        if keys.is_empty() {
            self.own.remove(&owner);
        }
        let me = self.me;
        let mut changes = Vec::new();
        for key in gone {
            let left = self.find(&topic, &key, (me, owner)).map(|tracked| tracked.meta.clone());
            let change = Change { topic: topic.clone(), key, owner, left, joined: None };
            self.apply(me, &change);
            changes.push(change);
        }
        if !changes.is_empty() {
            self.number += 1;
        }
        changes
    }

    /// The presences of a topic, as `presence_state` has them (`P-PRES-1`).
    pub(crate) fn list(&self, topic: &str) -> Value {
        let mut list = Map::new();
        for (key, tracked) in self.topics.get(topic).into_iter().flatten() {
            let metas: Vec<_> = tracked.iter().map(|tracked| &tracked.meta).collect();
            list.insert(key.to_string(), json!({ "metas": metas }));
        }
        Value::Object(list)
    }

    /// The first presences of a topic after a key, by key: at most `limit` keys, and no more once
    /// they have [`MAX_PAGE_METAS`].
    pub(crate) fn page(&self, topic: &str, after: Option<&str>, limit: usize) -> PresencePage {
        let Some(keys) = self.topics.get(topic) else { return PresencePage::default() };
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut page = PresencePage::default();
        let mut metas = 0;
        for (key, tracked) in keys.range::<str, _>((from, Bound::Unbounded)) {
            page.more = page.presences.len() >= limit || metas >= MAX_PAGE_METAS;
            if page.more {
                break;
            }
            metas += tracked.len();
            let metas = tracked.iter().map(|one| one.meta.clone()).collect();
            page.presences.push(Presences { key: key.clone(), metas });
        }
        page
    }

    /// What this node's channels track, from a place on: about `most` bytes of JSON.
    pub(crate) fn portion(&self, after: Option<Cursor>, most: usize) -> Word {
        let (mut changes, mut bytes, mut more) = (Vec::new(), 0, false);
        let from = after.as_ref().map_or(Bound::Unbounded, |after| Bound::Included(after.owner));
        'full: for (owner, (topic, keys)) in self.own.range((from, Bound::Unbounded)) {
            let same = after.as_ref().filter(|after| after.owner == *owner);
            let past = same.map_or(Bound::Unbounded, |after| Bound::Excluded(&*after.key));
            for key in keys.range::<str, _>((past, Bound::Unbounded)) {
                let Some(tracked) = self.find(topic, key, (self.me, *owner)) else { continue };
                more = bytes >= most;
                if more {
                    break 'full;
                }
                let (topic, key, owner) = (topic.clone(), key.clone(), *owner);
                let joined = Some(tracked.meta.clone());
                let change = Change { topic, key, owner, left: None, joined };
                bytes += json_len(&change);
                changes.push(change);
            }
        }
        Word::Portion(Portion { number: self.number, after, changes, more })
    }

    /// Takes a word of another node: what changed, and what is to be said to it.
    pub(crate) fn hear(
        &mut self,
        from: Replica,
        word: Word,
        now: Instant,
    ) -> (Vec<Change>, Option<Word>) {
        let full = self.followed.len() >= MAX_REPLICAS && !self.followed.contains_key(&from);
        if from == self.me || full {
            return (Vec::new(), None);
        }
        let followed = self.followed.entry(from).or_insert_with(|| Followed::new(now));
        match followed.hear(word, now) {
            Heard::Old => (Vec::new(), None),
            Heard::Answer(word) => (Vec::new(), Some(word)),
            Heard::Everything(all) => (self.replace(from, all), None),
            Heard::Changes(changes) => {
                changes.iter().for_each(|change| self.apply(from, change));
                (changes, None)
            }
        }
    }

    /// A node has not been heard of since `since`: what it tracked leaves.
    pub(crate) fn forget(&mut self, replica: Replica, since: Instant) -> Vec<Change> {
        if self.followed.get(&replica).is_none_or(|followed| followed.heard > since) {
            return Vec::new();
        }
        self.followed.remove(&replica);
        self.replace(replica, Vec::new())
    }

    /// Puts what a node tracks in the place of what it is known to track.
    fn replace(&mut self, replica: Replica, all: Vec<Change>) -> Vec<Change> {
        let id = |change: &Change| (change.topic.clone(), change.key.clone(), change.owner);
        let mut new: HashMap<_, _> = all.into_iter().map(|change| (id(&change), change)).collect();
        let mut changes = Vec::new();
        for mut old in self.of(replica) {
            old.left = old.joined.take();
            if let Some(now) = new.remove(&id(&old)) {
                if now.joined == old.left {
                    continue;
                }
                old.joined = now.joined;
            }
            changes.push(old);
        }
        changes.extend(new.into_values());
        changes.iter().for_each(|change| self.apply(replica, change));
        changes
    }

    /// All that `replica` tracks, each as something that joins.
    fn of(&self, replica: Replica) -> Vec<Change> {
        let mut all = Vec::new();
        for (topic, keys) in &self.topics {
            for (key, tracked) in keys {
                for one in tracked.iter().filter(|one| one.replica == replica) {
                    let (topic, key, owner) = (topic.clone(), key.clone(), one.owner);
                    let joined = Some(one.meta.clone());
                    all.push(Change { topic, key, owner, left: None, joined });
                }
            }
        }
        all
    }

    fn find(&self, topic: &str, key: &str, (replica, owner): (Replica, Owner)) -> Option<&Tracked> {
        let tracked = self.topics.get(topic)?.get(key)?;
        tracked.iter().find(|one| one.replica == replica && one.owner == owner)
    }

    fn apply(&mut self, replica: Replica, change: &Change) {
        let Change { topic, key, owner, joined, .. } = change;
        let keys = self.topics.entry(topic.clone()).or_default();
        let tracked = keys.entry(key.clone()).or_default();
        tracked.retain(|one| (one.replica, one.owner) != (replica, *owner));
        if let Some(meta) = joined.clone() {
            tracked.push(Tracked { replica, owner: *owner, meta });
        }
        if tracked.is_empty() {
            keys.remove(key);
        }
        if keys.is_empty() {
            self.topics.remove(topic);
        }
    }
}

/// How long something is as JSON.
fn json_len(value: &impl Serialize) -> usize {
    struct Count(usize);
    impl io::Write for Count {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut count = Count(0);
    // It fails for nothing that is here; it would only make a portion longer.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

/// Names that are shared, as plain strings.
mod shared {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<str>, D::Error> {
        String::deserialize(from).map(Arc::from)
    }
}

/// The `presence_diff` of each topic (`P-PRES-2`).
pub(crate) fn diffs(changes: &[Change]) -> BTreeMap<Arc<str>, Value> {
    let mut diffs = BTreeMap::new();
    for change in changes {
        let diff =
            diffs.entry(change.topic.clone()).or_insert_with(|| json!({"joins": {}, "leaves": {}}));
        for (side, meta) in [("joins", &change.joined), ("leaves", &change.left)] {
            let Some(meta) = meta else { continue };
            let Some(side) = diff[side].as_object_mut() else { continue };
            let entry = side.entry(&*change.key).or_insert_with(|| json!({"metas": []}));
            if let Some(metas) = entry["metas"].as_array_mut() {
                metas.push(Value::Object(meta.clone()));
            }
        }
    }
    diffs
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
