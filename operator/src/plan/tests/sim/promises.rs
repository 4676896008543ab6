//! What must never happen, by the sentences that a broken promise begins with.

/// A drain is a slot of the budget.
pub const BUDGET: &str = "no more pods drain at a time than are allowed to";
/// Counted when a drain begins.
pub const CAPACITY: &str = "no drain begins that leaves fewer pods serving than there must be";
/// A bad image costs one pod.
pub const STOPS: &str = "a rollout whose new pods can't start goes no further";
/// Deletes by a person aside.
pub const RELEASE: &str = "no pod goes before it is drained, out of time or broken";
/// A successor knows only what is on the pod.
pub const COMMITMENT: &str = "no node drains without the commitment on its pod";
/// A pause, an annotation.
pub const OBEDIENCE: &str = "nothing begins that a person forbids";
/// As long as there is a pod to take them.
pub const ACCEPTING: &str = "clients find a pod that takes them";
/// Nothing is remembered from one plan to the next.
pub const SAME: &str = "asked again about the same, the plan is the same";
/// An operator that was killed begins anew.
pub const REPEAT: &str = "what is done again, or planned again at once, does nothing more";
/// Kubernetes acts on it by itself.
pub const CURSOR: &str = "the cursor never goes back, and stays in its bounds";
/// From each state, within a bound.
pub const SETTLES: &str = "left alone, the cluster settles";

/// All of them.
pub const ALL: [&str; 11] = [
    BUDGET, CAPACITY, STOPS, RELEASE, COMMITMENT, OBEDIENCE, ACCEPTING, SAME, REPEAT, CURSOR,
    SETTLES,
];
