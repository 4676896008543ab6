//! Who is present where, as this node knows it: pure. Each node writes its own entries and numbers
//! its changes; the others follow them in order, and ask for everything when one is missing.
//!
//! Time is an argument; nothing is sent from here.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    ops::Bound,
    sync::Arc,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

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
/// How often the same node is asked for everything.
const ASK_AGAIN: Duration = Duration::from_millis(400);

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

/// What one node tells another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Word {
    /// The changes with this number.
    Delta(u64, Vec<Change>),
    /// Everything, up to this number; each as something that joins.
    All(u64, Vec<Change>),
    /// Nothing new: this was the last number.
    Beat(u64),
    /// Send everything.
    Ask,
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

#[derive(Debug)]
struct Followed {
    /// The number of the last change; `None` before the first word that has everything.
    at: Option<u64>,
    heard: Instant,
    asked: Option<Instant>,
}

/// All presences.
#[derive(Debug)]
pub(crate) struct State {
    me: Replica,
    number: u64,
    topics: HashMap<Arc<str>, BTreeMap<Arc<str>, Vec<Tracked>>>,
    /// The keys of this node's channels.
    own: HashMap<Owner, (Arc<str>, HashSet<Arc<str>>)>,
    followed: HashMap<Replica, Followed>,
}

impl State {
    pub(crate) fn new(me: Replica) -> Self {
        Self {
            me,
            number: 0,
            topics: HashMap::new(),
            own: HashMap::new(),
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
        let (_, keys) = self.own.entry(owner).or_insert_with(|| (topic.clone(), HashSet::new()));
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
            None => keys.drain().collect(),
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

    /// Everything that this node's channels track.
    pub(crate) fn everything(&self) -> Word {
        Word::All(self.number, self.of(self.me))
    }

    /// Takes a word of another node: what changed, and whether it must be asked for everything.
    pub(crate) fn hear(&mut self, from: Replica, word: Word, now: Instant) -> (Vec<Change>, bool) {
        if from == self.me || matches!(word, Word::Ask) {
            return (Vec::new(), false);
        }
        if !self.followed.contains_key(&from) && self.followed.len() >= MAX_REPLICAS {
            return (Vec::new(), false);
        }
        let followed =
            self.followed.entry(from).or_insert(Followed { at: None, heard: now, asked: None });
        followed.heard = now;
        let missed = match (&word, followed.at) {
            (Word::All(number, _), _) => {
                followed.at = Some(*number);
                followed.asked = None;
                let Word::All(_, all) = word else { return (Vec::new(), false) };
                return (self.replace(from, all), false);
            }
            (Word::Delta(number, _), Some(at)) if *number == at + 1 => {
                followed.at = Some(*number);
                false
            }
            (Word::Delta(number, _) | Word::Beat(number), Some(at)) if *number <= at => {
                return (Vec::new(), false);
            }
            _ => true,
        };
        if missed {
            let again = followed.asked.is_none_or(|at| now.duration_since(at) >= ASK_AGAIN);
            if again {
                followed.asked = Some(now);
            }
            return (Vec::new(), again);
        }
        let Word::Delta(_, changes) = word else { return (Vec::new(), false) };
        changes.iter().for_each(|change| self.apply(from, change));
        (changes, false)
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
