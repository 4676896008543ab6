//! What is remembered of pods between two looks, so that what they do is counted once: clients that
//! they have shed, and drains whose pod is gone before anybody let it go. Only counters rest on it.
//! An operator that begins anew has not seen what ended while none looked.
//!
//! It holds one entry for each pod of the clusters that there are.

use std::collections::HashMap;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::ClusterLabels;
use crate::model::{DrainCommitment, Observed, PodState};

/// By cluster and UID.
#[derive(Default)]
pub(super) struct Ledger(Mutex<HashMap<ClusterLabels, HashMap<String, Known>>>);

/// What is new since the last look.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Clients that nodes have shed.
    pub shed: u64,
    /// Drains that ended unseen.
    pub gone: Vec<Gone>,
}

/// A drain whose pod is gone.
#[derive(Debug)]
pub(super) struct Gone {
    pub drain: DrainCommitment,
    pub outcome: &'static str,
    pub moved: u64,
}

/// A pod at the last look.
#[derive(Clone, Debug, Default)]
struct Known {
    /// As its node told, if it ever did.
    shed: Option<u64>,
    drain: Option<DrainCommitment>,
    moved: u64,
    left: u64,
    terminating: bool,
    /// Clients were left when the drain's time was over.
    late: bool,
    /// The drain's end is counted.
    counted: bool,
}

impl Ledger {
    /// Compares what is seen of a cluster with the last look at it.
    pub(super) fn look(
        &self,
        cluster: &ClusterLabels,
        observed: &Observed,
        now: Timestamp,
    ) -> News {
        let mut news = News::default();
        // Without one nothing that was seen is the cluster's, or it is about to be made anew.
        if observed.statefulset.is_none() {
            return news;
        }
        let mut all = self.0.lock();
        let pods = all.entry(cluster.clone()).or_default();
        let mut next = HashMap::with_capacity(observed.pods.len());
        for p in &observed.pods {
            let mut known = pods.remove(&p.uid).unwrap_or_default();
            news.shed += known.see(p, now);
            next.insert(p.uid.clone(), known);
        }
        news.gone.extend(pods.drain().filter_map(|(_, known)| known.gone()));
        *pods = next;
        news
    }

    /// The end of this pod's drain is counted.
    pub(super) fn counted(&self, uid: &str) {
        let mut all = self.0.lock();
        if let Some(known) = all.values_mut().find_map(|pods| pods.get_mut(uid)) {
            known.counted = true;
        }
    }

    /// Drops what is known of a cluster that is gone.
    pub(super) fn forget(&self, cluster: &ClusterLabels) {
        self.0.lock().remove(cluster);
    }
}

impl Known {
    /// Takes over what is seen now; how many clients its node has shed since the last look.
    fn see(&mut self, p: &PodState, now: Timestamp) -> u64 {
        let began = |drain: &Option<DrainCommitment>| drain.as_ref().map(|c| c.started_at);
        if began(&self.drain) != began(&p.drain) {
            (self.late, self.counted) = (false, false);
        }
        self.counted |= p.drain.as_ref().is_some_and(|c| c.drained_at.is_some());
        self.drain.clone_from(&p.drain);
        self.terminating = p.terminating;
        let Some(node) = &p.node else { return 0 };
        (self.moved, self.left) = (node.drain.moved, node.connections);
        let over = p.drain.as_ref().is_some_and(|c| now >= c.deadline);
        self.late |= over && node.connections > 0;
        let before = self.shed.replace(node.shed);
        // Fewer than before: its process began anew.
        before.map_or(0, |before| node.shed.checked_sub(before).unwrap_or(node.shed))
    }

    /// The drain of a pod that is gone, unless its end was counted.
    fn gone(self) -> Option<Gone> {
        let drain = self.drain.filter(|_| !self.counted)?;
        let outcome = match (self.late, self.left) {
            (true, _) => "timed_out",
            (false, 0) => "drained",
            _ => "released",
        };
        // Its own end moves those who are left, unless it was deleted by force.
        let moved = self.moved + if self.terminating { self.left } else { 0 };
        Some(Gone { drain, outcome, moved })
    }
}

#[cfg(test)]
mod tests {
    use sluice_crds::DrainReason;
    use sluice_node_api::admin::{DrainStatus, NodeStatus, ShedRequest};

    use super::{super::Metrics, *};
    use crate::model::{Action, StatefulSetState};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn draining(connections: u64) -> PodState {
        let drain = DrainCommitment {
            reason: DrainReason::Rollout,
            started_at: at(100),
            deadline: at(160),
            target: "new".into(),
            initial: Some(20),
            drained_at: None,
        };
        let told = DrainStatus { moved: 20 - connections, ..DrainStatus::default() };
        let node = NodeStatus { connections, drain: told, ..NodeStatus::default() };
        let uid = "a".into();
        PodState { uid, drain: Some(drain), node: Some(node), ..PodState::default() }
    }

    /// Looks at each of these, then at nothing; the outcome that is counted and how many it moved.
    fn ends(looks: &[(i64, PodState)], counted: bool) -> Vec<(&'static str, u64)> {
        let ledger = Ledger::default();
        let cluster = ClusterLabels { namespace: "team".into(), name: "chat".into() };
        let look = |pods: Vec<PodState>, second| {
            let statefulset = Some(StatefulSetState::default());
            ledger.look(&cluster, &Observed { statefulset, pods }, at(second)).gone
        };
        for (second, pod) in looks {
            assert!(look(vec![pod.clone()], *second).is_empty());
        }
        if counted {
            ledger.counted("a");
        }
        let nothing = ledger.look(&cluster, &Observed::default(), at(199));
        assert!(nothing.gone.is_empty(), "nothing was seen of the cluster");
        let gone = look(vec![], 200);
        assert!(look(vec![], 201).is_empty(), "once");
        gone.into_iter().map(|gone| (gone.outcome, gone.moved)).collect()
    }

    #[test]
    fn a_drain_whose_pod_is_gone_is_counted_as_what_it_was_when_last_seen() {
        assert_eq!(ends(&[(130, draining(15))], false), [("released", 5)]);
        assert_eq!(ends(&[(130, draining(15)), (140, draining(0))], false), [("drained", 20)]);
        let deleted = PodState { terminating: true, ..draining(15) };
        assert_eq!(ends(&[(130, deleted.clone())], false), [("released", 20)]);
        let looks = [(160, deleted), (161, draining(0))];
        assert_eq!(ends(&looks, false), [("timed_out", 20)]);
        assert_eq!(ends(&looks, true), [], "its cursor let it go");
        assert_eq!(ends(&[(130, PodState { drain: None, ..draining(15) })], false), []);
    }

    #[test]
    fn clients_that_a_rebalance_moves_are_counted_as_they_go() {
        let metrics = Metrics::new();
        let cluster = ClusterLabels { namespace: "team".into(), name: "chat".into() };
        let now = Timestamp::UNIX_EPOCH;
        let look = |shed| {
            let node = NodeStatus { shed, shedding: 360, ..NodeStatus::default() };
            let pod = PodState { uid: "a".into(), node: Some(node), ..PodState::default() };
            let request = ShedRequest { count: 360, rate_per_second: 2, delay_seconds: 0.0 };
            let began = Action::Shed { pod: (&pod).into(), request };
            let statefulset = Some(StatefulSetState::default());
            let seen = Observed { pods: vec![pod], statefulset };
            metrics.acted(&began, &seen);
            metrics.looked(&cluster, &seen, now);
        };
        let moved = |n| {
            let line = format!("sluice_operator_connections_moved_total {n}");
            assert!(metrics.text().unwrap().lines().any(|l| l == line), "{line}");
        };
        // What an operator before this one has seen is counted there.
        look(7);
        moved(0);
        look(106);
        moved(99);
        // Its container was started anew.
        look(5);
        moved(104);
    }
}
