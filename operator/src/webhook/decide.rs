//! Whether a pod may be evicted now. It is the planner that drains it; this only waits for that.

use jiff::Timestamp;
use sluice_crds::{ChannelClusterSpec, DrainReason, EvictionPolicy, TimeoutPolicy, names};

use crate::{
    model::{DrainOverride, PodState},
    plan,
};

/// What is answered to whoever evicts a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The eviction is none of ours, or nothing will come of waiting.
    Allow,
    /// The pod's clients have been moved, or the time for that is over.
    Release,
    /// Not yet: a sentence for a person.
    Defer(String),
}

impl Answer {
    /// Whether the eviction goes through, as far as clients matter.
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Defer(_))
    }
    /// Whether the request is to be noted on the pod: it drains for as long as somebody asks. One
    /// that is let through, too, because a disruption budget may hold it back after us.
    pub fn concerns(&self) -> bool {
        *self != Self::Allow
    }
    /// A short fixed word for metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Allow => "allowed",
            Self::Release => "released",
            Self::Defer(_) => "deferred",
        }
    }
}

/// Decides about one request to evict `pod`, a channel node. `spec`: of its cluster, unless that is
/// gone or going. `cordoned`: its Kubernetes node takes no pods.
pub fn decide(
    pod: &PodState,
    spec: Option<&ChannelClusterSpec>,
    cordoned: bool,
    now: Timestamp,
) -> Answer {
    let Some(spec) = spec else { return Answer::Allow };
    let wanted = spec.disruption.eviction_policy == EvictionPolicy::DrainFirst && !spec.paused;
    // Nobody is on it, and no drain of it may ever be seen to end.
    let dead = plan::serves_nobody(pod);
    let said = match pod.drain_override {
        Some(DrainOverride::Release) => pod.drain.is_some(),
        Some(DrainOverride::Cancel) => true,
        None => false,
    };
    if !wanted || !cordoned || pod.terminating || said || dead {
        return Answer::Allow;
    }
    let name = &pod.name;
    let Some(drain) = &pod.drain else {
        return Answer::Defer(format!("the clients of {name} are to be moved first"));
    };
    let over = now >= drain.deadline;
    // The only pod, with another in its place: the cursor lets it go. Evicted it would come back.
    let rolling = &spec.update_strategy.rolling_update;
    let replaced = (spec.replicas, rolling.partition) == (1, 0)
        && rolling.max_surge > 0
        && drain.reason == DrainReason::Eviction
        && !drain.target.is_empty();
    if drain.drained_at.is_some() && (!replaced || over) {
        return Answer::Release;
    }
    match spec.drain.timeout_policy {
        TimeoutPolicy::Terminate if over => Answer::Release,
        TimeoutPolicy::Hold if over => Answer::Defer(format!(
            "{name} is held after its drain's time: annotate it {}=release or cancel",
            names::DRAIN_OVERRIDE
        )),
        _ => Answer::Defer(format!(
            "the clients of {name} are being moved, until {} at the latest",
            drain.deadline
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{DrainCommitment, StuckReason};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("in range")
    }
    fn spec() -> ChannelClusterSpec {
        serde_json::from_str("{}").expect("all defaults")
    }
    fn pod() -> PodState {
        PodState { name: "chat-1".into(), ready: true, running: true, ..PodState::default() }
    }
    fn draining(drained_at: Option<Timestamp>) -> PodState {
        let drain = DrainCommitment {
            reason: DrainReason::Eviction,
            started_at: at(0),
            deadline: at(100),
            target: String::new(),
            initial: Some(3),
            drained_at,
        };
        PodState { drain: Some(drain), ..pod() }
    }

    #[test]
    fn waits_until_the_clients_are_moved_or_the_time_is_over() {
        let mut spec = spec();
        spec.replicas = 1;
        let answer = |pod: &PodState, now| decide(pod, Some(&spec), true, at(now));
        assert!(!answer(&pod(), 1).allows());
        assert!(!answer(&draining(None), 99).allows());
        assert_eq!(answer(&draining(None), 100), Answer::Release);
        assert_eq!(answer(&draining(Some(at(5))), 6), Answer::Release);
        let mut replaced = draining(Some(at(5)));
        replaced.drain.as_mut().expect("it drains").target = "new".into();
        assert!(!answer(&replaced, 6).allows());
        assert_eq!(answer(&replaced, 100), Answer::Release);
    }

    #[test]
    fn who_waits_is_told_until_when() {
        let said = decide(&draining(None), Some(&spec()), true, at(1));
        let until =
            "the clients of chat-1 are being moved, until 1970-01-01T00:01:40Z at the latest";
        assert_eq!(said, Answer::Defer(until.into()));
    }

    #[test]
    fn a_held_pod_waits_for_a_person() {
        let mut spec = spec();
        spec.drain.timeout_policy = TimeoutPolicy::Hold;
        let Answer::Defer(why) = decide(&draining(None), Some(&spec), true, at(100)) else {
            panic!("it is let go")
        };
        assert!(why.contains("sluice.dev/drain=release"), "{why}");
        for said in [DrainOverride::Release, DrainOverride::Cancel] {
            let pod = PodState { drain_override: Some(said), ..draining(None) };
            assert_eq!(decide(&pod, Some(&spec), true, at(100)), Answer::Allow);
        }
        // It is for a drain that has begun.
        let early = PodState { drain_override: Some(DrainOverride::Release), ..pod() };
        assert!(!decide(&early, Some(&spec), true, at(1)).allows());
    }

    #[test]
    fn what_no_drain_would_come_of_is_let_through() {
        let (paused, ignored) = (
            ChannelClusterSpec { paused: true, ..spec() },
            serde_json::from_str("{\"disruption\": {\"evictionPolicy\": \"Ignore\"}}")
                .expect("a spec"),
        );
        for spec in [None, Some(&paused), Some(&ignored)] {
            assert_eq!(decide(&pod(), spec, true, at(1)), Answer::Allow);
        }
        assert_eq!(decide(&pod(), Some(&spec()), false, at(1)), Answer::Allow);
        let stuck = Some(StuckReason::CrashLoopBackOff);
        for pod in [
            PodState { terminating: true, ..pod() },
            PodState { ready: false, running: false, ..pod() },
            PodState { ready: false, running: false, stuck, ..pod() },
        ] {
            assert_eq!(decide(&pod, Some(&spec()), true, at(1)), Answer::Allow);
        }
        // Another container of it can't start: its node runs, and may have clients.
        let serves = PodState { ready: false, stuck: Some(StuckReason::ImagePull), ..pod() };
        assert!(!decide(&serves, Some(&spec()), true, at(1)).allows());
        // A lost Kubernetes node may still serve.
        let lost = PodState { ready: false, node_unreachable: true, ..pod() };
        assert!(!decide(&lost, Some(&spec()), true, at(1)).allows());
    }
}
