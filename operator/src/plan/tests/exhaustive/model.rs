//! The small world as a model for stateright.
//!
//! The checker decides what is visited; the promises are properties of states. That a cluster
//! settles is one as well, and not left to the checker's `eventually`, which takes a cycle for an
//! end: from each state the world is run on until it has settled. What is met on the way is known
//! from then on, so each state is run once. States after the last disturbance have one future
//! only, which that run has seen; the checker is not shown them.

use std::{
    cell::{Cell, RefCell},
    collections::HashSet,
    fmt::{self, Display},
    hash::{Hash, Hasher},
    panic::{self, AssertUnwindSafe},
    sync::Once,
};

use parking_lot::Mutex;
use stateright::{Model, Property};

use super::{
    super::{
        sim::{World, promises::*},
        spec,
    },
    moves::{BAD, Move, TIME, disturbances, key, moments, take},
};

/// What no promise names: the planner panics, or the world does something that it can't.
const SOUND: &str = "nothing else goes wrong";
/// Steps within which a cluster settles.
const IN_TIME: usize = 500;

/// A cluster of so many pods, and how often it may be disturbed.
#[derive(Default)]
pub struct Cluster {
    pub pods: i32,
    pub surge: i32,
    pub unavailable: i32,
    pub disturbances: u8,
    /// States from which it is known to settle.
    known: Mutex<HashSet<u64>>,
}

/// Where the cluster is.
#[derive(Clone)]
pub struct State {
    world: World,
    key: u64,
    /// Disturbances that may still come.
    left: u8,
    /// Moments at which the operator may be killed.
    moments: usize,
    pub broken: Option<Broken>,
}

/// A promise that was not kept.
#[derive(Clone)]
pub struct Broken {
    promise: &'static str,
    /// Steps after the last move of the path.
    after: usize,
    said: String,
}

impl Cluster {
    pub fn new((pods, surge, unavailable, disturbances): (i32, i32, i32, u8)) -> Self {
        Self { pods, surge, unavailable, disturbances, ..Self::default() }
    }

    /// States in which the cluster has been.
    pub fn states(&self) -> usize {
        self.known.lock().len()
    }

    fn state(&self, world: World, left: u8, failed: Result<(), String>) -> State {
        let tried = failed.and_then(|()| match left {
            0 => Ok(0),
            _ => quietly(|| moments(&world)),
        });
        let (moments, broken) = match tried {
            Err(said) => (0, Some(Broken::new(0, said))),
            Ok(moments) => (moments, self.alone(&world)),
        };
        State { key: key(&world), world, left, moments, broken }
    }

    /// What goes wrong from here when nothing happens to the cluster any more.
    fn alone(&self, from: &World) -> Option<Broken> {
        let mut way = vec![key(from)];
        let mut w = None;
        while !self.known.lock().contains(&way[way.len() - 1]) {
            let w = w.get_or_insert_with(|| from.clone());
            match quietly(|| settled(w)) {
                Ok(true) => break,
                Ok(false) if way.len() > IN_TIME => {
                    return Some(Broken::new(way.len(), format!("{SETTLES}: {}", w.brief())));
                }
                Ok(false) => way.push(key(w)),
                Err(said) => return Some(Broken::new(way.len(), said)),
            }
        }
        self.known.lock().extend(way);
        None
    }
}

/// Whether the cluster has settled; takes a step if it has not. One that is paused, whose new pods
/// can't start, or whose canary lost a pod or is to keep one that never started, comes to rest, and
/// goes on from there once a person has put that right.
fn settled(w: &mut World) -> bool {
    if w.converged() {
        return true;
    }
    let before = key(w);
    take(w, Move::Step);
    let whole = w.calm && w.set.as_ref().is_some_and(|s| s.current != BAD);
    let partition = if whole { w.partition() } else { 0 };
    if key(w) == before && (w.spec.paused || w.template == BAD || partition != w.partition()) {
        let drains = w.pods.values().any(|p| p.annotations.is_some() && !p.terminating);
        assert!(!drains || !w.spec.paused, "{OBEDIENCE}: a paused one drains: {}", w.brief());
        w.spec.paused = false;
        w.template = w.template.min(BAD - 1);
        w.spec.update_strategy.rolling_update.partition = partition;
    }
    false
}

impl Model for Cluster {
    type State = State;
    type Action = Move;

    fn init_states(&self) -> Vec<State> {
        let mut s = spec(self.pods);
        s.min_ready_seconds = 0;
        s.drain.timeout_seconds = TIME;
        s.update_strategy.rolling_update.max_surge = self.surge;
        s.update_strategy.rolling_update.max_unavailable = self.unavailable;
        // Another limit than that of rollouts.
        s.scale_down.max_concurrent_drains = 3 - self.surge.max(1);
        let mut settled = World::new(s, self.pods as usize * 2);
        settled.startup = 1;
        settled.bad = [BAD].into();
        settled.settle(50);
        let mut rolling = settled.clone();
        rolling.template = 2;
        [rolling, settled].map(|w| self.state(w, self.disturbances, Ok(()))).into()
    }

    fn actions(&self, s: &State, moves: &mut Vec<Move>) {
        if s.broken.is_none() && s.left > 0 {
            moves.push(Move::Step);
            disturbances(&s.world, s.moments, self.pods + 1, moves);
        }
    }

    fn next_state(&self, s: &State, m: Move) -> Option<State> {
        let mut world = s.world.clone();
        let done = quietly(|| take(&mut world, m));
        Some(self.state(world, s.left - u8::from(m != Move::Step), done))
    }

    fn within_boundary(&self, s: &State) -> bool {
        s.left > 0 || s.broken.is_some()
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::<Self>::always(BUDGET, |_, s| s.keeps(BUDGET)),
            Property::<Self>::always(CAPACITY, |_, s| s.keeps(CAPACITY)),
            Property::<Self>::always(STOPS, |_, s| s.keeps(STOPS)),
            Property::<Self>::always(RELEASE, |_, s| s.keeps(RELEASE)),
            Property::<Self>::always(COMMITMENT, |_, s| s.keeps(COMMITMENT)),
            Property::<Self>::always(OBEDIENCE, |_, s| s.keeps(OBEDIENCE)),
            Property::<Self>::always(ACCEPTING, |_, s| s.keeps(ACCEPTING)),
            Property::<Self>::always(SAME, |_, s| s.keeps(SAME)),
            Property::<Self>::always(REPEAT, |_, s| s.keeps(REPEAT)),
            Property::<Self>::always(CURSOR, |_, s| s.keeps(CURSOR)),
            Property::<Self>::always(SETTLES, |_, s| s.keeps(SETTLES)),
            Property::<Self>::always(SOUND, |_, s| s.keeps(SOUND)),
            Property::<Self>::sometimes("a pod drains", |_, s| s.drains(true)),
            Property::<Self>::sometimes("an operator dies once it has committed a pod", |_, s| {
                s.drains(false)
            }),
            Property::<Self>::sometimes("a rollout ends", |_, s| {
                s.world.template == 2 && s.world.converged()
            }),
        ]
    }
}

impl State {
    fn keeps(&self, promise: &str) -> bool {
        self.broken.as_ref().is_none_or(|b| b.promise != promise)
    }

    /// Whether a pod is committed to a drain, and its node told or not.
    fn drains(&self, told: bool) -> bool {
        let mut pods = self.world.pods.values();
        pods.any(|p| p.annotations.is_some() && p.draining.is_some() == told)
    }
}

impl Hash for State {
    fn hash<H: Hasher>(&self, h: &mut H) {
        (self.key, self.left, self.broken.as_ref().map(|b| b.promise)).hash(h);
    }
}

impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        (self.key, self.left) == (other.key, other.left)
    }
}

impl Broken {
    fn new(after: usize, said: String) -> Self {
        let promise = ALL.into_iter().find(|p| said.contains(p)).unwrap_or(SOUND);
        Self { promise, after, said }
    }
}

impl Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.after {
            0 => f.write_str(&self.said),
            after => write!(f, "then left alone, after {after} steps: {}", self.said),
        }
    }
}

thread_local! {
    static QUIET: Cell<bool> = const { Cell::new(false) };
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Does `what`; what it says should it panic, which nobody else hears.
fn quietly<T>(what: impl FnOnce() -> T) -> Result<T, String> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| match QUIET.get() {
            true => SAID.set(info.to_string()),
            false => usual(info),
        }));
    });
    QUIET.set(true);
    let done = panic::catch_unwind(AssertUnwindSafe(what));
    QUIET.set(false);
    done.map_err(|_| SAID.take())
}
