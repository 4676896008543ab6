//! How many clients drains are about to send to other pods, and how few pods can take them. A pod
//! that is full already is spared while an empty one can take all of them: new pods fill up with
//! those of the pods that they replace, and no pod ever has more than its share.

use sluice_crds::{ChannelClusterSpec, DrainMode};

use crate::model::{Observed, PodState};

/// Seconds from a look at the load until another look's labels are known to balancers.
const AHEAD_SECONDS: u64 = 2;

/// Clients that drains under way, and those of the pods `leaving` now, close before the labels can
/// change again.
pub(crate) fn arrivals(spec: &ChannelClusterSpec, observed: &Observed, leaving: &[&str]) -> u64 {
    let drains = |p: &&PodState| p.drain.is_some() || leaving.contains(&p.name.as_str());
    let batch = match spec.drain.mode {
        DrainMode::Batched => {
            let interval = u64::from(spec.drain.batch_interval_seconds().max(1));
            u64::from(spec.drain.batch_size()) * (1 + AHEAD_SECONDS / interval)
        }
        DrainMode::Immediate => u64::MAX,
        // They leave in their own time: who, and when, nobody knows.
        DrainMode::Wait => 0,
    };
    let remaining = observed.pods.iter().filter(drains).filter_map(PodState::connections);
    remaining.map(|n| n.min(batch)).sum()
}

/// Of pods by their loads, the emptiest, and as few as can take `arrivals` without any of them
/// getting above `bound`; their indices. Empty: no number of them can.
pub(crate) fn fewest(loads: &[u64], arrivals: u64, bound: f64) -> Vec<usize> {
    emptiest(loads, 1..=loads.len(), arrivals, bound)
}

/// As [`fewest`], but as many as can.
pub(crate) fn most(loads: &[u64], arrivals: u64, bound: f64) -> Vec<usize> {
    emptiest(loads, (1..=loads.len()).rev(), arrivals, bound)
}

/// Of pods by their loads, the emptiest, and as many as leave the fullest of all pods with the least
/// when they have shared `arrivals`; their indices.
pub(crate) fn levelling(loads: &[u64], arrivals: u64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by_key(|i| loads[*i]);
    let fullest = loads.iter().max().map_or(0.0, |most| *most as f64);
    let after = |k: &usize| fullest.max(loads[order[k - 1]] as f64 + arrivals as f64 / *k as f64);
    let best = (1..=loads.len()).rev().min_by(|a, b| after(a).total_cmp(&after(b)));
    order.truncate(best.unwrap_or(0));
    order
}

fn emptiest(
    loads: &[u64],
    mut counts: impl Iterator<Item = usize>,
    arrivals: u64,
    bound: f64,
) -> Vec<usize> {
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by_key(|i| loads[*i]);
    let enough = |k: usize| loads[order[k - 1]] as f64 + arrivals as f64 / k as f64 <= bound;
    let count = counts.find(|k| enough(*k)).unwrap_or(0);
    order.truncate(count);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_emptiest_pods_that_can_take_them_all_do() {
        assert_eq!(fewest(&[20, 20, 0], 15, 21.0), [2]);
        assert_eq!(fewest(&[20, 3, 2], 30, 21.0), [2, 1]);
        assert_eq!(fewest(&[20, 20, 10], 15, 21.0), [0; 0]);
        assert_eq!(fewest(&[20, 20], 15, 30.0), [0, 1], "a scale-down");
        assert_eq!(fewest(&[], 1, 10.0), [0; 0]);
    }

    #[test]
    fn as_many_pods_as_can_take_their_part() {
        assert_eq!(most(&[20, 20], 10, 31.5), [0, 1]);
        assert_eq!(most(&[40, 0, 3], 10, 21.0), [1, 2]);
        assert_eq!(most(&[30, 30], 10, 31.5), [0; 0]);
    }

    #[test]
    fn pods_above_their_bound_are_kept_level() {
        assert_eq!(levelling(&[10, 10], 5), [0, 1]);
        assert_eq!(levelling(&[14, 11], 5), [1], "16 there, and not 16.5 here");
        assert_eq!(levelling(&[13, 12], 5), [1, 0]);
        assert_eq!(levelling(&[100, 1, 0], 3), [2, 1]);
        assert_eq!(levelling(&[7, 9], 0), [0, 1]);
        assert_eq!(levelling(&[], 3), [0; 0]);
    }

    #[test]
    fn what_a_drain_sends_is_bounded_by_its_pace_and_by_who_is_left() {
        let mut spec: ChannelClusterSpec = serde_json::from_str("{}").expect("all defaults");
        spec.drain.batch_size = Some(5);
        spec.drain.batch_interval_seconds = Some(1);
        let pod = |name: &str, connections| PodState {
            name: name.into(),
            node: Some(sluice_node_api::admin::NodeStatus { connections, ..Default::default() }),
            ..PodState::default()
        };
        let pods = vec![pod("chat-0", 40), pod("chat-1", 7), pod("chat-2", 99)];
        let observed = Observed { pods, ..Observed::default() };
        assert_eq!(arrivals(&spec, &observed, &["chat-0", "chat-1"]), 15 + 7);
        spec.drain.batch_interval_seconds = Some(3);
        assert_eq!(arrivals(&spec, &observed, &["chat-0", "chat-1"]), 5 + 5);
        spec.drain.mode = DrainMode::Immediate;
        assert_eq!(arrivals(&spec, &observed, &["chat-0"]), 40);
        spec.drain.mode = DrainMode::Wait;
        assert_eq!(arrivals(&spec, &observed, &["chat-0"]), 0);
    }
}
