//! `kubectl drain` moves clients first: a validating webhook on `pods/eviction` defers the eviction
//! of a pod on a cordoned Kubernetes node until its clients have been moved.
//!
//! [`decide()`] is the decision, a pure function. What it knows of the past is what the pod's
//! annotations tell. It must never hold up the eviction of a pod that is not a channel node, nor one
//! for which no drain could ever end: whoever evicts would wait for ever.

mod decide;

pub use decide::{Answer, decide};
