//! A shard's subscriptions: topic → dense list of sockets, socket → small list of topics. Unlocked
//! and without I/O; joining and leaving cost the same whatever the size of a topic.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;
use smallvec::SmallVec;

/// A socket's number within its shard.
pub(crate) type Slot = u32;

/// One subscription of a socket: the topic, and where in its list the socket stands.
#[derive(Clone, Copy, Debug)]
struct Place {
    topic: usize,
    at: usize,
}

#[derive(Debug)]
struct Topic {
    name: Arc<str>,
    slots: Vec<Slot>,
    /// Joins that will subscribe.
    held: usize,
}

/// The subscriptions of one shard.
#[derive(Debug, Default)]
pub(crate) struct Table {
    names: HashMap<Arc<str>, usize>,
    topics: Slab<Topic>,
    places: Vec<SmallVec<[Place; 1]>>,
}

impl Table {
    /// A join of `name` has begun; every call is followed by [`Table::subscribe`] or
    /// [`Table::unhold`].
    pub(crate) fn hold(&mut self, name: Arc<str>) {
        let topics = &mut self.topics;
        let topic = *self
            .names
            .entry(name.clone())
            .or_insert_with(|| topics.insert(Topic { name, slots: Vec::new(), held: 0 }));
        self.topics[topic].held += 1;
    }

    /// A join ended without a subscription; whether the topic is now of no use.
    pub(crate) fn unhold(&mut self, name: &Arc<str>) -> bool {
        let Some(&topic) = self.names.get(name) else { return false };
        self.topics[topic].held = self.topics[topic].held.saturating_sub(1);
        self.prune(topic)
    }

    /// Subscribes a socket to a topic that it does not have, and ends its hold.
    pub(crate) fn subscribe(&mut self, slot: Slot, name: &Arc<str>) {
        let Some(&topic) = self.names.get(name) else { return };
        let entry = &mut self.topics[topic];
        entry.held = entry.held.saturating_sub(1);
        let place = Place { topic, at: entry.slots.len() };
        entry.slots.push(slot);
        let index = slot as usize;
        if self.places.len() <= index {
            self.places.resize_with(index + 1, SmallVec::new);
        }
        self.places[index].push(place);
    }

    /// Ends a subscription; whether the topic is now of no use.
    pub(crate) fn unsubscribe(&mut self, slot: Slot, name: &str) -> bool {
        let Some(&topic) = self.names.get(name) else { return false };
        let Some(places) = self.places.get_mut(slot as usize) else { return false };
        let Some(index) = places.iter().position(|place| place.topic == topic) else {
            return false;
        };
        let place = places.swap_remove(index);
        self.vacate(place);
        self.prune(topic)
    }

    /// Ends all subscriptions of a socket: how many they were, and the topics that are now of no
    /// use.
    pub(crate) fn remove(&mut self, slot: Slot) -> (usize, SmallVec<[Arc<str>; 1]>) {
        let mut unused = SmallVec::new();
        let Some(places) = self.places.get_mut(slot as usize) else { return (0, unused) };
        let places = std::mem::take(places);
        for place in &places {
            self.vacate(*place);
            let name = self.topics[place.topic].name.clone();
            if self.prune(place.topic) {
                unused.push(name);
            }
        }
        (places.len(), unused)
    }

    /// The subscribers of a topic.
    pub(crate) fn subscribers(&self, name: &str) -> &[Slot] {
        self.names.get(name).map_or(&[], |topic| &self.topics[*topic].slots)
    }

    /// Every topic, and how many subscribe it.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.topics.iter().map(|(_, topic)| (&topic.name, topic.slots.len()))
    }

    /// Takes a socket out of a topic's list; the list's last takes its place.
    fn vacate(&mut self, place: Place) {
        let slots = &mut self.topics[place.topic].slots;
        slots.swap_remove(place.at);
        if let Some(moved) = slots.get(place.at)
            && let Some(places) = self.places.get_mut(*moved as usize)
            && let Some(other) = places.iter_mut().find(|other| other.topic == place.topic)
        {
            other.at = place.at;
        }
        if slots.len() * 4 < slots.capacity() {
            slots.shrink_to(slots.len() * 2);
        }
    }

    fn prune(&mut self, topic: usize) -> bool {
        let unused = self.topics[topic].held == 0 && self.topics[topic].slots.is_empty();
        if unused {
            let topic = self.topics.remove(topic);
            self.names.remove(&topic.name);
        }
        unused
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_held_topic_is_kept_until_the_join_ends() {
        let mut table = Table::default();
        let name: Arc<str> = "t".into();
        table.hold(name.clone());
        table.hold(name.clone());
        table.subscribe(7, &name);
        assert!(!table.unsubscribe(7, &name), "another join is under way");
        assert!(table.unhold(&name));
        assert!(table.names.is_empty() && table.topics.is_empty());
    }

    proptest! {
        /// Against a plain map of sets.
        #[test]
        fn joins_and_leaves_in_any_order(
            steps in proptest::collection::vec((0u32..6, 0u8..4, any::<u8>()), 0..120)
        ) {
            let mut table = Table::default();
            let mut model: BTreeMap<String, BTreeSet<Slot>> = BTreeMap::new();
            for (slot, topic, what) in steps {
                let name: Arc<str> = format!("t{topic}").into();
                if what < 16 {
                    let (count, unused) = table.remove(slot);
                    let mut had = 0;
                    let mut emptied = BTreeSet::new();
                    model.retain(|name, slots| {
                        let removed = slots.remove(&slot);
                        had += usize::from(removed);
                        if slots.is_empty() { emptied.insert(name.clone()); }
                        !slots.is_empty()
                    });
                    prop_assert_eq!(count, had);
                    prop_assert_eq!(unused.iter().map(|n| n.to_string()).collect::<BTreeSet<_>>(), emptied);
                } else if what < 100 {
                    let left = model.get_mut(&*name).is_some_and(|slots| slots.remove(&slot));
                    let unused = left && model[&*name].is_empty();
                    if unused { model.remove(&*name); }
                    prop_assert_eq!(table.unsubscribe(slot, &name), unused);
                } else if model.entry(name.to_string()).or_default().insert(slot) {
                    table.hold(name.clone());
                    table.subscribe(slot, &name);
                }
                for topic in 0..4 {
                    let name = format!("t{topic}");
                    let got: BTreeSet<Slot> = table.subscribers(&name).iter().copied().collect();
                    prop_assert_eq!(got.len(), table.subscribers(&name).len(), "no socket twice");
                    prop_assert_eq!(got, model.get(&name).cloned().unwrap_or_default());
                }
                prop_assert_eq!(table.topics.len(), model.len());
            }
        }
    }
}
