//! The last look before a step that can't be taken back: whether what the plan saw still holds.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api,
    api::{DynamicObject, ListParams},
};
use sluice_crds::ChannelCluster;
use sluice_node_api::admin::{DrainPhase, DrainStatus};

use super::{Executor, gone_is_stale};
use crate::{
    apply::Error,
    build::Kind,
    model::{Cursor, PodState, StatefulSetState},
    observe::{address, pod_state, selector, stateful_set_state},
};

impl Executor<'_> {
    /// Whether the spec that the plan follows is still the one that holds: a pause or a rollback
    /// counts from the moment that it is accepted.
    pub(super) async fn spec_holds(&self) -> Result<bool, Error> {
        let cluster = &self.applier.cluster;
        let api: Api<ChannelCluster> =
            Api::namespaced(self.applier.client.clone(), cluster.namespace);
        let live = api
            .get_metadata_opt(cluster.name)
            .await
            .map_err(|source| Error::Cluster(Box::new(source)))?;
        let holds = live.is_some_and(|live| {
            live.metadata.uid.as_deref() == Some(cluster.uid)
                && live.metadata.generation == cluster.generation
                && live.metadata.deletion_timestamp.is_none()
        });
        if !holds {
            tracing::info!("the spec has changed since this plan was made");
        }
        Ok(holds)
    }

    /// Whether the pods that are to serve while others drain are still there.
    pub(super) async fn pods_hold(&self) -> Result<bool, Error> {
        let name = self.applier.cluster.name;
        let params = ListParams::default().labels(&selector(name));
        let live =
            self.pods().list(&params).await.map_err(|source| Error::Pods(Box::new(source)))?;
        let now = Timestamp::now();
        let live: Vec<_> = live.iter().filter_map(|pod| pod_state(pod, name, now)).collect();
        let holds = serve(&self.seen.observed.pods, &live);
        if !holds {
            tracing::info!("a pod that was to serve does not any more: no drain begins now");
        }
        Ok(holds)
    }

    /// UIDs of the pods that `cursor` lets go.
    pub(super) fn leaving(&self, cursor: &Cursor, seen: &StatefulSetState) -> Vec<String> {
        let pods = self.seen.observed.pods.iter();
        pods.filter(|pod| leaves(pod, cursor, seen)).map(|pod| pod.uid.clone()).collect()
    }

    /// Reads the cluster's generation, StatefulSet, leaving pods and their sockets once more. `None`: something changed, the
    /// plan no longer counts. The StatefulSet that it answers carries the resourceVersion that
    /// guards the write.
    pub(super) async fn confirm(&self, cursor: &Cursor) -> Result<Option<DynamicObject>, Error> {
        if !self.spec_holds().await? {
            return Ok(None);
        }
        let name = self.applier.cluster.name;
        let Some(live) = self.applier.live(Kind::StatefulSet, name).await? else {
            return Ok(None);
        };
        let (Ok(now), Some(seen)) =
            (stateful_set_state(&live), self.seen.observed.statefulset.as_ref())
        else {
            return Ok(None);
        };
        if !same(&now, seen) {
            return Ok(None);
        }
        for pod in self.seen.observed.pods.iter().filter(|pod| leaves(pod, cursor, seen)) {
            if !self.still_may_leave(pod).await? {
                tracing::info!(pod = pod.name, "not as it was planned: the cursor waits");
                return Ok(None);
            }
        }
        Ok(Some(live))
    }

    async fn still_may_leave(&self, seen: &PodState) -> Result<bool, Error> {
        let live: Option<Pod> = self
            .pods()
            .get_opt(&seen.name)
            .await
            .map_err(|source| gone_is_stale(&seen.name, source))?;
        let Some(live) = live else { return Ok(false) };
        let now = pod_state(&live, self.applier.cluster.name, Timestamp::now());
        if !now.is_some_and(|now| still(seen, &now)) {
            return Ok(false);
        }
        let Some(node) = &seen.node else {
            // It did not answer when the plan was made, which decided without it.
            return Ok(true);
        };
        let Some(address) = address(&live) else { return Ok(false) };
        let Ok(drain) = self.nodes.drain(address, self.token).await else { return Ok(false) };
        let exit_at = self.applier.cluster.spec.drain.exit_at_connections.max(0).unsigned_abs();
        Ok(no_worse(&drain, node.drain.phase, node.connections, exit_at.into()))
    }
}

/// Whether all pods that were ready, and not going, still are.
fn serve(seen: &[PodState], now: &[PodState]) -> bool {
    let serves = |pod: &&PodState| pod.ready && !pod.terminating;
    seen.iter().filter(serves).all(|pod| now.iter().filter(serves).any(|now| now.uid == pod.uid))
}

/// Whether what lets a pod go, beside its sockets, is as the plan saw it: nobody has said otherwise
/// since, and it has not come to life.
fn still(seen: &PodState, now: &PodState) -> bool {
    let drains = |pod: &PodState| pod.drain.as_ref().map(|drain| drain.deadline);
    now.uid == seen.uid
        && now.drain_override == seen.drain_override
        && drains(now) == drains(seen)
        && (seen.ready || !now.ready)
}

/// Nothing that the plan relies on has changed. Counts in the status may have.
fn same(now: &StatefulSetState, seen: &StatefulSetState) -> bool {
    now.uid == seen.uid
        && now.generation == seen.generation
        && now.template_hash == seen.template_hash
        && now.update_revision == seen.update_revision
}

/// Whether `cursor` makes the StatefulSet controller delete `pod`, which now stands at `seen`.
fn leaves(pod: &PodState, cursor: &Cursor, seen: &StatefulSetState) -> bool {
    if pod.terminating {
        return false;
    }
    let end = cursor.ordinals_start.saturating_add(cursor.replicas);
    let outside = pod.ordinal < cursor.ordinals_start || pod.ordinal >= end;
    let replaced = pod.ordinal >= cursor.ordinals_start.saturating_add(cursor.partition)
        && pod.revision != seen.update_revision;
    outside || replaced
}

/// The node has no more sockets than the plan saw, and is still draining if it was.
fn no_worse(now: &DrainStatus, phase: DrainPhase, connections: u64, exit_at: u64) -> bool {
    let drains = phase == DrainPhase::None || now.phase != DrainPhase::None;
    drains && now.remaining <= connections.max(exit_at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DrainCommitment, DrainOverride};

    fn pod(ordinal: i32, revision: &str) -> PodState {
        PodState { ordinal, revision: revision.into(), ..PodState::default() }
    }

    #[test]
    fn pods_outside_the_window_and_outdated_ones_above_the_partition_leave() {
        let seen = StatefulSetState { update_revision: "new".into(), ..Default::default() };
        let cursor = Cursor { replicas: 3, ordinals_start: 4, partition: 2, ..Cursor::default() };
        for (ordinal, revision, expected) in [
            (3, "old", true),
            (4, "old", false),
            (5, "new", false),
            (6, "old", true),
            (6, "new", false),
            (7, "new", true),
        ] {
            assert_eq!(leaves(&pod(ordinal, revision), &cursor, &seen), expected, "{ordinal}");
        }
    }

    #[test]
    fn a_node_that_took_a_socket_again_stays() {
        let now = |phase, remaining| DrainStatus { phase, remaining, ..DrainStatus::default() };
        assert!(no_worse(&now(DrainPhase::Drained, 0), DrainPhase::Drained, 0, 0));
        assert!(!no_worse(&now(DrainPhase::Closing, 1), DrainPhase::Drained, 0, 0));
        assert!(!no_worse(&now(DrainPhase::None, 0), DrainPhase::Drained, 0, 0));
        assert!(no_worse(&now(DrainPhase::Closing, 3), DrainPhase::Closing, 5, 0));
        assert!(no_worse(&now(DrainPhase::Closing, 2), DrainPhase::Drained, 0, 2));
    }

    #[test]
    fn a_drain_begins_only_while_those_that_serve_are_there() {
        let pod = |uid: &str, ready, terminating| PodState {
            uid: uid.into(),
            ready,
            terminating,
            ..PodState::default()
        };
        let seen = [pod("a", true, false), pod("b", true, false), pod("c", false, false)];
        assert!(serve(&seen, &seen));
        assert!(serve(&seen, &seen[..2]), "c did not serve");
        assert!(!serve(&seen, &seen[1..]), "a is gone");
        let anew = pod("a2", true, false);
        assert!(!serve(&seen, &[anew, seen[1].clone()]), "another pod by the same name");
        for (ready, terminating) in [(false, false), (true, true)] {
            assert!(!serve(&seen, &[pod("a", ready, terminating), seen[1].clone()]));
        }
    }

    #[test]
    fn a_pod_stays_when_a_person_says_so_after_the_plan_was_made() {
        let drain = DrainCommitment {
            reason: sluice_crds::DrainReason::Rollout,
            started_at: Timestamp::UNIX_EPOCH,
            deadline: Timestamp::UNIX_EPOCH,
            target: String::new(),
            initial: None,
            drained_at: None,
        };
        let seen = PodState { drain: Some(drain), ..pod(3, "old") };
        assert!(still(&seen, &seen));
        let cancelled = Some(DrainOverride::Cancel);
        assert!(!still(&seen, &PodState { drain_override: cancelled, ..seen.clone() }));
        assert!(!still(&seen, &PodState { drain: None, ..seen.clone() }));
        assert!(!still(&seen, &PodState { uid: "another".into(), ..seen.clone() }));
        // It could not start when the plan was made, and does now.
        assert!(!still(&seen, &PodState { ready: true, ..seen.clone() }));
        assert!(still(&PodState { ready: true, ..seen.clone() }, &seen));
    }
}
