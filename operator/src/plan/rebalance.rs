//! Clients that sit unevenly are spread again, gently: pods above the mean by more than
//! `rebalance.maxSkewPercent` shed what is too much, and [`super::steer`] leads it to the others.
//!
//! There is no memory: what is under way is told by the nodes. Nothing is begun while any node
//! still sheds, and a node tells of a shed until its clients have had the time to be back, so a
//! count that misses them is never taken for the load.

use sluice_crds::{ChannelClusterSpec, RebalanceMode, SessionAffinity};
use sluice_node_api::admin::{DrainPhase, ShedRequest};

use super::{Shape, Slots, at, linked};
use crate::model::{Action, Cursor, DrainOverride, Observed, PodState, StatefulSetState};

/// As many clients above the mean are never too many.
const A_COUPLE: f64 = 2.0;

/// A load that is uneven, or is being made even.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Skew {
    /// Clients by pods.
    pub mean: f64,
    /// The most that a pod may have.
    pub bound: f64,
    /// A pod that is so far below the mean takes clients before the others.
    pub low: f64,
    /// Some node sheds now.
    under_way: bool,
}

/// Whether the load is to be made even now. Only when nothing else is going on and every pod
/// serves: otherwise who has how many clients is about to change anyway.
pub(crate) fn skew(
    spec: &ChannelClusterSpec,
    observed: &Observed,
    sts: &StatefulSetState,
    slots: &Slots<'_>,
    shape: &Shape,
    cursor: Cursor,
) -> Option<Skew> {
    let calm = wanted(spec, shape)
        && cursor == at(sts)
        && sts.replicas == spec.replicas
        && slots.outside.is_empty()
        // Without Redis, those who are moved would miss what is said where they were.
        && slots.list.iter().all(|s| s.serving && s.pod.is_some_and(|p| linked(observed, p)))
        && observed.pods.iter().all(|p| {
            p.drain_override != Some(DrainOverride::Cancel)
                && p.drain_phase() == Some(DrainPhase::None)
        });
    if !calm || slots.list.is_empty() {
        return None;
    }
    let total: u64 = observed.pods.iter().filter_map(PodState::connections).sum();
    let mean = total as f64 / slots.list.len() as f64;
    let part = f64::from(spec.rebalance.max_skew_percent.max(1)) / 100.0;
    let bound = (mean * (1.0 + part)).max(mean + A_COUPLE);
    let under_way = observed.pods.iter().any(|p| shedding(p) > 0);
    let over = |p: &PodState| p.connections().is_some_and(|n| n as f64 > bound);
    let uneven = observed.pods.iter().any(over);
    let low = mean * (1.0 - part / 2.0);
    (uneven || under_way).then_some(Skew { mean, bound, low, under_way })
}

/// The sheds that begin, and those that end because they are not wanted any more. `steered`: the
/// labels already lead clients elsewhere.
pub(crate) fn sheds(
    spec: &ChannelClusterSpec,
    observed: &Observed,
    shape: &Shape,
    skew: Option<&Skew>,
    steered: bool,
) -> Vec<Action> {
    let shed = |p: &PodState, count: u64| Action::Shed {
        pod: p.into(),
        request: ShedRequest {
            count: u32::try_from(count).unwrap_or(u32::MAX),
            rate_per_second: spec.rebalance.rate_per_second.max(1).unsigned_abs(),
            delay_seconds: spec.drain.initial_delay_seconds.max(0).into(),
        },
    };
    if !wanted(spec, shape) {
        let stop = observed.pods.iter().filter(|p| shedding(p) > 0 && !p.terminating);
        return stop.map(|p| shed(p, 0)).collect();
    }
    let Some(skew) = skew.filter(|skew| !skew.under_way && steered) else { return vec![] };
    observed
        .pods
        .iter()
        .filter_map(|p| {
            let load = p.connections()?;
            let excess = (load as f64 - skew.mean).ceil() as u64;
            (load as f64 > skew.bound).then(|| shed(p, excess))
        })
        .collect()
}

/// Whether clients may be moved for the sake of balance, as far as the spec and positions say.
fn wanted(spec: &ChannelClusterSpec, shape: &Shape) -> bool {
    // With affinity all clients behind one address land on one pod, wherever that is: moving them
    // would never end.
    spec.rebalance.mode == RebalanceMode::Auto
        && spec.service.session_affinity == SessionAffinity::None
        && !spec.paused
        && shape.victims.is_empty()
}

/// Whether some node sheds.
pub(crate) fn under_way(observed: &Observed) -> bool {
    observed.pods.iter().any(|p| shedding(p) > 0)
}

fn shedding(p: &PodState) -> u64 {
    p.node.as_ref().map_or(0, |n| n.shedding)
}
