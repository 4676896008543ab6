//! Whether the live settings are in force on the nodes, and what a person is told when they are not.
//!
//! Pure. A node that refuses them, such as an older one that does not know a field, keeps those
//! before.

use jiff::{SignedDuration, Timestamp};
use sluice_crds::Reason;

use crate::{
    model::{Desired, Observed, PodState, StatefulSetState},
    observe::brief,
    plan,
};

/// A kubelet looks at what it mounts once in a minute or so, and a node once in a second.
const PATIENCE: SignedDuration = SignedDuration::from_secs(90);

/// A node that refuses the settings, with its own reason. Not one that a rollout under way replaces:
/// what came with the settings, such as a backend that its rules call, may come with the new pods alone.
pub fn refused(desired: &Desired<'_>, observed: &Observed) -> Option<(Reason, String)> {
    let replaced = |pod: &&PodState| rolls(desired, observed, &pod.revision);
    let refuses = |pod: &PodState| {
        let why = pod.node.as_ref().map(|node| node.live_config_refused.as_str())?;
        let pod = &pod.name;
        (!why.is_empty()).then(|| {
            let why = brief(why);
            let message =
                format!("{pod} refuses the live settings, those before hold on it: {why}");
            (Reason::InvalidSpec, message)
        })
    };
    let mut staying = observed.pods.iter().filter(|pod| !pod.terminating && !replaced(pod));
    staying.find_map(refuses)
}

/// Whether all pods of this revision are about to go.
fn rolls(desired: &Desired<'_>, observed: &Observed, revision: &str) -> bool {
    let spec = desired.spec;
    let all = !spec.paused && spec.update_strategy.rolling_update.partition == 0;
    let newer = |sts: &StatefulSetState| {
        let seen = plan::settled(sts) && !plan::template_pending(desired, observed, sts);
        !seen || sts.update_revision != revision
    };
    all && observed.statefulset.as_ref().is_some_and(newer)
}

/// Whether other settings than those of this hash are in force on the pod's node.
fn lags(pod: &PodState, hash: &str) -> bool {
    !pod.terminating && pod.node.as_ref().is_some_and(|node| node.live_config_hash != hash)
}

/// A ready node that has not loaded the settings of this hash yet.
pub fn pending(observed: &Observed, hash: &str) -> Option<String> {
    let pod = observed.pods.iter().find(|pod| pod.ready && lags(pod, hash))?;
    Some(format!("waiting for {} to load the live settings", pod.name))
}

/// A node on which the settings of this hash are not in force although they have been there for
/// long, and that does not refuse them. `since`: when the spec was last changed.
pub fn late(
    observed: &Observed,
    hash: &str,
    since: Option<Timestamp>,
    now: Timestamp,
) -> Option<String> {
    let late = |pod: &&PodState| {
        let there = since.max(pod.created_at);
        let long = there.is_some_and(|there| now.duration_since(there) > PATIENCE);
        let refuses = pod.node.as_ref().is_some_and(|node| !node.live_config_refused.is_empty());
        long && lags(pod, hash) && !refuses
    };
    let pod = observed.pods.iter().find(late)?;
    Some(format!("the live settings are not in force on {} yet: ask its kubelet", pod.name))
}

#[cfg(test)]
mod tests {
    use sluice_crds::ChannelClusterSpec;
    use sluice_node_api::admin::NodeStatus;

    use super::*;
    use crate::plan::tests::spec;

    fn seen(hash: &str, why: &str) -> Observed {
        let node = NodeStatus {
            live_config_hash: hash.into(),
            live_config_refused: why.into(),
            ..NodeStatus::default()
        };
        let pod = PodState { name: "chat-4".into(), node: Some(node), ..PodState::default() };
        Observed { statefulset: None, pods: vec![pod] }
    }

    fn told(spec: &ChannelClusterSpec, observed: &Observed) -> Option<(Reason, String)> {
        let (spec_hash, template_hash) = ("spec".into(), "template".into());
        let desired = Desired { name: "chat", generation: 1, spec, spec_hash, template_hash };
        refused(&desired, observed)
    }

    #[test]
    fn a_refusal_is_told_in_the_nodes_own_words() {
        let spec = spec(3);
        assert_eq!(told(&spec, &seen("new", "")), None);
        let why = "live.yaml:3: unknown field `x`";
        let (reason, message) = told(&spec, &seen("old", why)).unwrap();
        assert_eq!(reason, Reason::InvalidSpec);
        assert!(message.starts_with("chat-4 refuses the live settings"), "{message}");
        assert!(message.ends_with(why), "{message}");
    }

    #[test]
    fn a_pod_that_a_rollout_replaces_may_refuse_what_is_for_the_new_ones() {
        let mut spec = spec(3);
        let mut observed = seen("old", "no backend to call");
        observed.pods[0].revision = "1".into();
        let sts = StatefulSetState {
            spec_hash: "spec".into(),
            update_revision: "1".into(),
            ..StatefulSetState::default()
        };
        observed.statefulset = Some(sts.clone());
        assert!(told(&spec, &observed).is_some(), "it stays");
        for rolling in [
            StatefulSetState { spec_hash: "before".into(), ..sts.clone() },
            StatefulSetState { generation: 2, observed_generation: 1, ..sts.clone() },
            StatefulSetState { update_revision: "2".into(), ..sts },
        ] {
            observed.statefulset = Some(rolling);
            assert_eq!(told(&spec, &observed), None);
        }
        spec.update_strategy.rolling_update.partition = 1;
        assert!(told(&spec, &observed).is_some(), "a canary: it may stay for long");
        spec.update_strategy.rolling_update.partition = 0;
        spec.paused = true;
        assert!(told(&spec, &observed).is_some());
    }

    #[test]
    fn a_ready_node_is_waited_for() {
        let mut observed = seen("old", "");
        assert_eq!(pending(&observed, "new"), None, "it is not ready for another reason");
        observed.pods[0].ready = true;
        assert!(pending(&observed, "new").is_some_and(|told| told.contains("chat-4")));
        assert_eq!(pending(&observed, "old"), None);
    }

    #[test]
    fn a_node_that_stays_behind_is_told_after_a_while() {
        let changed: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let after = |seconds| changed + SignedDuration::from_secs(seconds);
        assert_eq!(late(&seen("old", ""), "new", Some(changed), after(90)), None);
        assert!(late(&seen("old", ""), "new", Some(changed), after(91)).is_some());
        assert_eq!(late(&seen("new", ""), "new", Some(changed), after(91)), None);
        assert_eq!(late(&seen("old", "no"), "new", Some(changed), after(91)), None, "said already");
        let mut fresh = seen("old", "");
        fresh.pods[0].created_at = Some(after(60));
        assert_eq!(late(&fresh, "new", Some(changed), after(91)), None);
        assert_eq!(late(&seen("old", ""), "new", None, after(91)), None);
    }
}
