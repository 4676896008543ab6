//! What may happen to the small world, and when two of its states are the same.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::sim::{Annotations, SimPod, World};

/// What happens next. Pods are named by their ordinals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Move {
    /// Controller, operator, a second.
    Step,
    /// The operator is killed after so many of its writes.
    Die(usize),
    /// The controller is slow.
    Slow,
    /// The spec changes.
    Template(u32),
    Replicas(i32),
    Partition(i32),
    Pause(bool),
    /// Somebody deletes the pod.
    Delete(i32),
    /// Its container ends.
    Crash(i32),
    /// Its node does not answer the operator, until after a drain's time is over.
    Silent(i32),
    /// Its Kubernetes node is drained, or is not any more.
    Evict(i32),
    Uncordon(i32),
}

/// Pods of this template never start.
pub const BAD: u32 = 4;
/// Seconds that a drain may take.
pub const TIME: i32 = 12;

/// Moments at which the operator may be killed in its next reconcile.
pub fn moments(w: &World) -> usize {
    let mut begun = w.clone();
    begun.controller();
    begun.moments()
}

/// What may happen; `most`: replicas.
pub fn disturbances(w: &World, moments: usize, most: i32, moves: &mut Vec<Move>) {
    moves.extend((0..moments).map(Move::Die));
    moves.push(Move::Slow);
    moves.extend((1..=BAD).filter(|t| *t != w.template).map(Move::Template));
    moves.extend((0..=most).filter(|n| *n != w.spec.replicas).map(Move::Replicas));
    moves.push(Move::Partition(i32::from(w.partition() == 0)));
    moves.push(Move::Pause(!w.spec.paused));
    for (&o, p) in &w.pods {
        moves.extend((!p.terminating).then_some(Move::Delete(o)));
        moves.extend((p.down_until <= w.now && p.ready_since.is_some()).then_some(Move::Crash(o)));
        moves.extend((p.silent_until <= w.now).then_some(Move::Silent(o)));
        moves.push(if p.cordoned { Move::Uncordon(o) } else { Move::Evict(o) });
    }
}

/// Makes it happen.
pub fn take(w: &mut World, m: Move) {
    // Who connects to which pod depends on nothing that is forgotten.
    w.seed(7);
    match m {
        Move::Step | Move::Die(_) | Move::Slow => {
            if m != Move::Slow {
                w.controller();
            }
            // That the plan is the same when asked again, `moments` has seen.
            let plan = w.plan_once();
            w.carry_out(&plan, if let Move::Die(writes) = m { writes } else { usize::MAX });
            w.tick();
        }
        Move::Template(t) => w.template = t,
        Move::Replicas(n) => w.spec.replicas = n,
        Move::Partition(n) => w.spec.update_strategy.rolling_update.partition = n,
        Move::Pause(p) => w.spec.paused = p,
        Move::Delete(o) => {
            w.calm = false;
            w.kill(o);
        }
        Move::Crash(o) => {
            w.calm = false;
            let until = w.now + 2;
            w.pods.entry(o).and_modify(|p| p.down_until = until);
        }
        Move::Silent(o) => {
            w.calm = false;
            let until = w.now + i64::from(TIME) + 3;
            w.pods.entry(o).and_modify(|p| p.silent_until = until);
        }
        Move::Evict(o) | Move::Uncordon(o) => {
            let on = matches!(m, Move::Evict(_));
            w.pods.entry(o).and_modify(|p| (p.cordoned, p.unwanted) = (on, on));
        }
    }
}

/// The state without what does not matter: absolute times, names, generations. One that differs in
/// anything by which planner, controller or promises go has another key.
pub fn key(w: &World) -> u64 {
    let mut h = DefaultHasher::new();
    (w.template, w.spec.replicas, w.partition(), w.spec.paused).hash(&mut h);
    (w.calm, w.stranded).hash(&mut h);
    let start = w.set.as_ref().map_or(0, |s| s.start);
    if let Some(s) = &w.set {
        let late = s.observed < s.generation;
        (s.replicas, s.partition, s.template, s.current, s.update, late).hash(&mut h);
    }
    for (o, p) in &w.pods {
        (o - start).hash(&mut h);
        pod_key(w, p, &mut h);
    }
    h.finish()
}

fn pod_key(w: &World, p: &SimPod, h: &mut DefaultHasher) {
    let d = &w.spec.drain;
    // Ages at which something changes: balancers know of a label, a drain closes its first client.
    let (heard, closes) = (w.lag.max(d.initial_delay_seconds as i64 - 1), d.initial_delay_seconds);
    let age = |t: i64, most: i64| (w.now - t).min(most);
    let left = |t: i64| (t - w.now).max(0);
    (p.template, w.load(p.uid), p.terminating, p.accepting, p.known).hash(h);
    (p.ready_since.is_some(), left(p.ready_at), left(p.down_until), left(p.silent_until)).hash(h);
    (age(p.relabelled, heard), p.cordoned, p.unwanted).hash(h);
    // Whether it is still asked for.
    p.asked.map(|t| w.now - t < 300).hash(h);
    (p.draining.map(|(began, _)| age(began, closes.into())), p.at_once).hash(h);
    // Whether it is there, and whether it is to be renewed.
    p.cordon.map_or(0, |end| (end - w.now + 149) / 150).hash(h);
    let committed =
        |a: &Annotations| (a.reason as u8, a.target.clone(), a.drained.is_some(), left(a.deadline));
    p.annotations.as_ref().map(committed).hash(h);
}
