//! The StatefulSet's pods laid out by index, with what is missing made visible. It only sorts and
//! classifies; it decides nothing.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::{ChannelClusterSpec, EvictionPolicy, PodDisruptionBudgetMode};

use super::{min_ready, steer};
use crate::model::{
    DrainCommitment, DrainOverride, Observed, PodState, StatefulSetState, StuckReason,
};

/// A pod that is not Ready for so long is not merely starting anew.
const LASTING: SignedDuration = SignedDuration::from_secs(60);

/// One index of the StatefulSet, counted from its start.
#[derive(Clone, Debug)]
pub(crate) struct Slot<'a> {
    /// The pod, unless there is none now.
    pub pod: Option<&'a PodState>,
    /// It is at the wanted revision; a pod that is missing or going: it comes back at it.
    pub updated: bool,
    /// It is at a revision that is neither wanted nor the one that a canary keeps: of a rollout that
    /// another spec has ended.
    pub superseded: bool,
    /// Such a pod, but for which a canary may still have too few to keep.
    pub spare: bool,
    /// It is Ready, and has been for `minReadySeconds`.
    pub available: bool,
    /// Its node is linked with every other ready node, or none of them is: Redis is away.
    pub linked: bool,
    /// It takes its share of the clients: what the budget counts.
    pub serving: bool,
    /// The cursor in force lets it go: its controller replaces it any moment.
    pub let_go: bool,
    /// It is to leave its Kubernetes node.
    pub evicting: bool,
    /// It is, but the disruption budget lets no pod go that is Ready while another is not: a drain
    /// would be for nothing, and hold the place of those that mend that.
    pub denied: bool,
    /// Its name, known even when it is missing.
    name: String,
}

impl Slot<'_> {
    /// The pod's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }
    /// There is no pod, or it is on its way out.
    pub(crate) fn gone(&self) -> bool {
        self.pod.is_none_or(|p| p.terminating)
    }
    /// The drain that a pod which has not begun to go is committed to.
    pub(crate) fn drain(&self) -> Option<&DrainCommitment> {
        self.pod.filter(|p| !p.terminating)?.drain.as_ref()
    }
    /// Why it can't start, if it can't.
    pub(crate) fn stuck(&self) -> Option<StuckReason> {
        self.pod.filter(|p| !p.ready && !p.terminating)?.stuck
    }
    /// There is a pod at the wanted revision that is not going.
    pub(crate) fn stays_updated(&self) -> bool {
        self.updated && !self.gone()
    }
    /// A person asked that it be left alone.
    pub(crate) fn pinned(&self) -> bool {
        self.pod.is_some_and(|p| p.drain_override == Some(DrainOverride::Cancel))
    }
    /// Its capacity is lost already, for a reason that may last: it can't start, or nobody knows, or
    /// its node runs, and something else keeps it from being Ready.
    pub(crate) fn broken(&self, now: Timestamp) -> bool {
        self.pod.is_some_and(|p| {
            let lasts = p.unready_since.is_some_and(|since| now.duration_since(since) >= LASTING);
            !p.ready && (lasts || p.stuck.is_some() || p.node_unreachable)
        })
    }
}

/// All of them, and the pods outside.
#[derive(Clone, Debug)]
pub(crate) struct Slots<'a> {
    /// By index.
    pub list: Vec<Slot<'a>>,
    /// Pods whose ordinal the StatefulSet has let go.
    pub outside: Vec<&'a PodState>,
}

impl<'a> Slots<'a> {
    /// Lays out what was seen of the cluster of that name.
    pub(crate) fn new(
        cluster: &str,
        spec: &ChannelClusterSpec,
        observed: &'a Observed,
        sts: &StatefulSetState,
        now: Timestamp,
    ) -> Self {
        let slot = |index: i32| {
            let ordinal = sts.ordinals_start + index;
            let pod = observed.pods.iter().find(|p| p.ordinal == ordinal);
            let comes_back_updated =
                index >= sts.partition || sts.current_revision == sts.update_revision;
            let mut s = Slot {
                pod,
                updated: match pod {
                    Some(p) if !p.terminating => p.revision == sts.update_revision,
                    _ => comes_back_updated,
                },
                superseded: false,
                spare: false,
                available: pod.is_some_and(|p| p.available(min_ready(spec), now)),
                linked: pod.is_some_and(|p| steer::on_a_par(observed, p)),
                serving: false,
                let_go: false,
                evicting: spec.disruption.eviction_policy == EvictionPolicy::DrainFirst
                    && pod.is_some_and(|p| {
                        !p.terminating
                            && p.drain_override != Some(DrainOverride::Cancel)
                            && p.eviction.is_some_and(|e| e.wanted(now))
                    }),
                denied: false,
                name: pod.map_or_else(|| format!("{cluster}-{ordinal}"), |p| p.name.clone()),
            };
            let back = sts.current_revision == sts.update_revision;
            s.superseded = pod.is_some_and(|p| {
                !p.terminating && !s.updated && (back || p.revision != sts.current_revision)
            });
            // Of a rollout that was not over: its pods are what a canary now keeps. Whoever goes back
            // to the revision before wants none of them, and one that can't start is nothing to keep.
            s.spare = s.superseded && !back && s.stuck().is_none();
            s.let_go = !s.updated && index >= sts.partition;
            s.serving = s.available
                && !s.let_go
                && pod.is_some_and(|p| {
                    p.drain.is_none()
                        && !p.node_unreachable
                        // Cut off from Redis it is the last to take clients, but does so before
                        // nobody does. A rollout must not lead them there.
                        && (s.linked
                            // Not one that this plan chose when it was made before.
                            || (p.accepting && p.accepting_since.is_none_or(|since| since < now))
                            || !s.updated
                            || (back && steer::reaches_redis(p) == Some(false)))
                });
            s
        };
        let mut list: Vec<Slot<'_>> = (0..sts.replicas.max(0)).map(slot).collect();
        let budget = spec.replicas > 1
            && spec.disruption.pod_disruption_budget == PodDisruptionBudgetMode::Auto;
        if budget && list.iter().any(|s| s.broken(now)) {
            for s in &mut list {
                s.denied = s.evicting && s.pod.is_some_and(|p| p.ready);
                s.evicting &= !s.denied;
            }
        }
        let inside = sts.ordinals_start..sts.ordinals_start + sts.replicas.max(0);
        let outside = observed.pods.iter().filter(|p| !inside.contains(&p.ordinal)).collect();
        Self { list, outside }
    }

    /// Those that are committed to a drain and not going yet.
    pub(crate) fn draining(&self) -> impl Iterator<Item = (&Slot<'a>, &DrainCommitment)> {
        self.list.iter().filter_map(|s| s.drain().map(|c| (s, c)))
    }
    /// Those that go with clients left: each moves them in a drain of its own.
    pub(crate) fn leaving(&self) -> impl Iterator<Item = &'a PodState> {
        let inside = self.list.iter().filter_map(|s| s.pod);
        let all = inside.chain(self.outside.iter().copied());
        all.filter(|p| p.leaves())
    }
    /// Pods that take their share of the clients.
    pub(crate) fn serving(&self) -> i32 {
        self.list.iter().filter(|s| s.serving).count() as i32
    }
}
