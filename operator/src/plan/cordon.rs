//! Nodes of pods that are next to drain, or that shed clients, refuse new ones with 503: a balancer
//! that has not heard of the label yet would lead a client there, and it would be moved twice. A
//! cordon follows the label. Of a draining or terminating node there is none: it refuses by itself.
//! Nor of a pod that stays and is merely spared for now: a client that comes late may stay, and a
//! refusal would cost it time for nothing.
//!
//! Nobody must be turned away for whom there is no other place, so a cordon only begins, and is only
//! renewed, while some pod is an [`anchor`]; and it ends by itself when nobody renews it.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::ChannelClusterSpec;
use sluice_node_api::admin::{CordonRequest, NodeStatus};

use super::{DRAIN_TTL_SECONDS, Slot, Slots};
use crate::model::{Action, Observed, PodState};

/// What is done about cordons.
#[derive(Debug, Default)]
pub(crate) struct Cordons {
    /// Of pods that are to take clients: before their label goes on.
    pub lifted: Vec<Action>,
    /// Of the others: after the labels have changed.
    pub begun: Vec<Action>,
}

/// Decides about cordons. `wanted`: the pods that take clients from now on. `leaving`: those whose
/// drain begins now. `next`: whether the pod at an index is about to drain or to shed.
pub(crate) fn decide(
    spec: &ChannelClusterSpec,
    observed: &Observed,
    slots: &Slots<'_>,
    next: impl Fn(usize) -> bool,
    wanted: &[&str],
    leaving: &[&str],
    now: Timestamp,
) -> Cordons {
    let is = |p: &PodState, list: &[&str]| list.contains(&p.name.as_str());
    let stays = |p: &PodState| !p.terminating && p.drain.is_none() && !is(p, leaving);
    let cordoned = |p: &PodState| p.node.as_ref().is_some_and(|n| n.cordoned);
    let lifted = observed
        .pods
        .iter()
        .filter(|p| stays(p) && is(p, wanted) && cordoned(p))
        .map(|p| Action::Uncordon { pod: p.into() })
        .collect();
    let inside = || {
        let pods = slots.list.iter().enumerate().filter_map(|(i, s)| Some((i, s, s.pod?)));
        pods.filter(|(_, _, p)| stays(p))
    };
    if !inside().any(|(_, _, p)| is(p, wanted) && anchor(spec, p, now)) {
        return Cordons { lifted, begun: vec![] };
    }
    let begun = inside()
        .filter(|(i, s, p)| {
            next(*i) && !is(p, wanted) && known(s) && p.node.as_ref().is_some_and(due)
        })
        .map(|(_, _, p)| Action::Cordon {
            pod: p.into(),
            request: CordonRequest { ttl_seconds: DRAIN_TTL_SECONDS },
        })
        .collect();
    Cordons { lifted, begun }
}

/// Whether clients find this pod now: it takes them, answers, and has had the label for as long as
/// balancers need to hear of it, which `drain.initialDelaySeconds` says. A second less, so that a
/// cordon is there before the drain that began with the label closes its first client.
fn anchor(spec: &ChannelClusterSpec, p: &PodState, now: Timestamp) -> bool {
    let heard = SignedDuration::from_secs((spec.drain.initial_delay_seconds - 1).max(0).into());
    p.ready
        && p.accepting
        && p.node.as_ref().is_some_and(|n| !n.cordoned)
        && p.accepting_since.is_none_or(|since| now.duration_since(since) >= heard)
}

/// Whether balancers may know the pod: one that never took clients needs no cordon.
fn known(s: &Slot<'_>) -> bool {
    s.available && s.linked
}

/// Whether the node is to be told: it has no cordon, or one that has less than half its time left.
/// One without an end is a person's, and stays.
fn due(node: &NodeStatus) -> bool {
    !node.cordoned || node.cordon_seconds_left.is_some_and(|left| left < DRAIN_TTL_SECONDS / 2.0)
}
