//! Small models, searched whole: from a settled cluster and from the beginning of a rollout, every
//! order of a few disturbances, at every moment. The spec changes (another template, one whose pods
//! never start, the one before; replicas, a canary, a pause), the operator is killed before any of
//! its writes, the controller is slow, pods are deleted, evicted, crash or do not answer. Each state
//! keeps the promises, and from each the cluster settles once it is left alone.
//!
//! Start reading at `moves.rs`. What is found is told by the moves that lead there.

mod model;
mod moves;

use std::time::Instant;

use model::{Cluster, State};
use moves::Move;
use stateright::{Checker, HasDiscoveries, Model, Path};

/// Pods, surge, unavailable, disturbances.
type Limits = (i32, i32, i32, u8);

/// What `name` in the environment says, or 0: the suite's own bounds, about a minute of one core.
fn more(name: &str) -> u8 {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Searches the models, with as many more pods as `SLUICE_MODEL_PODS` says: each takes some three
/// times as long; and with as many more disturbances as `SLUICE_MODEL_DEPTH`: some forty times.
fn search(models: &[Limits]) {
    for &(pods, surge, unavailable, disturbances) in models {
        let pods = pods + i32::from(more("SLUICE_MODEL_PODS"));
        let disturbances = disturbances + more("SLUICE_MODEL_DEPTH");
        let what = format!(
            "{pods} pods, surge {surge}, unavailable {unavailable}, {disturbances} disturbances"
        );
        let begun = Instant::now();
        let checker = Cluster::new((pods, surge, unavailable, disturbances))
            .checker()
            .threads(std::thread::available_parallelism().map_or(1, usize::from))
            .finish_when(HasDiscoveries::AnyFailures)
            .spawn_bfs()
            .join();
        let (states, seconds) = (checker.model().states(), begun.elapsed().as_secs_f64());
        println!("{what}: {states} states, {seconds:.1} s");
        let mut found = checker.discoveries();
        for p in checker.model().properties() {
            match (p.expectation.discovery_is_failure(), found.remove(p.name)) {
                (true, Some(path)) => panic!("{what}\nbroken: {}\n{}", p.name, told(path)),
                (false, None) => panic!("{what}\nit never happens that {}", p.name),
                _ => {}
            }
        }
    }
}

/// The moves that lead there, steps that follow each other on one line, and what went wrong.
fn told(path: Path<State, Move>) -> String {
    let broken = path.last_state().broken.clone();
    let (mut lines, mut steps) = (Vec::new(), 0);
    let step = |lines: &mut Vec<String>, steps: usize| {
        if steps > 0 {
            lines.push(format!("- Step × {steps}"));
        }
    };
    for m in path.into_actions() {
        if m == Move::Step {
            steps += 1;
            continue;
        }
        step(&mut lines, std::mem::take(&mut steps));
        lines.push(format!("- {m:?}"));
    }
    step(&mut lines, steps);
    lines.extend(broken.map(|b| b.to_string()));
    lines.join("\n")
}

#[test]
fn small_models_keep_the_promises_and_settle() {
    search(&[(1, 1, 0, 3), (2, 1, 1, 2), (2, 0, 1, 2), (2, 2, 1, 2)]);
}

#[test]
fn larger_models_keep_the_promises_and_settle() {
    search(&[(3, 1, 0, 2), (3, 0, 1, 2)]);
}
