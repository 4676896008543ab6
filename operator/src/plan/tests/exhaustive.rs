//! Small models, exhausted: every order of a few changes, operator crashes, slow controllers and
//! dying pods, at every step of a rollout. Each state keeps the promises (the simulator asserts
//! them), and from each the cluster settles once it is left alone.

use std::collections::{HashMap, HashSet, VecDeque};

use super::{sim::World, spec};

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Move {
    /// Controller, operator, a second.
    Step,
    /// The operator is killed after so many steps.
    Die(usize),
    /// The controller is slow.
    Slow,
    Template(u32),
    Replicas(i32),
    Kill(usize),
    /// Its Kubernetes node is drained.
    Evict(usize),
    Uncordon(usize),
}

/// The state without what does not matter: absolute times, names, generations.
fn key(w: &World, left: u8) -> Vec<i64> {
    let age = |t: i64| (w.now - t).clamp(-5, 5);
    let set = w.set.as_ref().map_or((0, vec![]), |s| {
        let lag = i64::from(s.observed < s.generation);
        let numbers =
            vec![s.replicas.into(), s.partition.into(), s.template.into(), s.current.into(), lag];
        (s.start, numbers)
    });
    let mut k = vec![left.into(), w.template.into(), w.spec.replicas.into()];
    k.extend(set.1);
    for (o, p) in &w.pods {
        k.push(i64::from(o - set.0) + 100);
        k.extend([p.template.into(), age(p.ready_at), p.ready_since.map_or(9, age)]);
        k.extend([p.terminating.into(), p.accepting.into(), w.load(p.uid) as i64]);
        k.extend([p.cordoned.into(), p.unwanted.into(), p.asked.map_or(9, age)]);
        k.push(p.draining.map_or(9, |(began, _)| age(began)));
        k.extend([p.known.into(), (w.now - p.relabelled).min(w.lag.max(1))]);
        // Whether it is there, and whether it is to be renewed.
        k.push(p.cordon.map_or(0, |end| (end - w.now + 149) / 150));
        match &p.annotations {
            None => k.push(9),
            Some(a) => k.extend([
                a.reason as i64,
                i64::from(a.target.is_empty()),
                i64::from(a.drained.is_some()),
            ]),
        }
    }
    k
}

fn moves(w: &World, left: u8, most: i32) -> Vec<Move> {
    let mut m = vec![Move::Step];
    if left > 0 {
        m.extend([Move::Die(0), Move::Die(1), Move::Die(2), Move::Slow]);
        m.extend((1..3).filter(|t| *t != w.template).map(Move::Template));
        m.extend((0..=most).filter(|n| *n != w.spec.replicas).map(Move::Replicas));
        m.extend((0..w.pods.len()).map(Move::Kill));
        m.extend(w.pods.values().enumerate().map(|(i, p)| match p.cordoned {
            true => Move::Uncordon(i),
            false => Move::Evict(i),
        }));
    }
    m
}

fn take(w: &mut World, m: Move) {
    w.seed(7);
    match m {
        Move::Step => w.step(),
        Move::Die(k) => {
            w.controller();
            w.reconcile(k);
            w.tick();
        }
        Move::Slow => {
            w.reconcile(usize::MAX);
            w.tick();
        }
        Move::Template(t) => w.template = t,
        Move::Replicas(n) => w.spec.replicas = n,
        Move::Evict(i) | Move::Uncordon(i) => {
            if let Some(p) = w.pods.values_mut().nth(i) {
                p.cordoned = matches!(m, Move::Evict(_));
                p.unwanted = p.cordoned;
            }
        }
        Move::Kill(i) => {
            w.calm = false;
            if let Some(o) = w.pods.keys().copied().nth(i) {
                w.kill(o);
            }
        }
    }
}

fn exhaust(n: i32, surge: i32, unavailable: i32, disturbances: u8) -> usize {
    let mut s = spec(n);
    s.min_ready_seconds = 0;
    s.update_strategy.rolling_update.max_surge = surge;
    s.update_strategy.rolling_update.max_unavailable = unavailable;
    let mut w = World::new(s, n as usize * 2);
    w.startup = 1;
    w.settle(50);
    w.template = 2;
    let mut seen: HashSet<Vec<i64>> = HashSet::new();
    // Where the cluster goes when it is left alone.
    let mut alone: HashMap<Vec<i64>, Vec<i64>> = HashMap::new();
    let mut settled: HashSet<Vec<i64>> = HashSet::new();
    let mut queue = VecDeque::from([(w, disturbances)]);
    while let Some((w, left)) = queue.pop_front() {
        let k = key(&w, left);
        if !seen.insert(k.clone()) {
            continue;
        }
        if w.converged() {
            settled.insert(k.clone());
        }
        for m in moves(&w, left, n + 1) {
            let mut next = w.clone();
            take(&mut next, m);
            let left = left - u8::from(!matches!(m, Move::Step));
            if matches!(m, Move::Step) {
                alone.insert(k.clone(), key(&next, left));
            }
            queue.push_back((next, left));
        }
    }
    for start in &seen {
        let (mut at, mut steps) = (start, 0);
        while !settled.contains(at) {
            at = &alone[at];
            steps += 1;
            assert!(steps < 500, "never settles: {start:?}");
        }
    }
    seen.len()
}

fn all(models: &[(i32, i32, i32, u8)]) {
    for &(n, surge, unavailable, disturbances) in models {
        let states = exhaust(n, surge, unavailable, disturbances);
        println!(
            "{n} pods, surge {surge}, unavailable {unavailable}, {disturbances} disturbances: \
             {states} states"
        );
    }
}

#[test]
fn small_models_keep_the_promises_and_settle() {
    all(&[(1, 1, 0, 3), (2, 1, 1, 2), (2, 0, 1, 2), (2, 2, 1, 2)]);
}

#[test]
fn larger_models_keep_the_promises_and_settle() {
    all(&[(3, 1, 0, 1), (3, 1, 1, 2), (3, 0, 2, 1), (4, 1, 1, 1), (4, 2, 1, 1)]);
}
