//! Which other nodes have been heard of presence, and when: Redis tells of no node that ends. Pure.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::pubsub::Instance;

/// After so long without a word a node is gone. Each that has presences says something twice a
/// second, and after Redis was away is back within some seconds.
pub(super) const SILENCE: Duration = Duration::from_secs(6);
/// Nodes that are kept in mind.
const MAX_NODES: usize = 1024;

/// The nodes that say something at least now and then.
#[derive(Default)]
pub(super) struct Nodes(HashMap<Instance, Instant>);

impl Nodes {
    /// A node has said something; whether it is listened to.
    pub(super) fn hear(&mut self, instance: Instance, now: Instant) -> bool {
        let known = self.0.len() < MAX_NODES || self.0.contains_key(&instance);
        if known {
            self.0.insert(instance, now);
        }
        known
    }

    /// Nothing could be heard until now.
    pub(super) fn resume(&mut self, now: Instant) {
        self.0.values_mut().for_each(|heard| *heard = now);
    }

    /// Those that have been silent for too long; they are forgotten.
    pub(super) fn take_silent(&mut self, now: Instant) -> Vec<Instance> {
        let silent = |heard: &Instant| now.duration_since(*heard) >= SILENCE;
        self.0.extract_if(|_, heard| silent(heard)).map(|(instance, _)| instance).collect()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_silent_is_gone_once_and_a_time_without_redis_does_not_count() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut nodes = Nodes::default();
        assert!(nodes.hear([1; 16], at(0)) && nodes.hear([2; 16], at(0)));
        nodes.hear([2; 16], at(5));
        assert_eq!(nodes.take_silent(at(5)), [[0; 16]; 0]);
        assert_eq!(nodes.take_silent(at(6)), [[1; 16]]);
        assert_eq!(nodes.take_silent(at(6)), [[0; 16]; 0]);
        nodes.resume(at(60));
        assert_eq!(nodes.take_silent(at(65)), [[0; 16]; 0]);
        assert_eq!(nodes.take_silent(at(66)), [[2; 16]]);
    }

    #[test]
    fn more_nodes_than_may_be_are_not_listened_to() {
        let now = Instant::now();
        let mut nodes = Nodes::default();
        let instance = |n: usize| (n as u128).to_be_bytes();
        assert!((0..MAX_NODES).all(|n| nodes.hear(instance(n), now)));
        assert!(!nodes.hear(instance(MAX_NODES), now));
        assert!(nodes.hear(instance(0), now));
        assert_eq!(nodes.len(), MAX_NODES);
    }
}
