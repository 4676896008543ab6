//! Who takes new clients. A label on each pod says so; the client Service selects by it. As long
//! as a ready pod that does not drain exists, somebody takes them.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sluice_crds::{Adapter, ChannelClusterSpec, ExternalTrafficPolicy};

use super::{Shape, Slot, Slots, arrivals, rebalance::Skew, shape::Way};
use crate::model::{Action, Observed, PodRef, PodState};

/// Whether the pod's node is linked, in both directions, with every other ready node: what is
/// broadcast anywhere reaches its clients. A node that runs the Redis adapter: whether it reaches
/// Redis. While the adapter changes there are nodes of both kinds, and no link between them.
pub fn linked(observed: &Observed, pod: &PodState) -> bool {
    let Some(node) = &pod.node else { return false };
    if let Some(connected) = node.redis_connected {
        return connected;
    }
    let by_redis = |o: &PodState| reaches_redis(o).is_some();
    observed
        .pods
        .iter()
        .filter(|o| o.uid != pod.uid && o.ready && !o.terminating && !o.node_unreachable)
        .filter(|o| !by_redis(o))
        .all(|o| node.peers.iter().any(|l| l.name == o.name && l.inbound && l.outbound))
}

/// Whether the pod's clients hear as much as those of any other: its node is [`linked`], or Redis is
/// away from all of them alike, so that waiting for it would only put everybody on fewer nodes.
pub(crate) fn on_a_par(observed: &Observed, pod: &PodState) -> bool {
    linked(observed, pod) || (reaches_redis(pod) == Some(false) && redis_is_away(observed))
}

/// Whether every ready node runs on Redis and tells that it does not reach it. Where one is linked by
/// the mesh there is something that the others lack; one that is silent may reach Redis.
fn redis_is_away(observed: &Observed) -> bool {
    observed
        .pods
        .iter()
        .filter(|p| p.ready && !p.terminating && !p.node_unreachable)
        .all(|p| reaches_redis(p) == Some(false))
}

/// Whether the pod's node reaches Redis, if it tells, and runs on it.
pub(crate) fn reaches_redis(pod: &PodState) -> Option<bool> {
    pod.node.as_ref().and_then(|n| n.redis_connected)
}

/// The labels to change so that the `wanted` pods have it, all of them in one step. `leaving`: pods
/// whose drain begins now, their label goes with the commitment.
pub(crate) fn labels(
    observed: &Observed,
    wanted: &[&str],
    leaving: &[&str],
    now: Timestamp,
) -> Option<Action> {
    let mut pods: Vec<(PodRef, bool)> = observed
        .pods
        .iter()
        .filter(|p| !p.terminating && !leaving.contains(&p.name.as_str()))
        .map(|p| (p, wanted.contains(&p.name.as_str())))
        .filter(|(p, on)| p.accepting != *on)
        .map(|(p, on)| (p.into(), on))
        .collect();
    // Those that begin to take clients first: nobody is turned away in between.
    pods.sort_by_key(|(_, on)| !on);
    (!pods.is_empty()).then_some(Action::SetAccepting { pods, at: now })
}

/// Names of the pods that are to take new clients: the first set of the ladder that is not empty.
/// Full updated pods are spared while the emptier ones can take all those who are moved.
/// `skew`: the load is being made even.
pub(crate) fn accepting<'a>(
    spec: &ChannelClusterSpec,
    observed: &Observed,
    slots: &'a Slots<'_>,
    shape: &Shape,
    skew: Option<&Skew>,
    leaving: &[&str],
) -> Vec<&'a str> {
    // One that is evicted comes back: those that stay share its clients, each up to its part.
    let rolling = shape.victims.iter().any(|v| v.way != Way::Evicted);
    let candidates: Vec<(&Slot<'_>, bool)> = slots
        .list
        .iter()
        .enumerate()
        .filter(|(_, s)| {
            s.pod.is_some_and(|p| {
                // One that the cursor lets go, and that is back, takes nobody before it is kept again.
                (p.accepting || !s.let_go)
                    && p.ready
                    && !p.terminating
                    && p.drain.is_none()
                    && !leaving.contains(&s.name())
            })
        })
        .map(|(i, s)| (s, shape.victim(i).is_none()))
        .collect();
    // A node that has lost a Redis which the others reach. Unless half of them do, Redis itself is away
    // or just coming back: whoever reaches it first must not get everybody.
    let reach = candidates.iter().filter(|(s, _)| s.pod.and_then(reaches_redis) == Some(true));
    let half_reach = reach.count() * 2 >= spec.replicas.max(1) as usize;
    let cut_off = |p: &PodState| half_reach && reaches_redis(p) == Some(false);
    let fit = |s: &Slot<'_>| {
        s.pod.is_some_and(|p| p.accepting && !cut_off(p)) || (s.linked && (s.available || !rolling))
    };
    let total: u64 = observed.pods.iter().filter_map(PodState::connections).sum();
    let evicting = !rolling && !shape.victims.is_empty();
    let group = |stays: bool| -> Vec<&Slot<'_>> {
        candidates.iter().filter(|(s, st)| *st == stays && fit(s)).map(|(s, _)| *s).collect()
    };
    let staying = group(true);
    let sharing = match evicting {
        true => staying.len(),
        false => spec.replicas.max(1).unsigned_abs() as usize,
    };
    let mean = total as f64 / sharing.max(1) as f64;
    // A node that does not answer keeps its label: its load is unknown, not great.
    let load = |s: &Slot<'_>| s.pod.and_then(PodState::connections).map_or(0.0, |n| n as f64);
    let pick = |stays: bool, below: f64| -> Vec<&str> {
        group(stays).into_iter().filter(|s| load(s) < below).map(Slot::name).collect()
    };
    // With no client anywhere every load is below any bound.
    let bound = |factor: f64| if total == 0 { f64::INFINITY } else { mean * factor };
    let coming = arrivals::arrivals(spec, observed, leaving);
    // Of none, if one of them does not answer: it may be the fullest.
    let loads_of = |group: &[&Slot<'_>]| -> Vec<u64> {
        let loads: Option<Vec<u64>> = group.iter().map(|s| s.pod?.connections()).collect();
        loads.filter(|_| coming > 0).unwrap_or_default()
    };
    let loads = loads_of(&staying);
    let few = |factor: f64| {
        let few = arrivals::fewest(&loads, coming, bound(factor));
        few.into_iter().map(|i| staying[i].name()).collect()
    };
    // All are above their bound: nobody gets further above it than must be.
    let level = |stays: bool| {
        let all = group(stays);
        let level = arrivals::levelling(&loads_of(&all), coming);
        level.into_iter().map(|i| all[i].name()).collect()
    };
    let ladder = if rolling {
        vec![
            few(1.05),
            few(1.15),
            pick(true, bound(1.05)),
            pick(true, bound(1.15)),
            pick(false, bound(1.05)),
            level(true),
            pick(true, f64::INFINITY),
            level(false),
            pick(false, f64::INFINITY),
        ]
    } else if evicting {
        let many = |factor: f64| {
            let many = arrivals::most(&loads, coming, bound(factor));
            many.into_iter().map(|i| staying[i].name()).collect()
        };
        vec![
            many(1.05),
            many(1.15),
            pick(true, bound(1.05)),
            pick(true, bound(1.15)),
            level(true),
            pick(true, f64::INFINITY),
            pick(false, f64::INFINITY),
        ]
    } else if let Some(skew) = skew {
        vec![pick(true, skew.low), pick(true, skew.mean), pick(true, f64::INFINITY)]
    } else {
        vec![pick(true, f64::INFINITY), pick(false, f64::INFINITY)]
    };
    // At last: ready, though not linked. Better served alone than not at all; by one node, so that
    // those who come before the links are up hear each other. By Redis that would gain nothing.
    let at_most = if spec.pubsub.adapter == Adapter::Mesh { 1 } else { usize::MAX };
    let anyone = || candidates.iter().map(|(s, _)| s.name()).take(at_most).collect();
    let mut chosen = ladder.into_iter().find(|set| !set.is_empty()).unwrap_or_else(anyone);
    if spec.service.external_traffic_policy == Some(ExternalTrafficPolicy::Local) {
        let mut others: Vec<_> = candidates.iter().filter(|(s, _)| fit(s)).collect();
        others.sort_by(|(a, a_stays), (b, b_stays)| {
            b_stays.cmp(a_stays).then(load(a).total_cmp(&load(b)))
        });
        reach_everywhere(&mut chosen, others.into_iter().map(|(s, _)| *s));
    }
    chosen
}

/// Adds the first of the others on each Kubernetes node that has none of the chosen: with
/// `externalTrafficPolicy: Local` what arrives there reaches no other.
fn reach_everywhere<'a>(
    chosen: &mut Vec<&'a str>,
    others: impl Iterator<Item = &'a Slot<'a>> + Clone,
) {
    let place = |s: &'a Slot<'a>| s.pod.map_or("", |p| &p.kubernetes_node);
    let taken = others.clone().filter(|s| chosen.contains(&s.name()));
    let mut reached: BTreeSet<&str> = taken.map(place).collect();
    chosen.extend(others.filter(|s| reached.insert(place(s))).map(Slot::name));
}

#[cfg(test)]
mod tests {
    use sluice_node_api::admin::{NodeStatus, PeerStatus};

    use super::*;

    fn pod(name: &str, redis_connected: Option<bool>, peers: &[&str]) -> PodState {
        let link = |name: &&str| PeerStatus {
            name: (*name).into(),
            address: String::new(),
            outbound: true,
            inbound: true,
        };
        let peers = peers.iter().map(link).collect();
        PodState {
            name: name.into(),
            uid: name.into(),
            ready: true,
            node: Some(NodeStatus { redis_connected, peers, ..NodeStatus::default() }),
            ..PodState::default()
        }
    }

    #[test]
    fn while_the_adapter_changes_each_node_is_judged_by_its_own() {
        let pods = vec![
            pod("chat-0", Some(true), &[]),
            pod("chat-1", Some(false), &[]),
            pod("chat-2", None, &["chat-3"]),
            pod("chat-3", None, &[]),
        ];
        let o = Observed { pods, ..Observed::default() };
        let is = o.pods.iter().map(|p| linked(&o, p)).collect::<Vec<_>>();
        assert_eq!(is, [true, false, true, false]);
    }
}
