//! Reads what there is, live: the StatefulSet, then its pods, then each pod's node. It must never
//! write, and never answer from a cache: disruptions are decided on what it returns.

use std::{collections::HashSet, net::IpAddr};

use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ContainerStateTerminated, ContainerStatus, Node, Pod, PodCondition},
};
use kube::{
    Api, Client,
    api::{DynamicObject, ListParams},
};
use sluice_crds::{DrainReason, names};

use crate::{
    apply::Kept,
    build::{Cluster, Kind},
    leftover::leftover,
    model::{
        DrainCommitment, DrainOverride, Eviction, Observed, PodState, StatefulSetState, StuckReason,
    },
    node_client::NodeClient,
    secrets::AdminToken,
    stores,
};

/// Nodes asked at the same time, for one cluster.
const ASKED_AT_ONCE: usize = 32;
/// The most characters of somebody else's message that are passed on.
const BRIEF: usize = 400;
/// A pod that was just made may be unschedulable for a moment.
const UNSCHEDULABLE_GRACE: SignedDuration = SignedDuration::from_secs(15);

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server was not reached or said no.
    #[error("failed to read the {what} of the cluster")]
    Api {
        /// What was read.
        what: &'static str,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The StatefulSet can't be understood.
    #[error("failed to understand the StatefulSet")]
    StatefulSet(#[source] serde_json::Error),
}

impl Error {
    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        "observe"
    }
}

/// What was read: for the plan, and as it was read.
#[derive(Debug, Default)]
pub struct Seen {
    /// What the plan sees.
    pub observed: Observed,
    /// The StatefulSet.
    pub stateful_set: Option<DynamicObject>,
    /// The pods that the StatefulSet owns; without one, those that are there.
    pub pods: Vec<Pod>,
}

impl Seen {
    /// Whether the Secret with the tokens may not be as it was last read: a node does not take the
    /// token, or a pod can't start, maybe for want of it.
    pub fn doubts_tokens(&self) -> bool {
        let mut pods = self.observed.pods.iter().filter(|pod| !pod.terminating);
        pods.any(|pod| pod.denied || !pod.running)
    }

    /// Whether a node does not take the token.
    pub fn denied(&self) -> bool {
        self.observed.pods.iter().any(|pod| pod.denied && !pod.terminating)
    }

    /// The address of a pod's node, by the pod's UID.
    pub fn address(&self, uid: &str) -> Option<IpAddr> {
        let pod = self.pods.iter().find(|pod| pod.metadata.uid.as_deref() == Some(uid))?;
        address(pod)
    }
}

/// Reads the state of `cluster` at `now`.
pub async fn observe(
    client: &Client,
    nodes: &NodeClient,
    cluster: &Cluster<'_>,
    token: &AdminToken,
    now: Timestamp,
) -> Result<Seen, Error> {
    let failed = |what| move |source| Error::Api { what, source: Box::new(source) };
    let stateful_set = stores::api(client, Some(cluster.namespace), Kind::StatefulSet)
        .get_opt(cluster.name)
        .await
        .map_err(failed("StatefulSet"))?;
    let state = stateful_set.as_ref().map(stateful_set_state).transpose()?;

    let api: Api<Pod> = Api::namespaced(client.clone(), cluster.namespace);
    let selector = selector(cluster.name);
    let listed =
        api.list(&ListParams::default().labels(&selector)).await.map_err(failed("pods"))?;
    let uid = state.as_ref().map(|state| state.uid.as_str());
    let pods: Vec<Pod> = listed.items.into_iter().filter(|pod| concerns(pod, uid)).collect();

    let mut states: Vec<_> =
        pods.iter().filter_map(|pod| pod_state(pod, cluster.name, now)).collect();
    if state.is_none() {
        // Those of a StatefulSet that is gone go after it.
        let left: HashSet<&str> =
            pods.iter().filter(|pod| controller(pod).is_none()).filter_map(uid_of).collect();
        states.iter_mut().for_each(|pod| pod.terminating |= !left.contains(pod.uid.as_str()));
    }
    ask(nodes, token, &pods, &mut states).await;
    for state in states.iter_mut() {
        let Some(eviction) = &mut state.eviction else { continue };
        let pod = pods.iter().find(|pod| uid_of(pod) == Some(state.uid.as_str()));
        let Some(pod) = pod else { continue };
        eviction.cordoned = cordoned(client, pod).await.ok();
    }
    let observed = Observed { statefulset: state, pods: states };
    Ok(Seen { observed, stateful_set, pods })
}

/// Whether a pod is the StatefulSet's of this UID; without one, those that the last one left.
fn concerns(pod: &Pod, stateful_set: Option<&str>) -> bool {
    stateful_set.is_none() || controller(pod) == stateful_set
}

/// The UID of what controls the pod.
fn controller(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

fn uid_of(pod: &Pod) -> Option<&str> {
    pod.metadata.uid.as_deref()
}

/// Selects the pods of a cluster's nodes.
pub fn selector(cluster: &str) -> String {
    format!(
        "{}={cluster},{}={}",
        names::CLUSTER_LABEL,
        names::COMPONENT_LABEL,
        names::COMPONENT_NODE
    )
}

/// Whether the Kubernetes node of a pod is cordoned. One that is on none, or on one that is gone,
/// is not on a cordoned one.
pub async fn cordoned(client: &Client, pod: &Pod) -> Result<bool, kube::Error> {
    let Some(name) = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) else {
        return Ok(false);
    };
    let node = Api::<Node>::all(client.clone()).get_opt(name).await?;
    Ok(node.and_then(|node| node.spec?.unschedulable).unwrap_or(false))
}

/// Fills in what each running pod's node answers.
async fn ask(nodes: &NodeClient, token: &AdminToken, pods: &[Pod], states: &mut [PodState]) {
    let running: Vec<(String, IpAddr)> = pods
        .iter()
        .filter(|pod| runs(pod))
        .filter_map(|pod| Some((pod.metadata.uid.clone()?, address(pod)?)))
        .collect();
    let mut answers = stream::iter(running)
        .map(|(uid, address)| async move {
            let answer = nodes.status(address, token).await.inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                tracing::debug!(error, "no status");
            });
            (uid, answer)
        })
        .buffer_unordered(ASKED_AT_ONCE);
    while let Some(answer) = answers.next().await {
        let (uid, answer) = answer;
        let Some(state) = states.iter_mut().find(|state| state.uid == uid) else { continue };
        match answer {
            // An address may already be another pod's.
            Ok(status) => {
                state.node =
                    Some(status).filter(|node| node.pod_uid.is_empty() || node.pod_uid == uid);
            }
            Err(error) => state.denied = error.denied(),
        }
    }
}

/// The StatefulSet as the plan sees it.
pub fn stateful_set_state(object: &DynamicObject) -> Result<StatefulSetState, Error> {
    let typed: StatefulSet = serde_json::to_value(object)
        .and_then(serde_json::from_value)
        .map_err(Error::StatefulSet)?;
    let annotation =
        |key: &str| typed.metadata.annotations.as_ref().and_then(|all| all.get(key)).cloned();
    let template_lost = Kept::of(&typed.metadata).is_none();
    let spec = typed.spec.unwrap_or_default();
    let status = typed.status.unwrap_or_default();
    let rolling = spec.update_strategy.and_then(|strategy| strategy.rolling_update);
    Ok(StatefulSetState {
        uid: typed.metadata.uid.unwrap_or_default(),
        generation: typed.metadata.generation.unwrap_or(0),
        observed_generation: status.observed_generation.unwrap_or(0),
        replicas: spec.replicas.unwrap_or(1),
        ordinals_start: spec.ordinals.and_then(|ordinals| ordinals.start).unwrap_or(0),
        partition: rolling.and_then(|rolling| rolling.partition).unwrap_or(0),
        spec_hash: annotation(names::SPEC_HASH).unwrap_or_default(),
        template_hash: annotation(names::TEMPLATE_HASH).unwrap_or_default(),
        template_lost,
        rollout_started_at: annotation(names::ROLLOUT_STARTED_AT).and_then(|at| at.parse().ok()),
        current_revision: status.current_revision.unwrap_or_default(),
        update_revision: status.update_revision.unwrap_or_default(),
    })
}

/// A pod as the plan sees it, its node's answer aside. `None`: no pod of a StatefulSet.
pub fn pod_state(pod: &Pod, cluster: &str, now: Timestamp) -> Option<PodState> {
    let meta = &pod.metadata;
    let name = meta.name.clone()?;
    let ordinal = name.strip_prefix(cluster)?.strip_prefix('-')?.parse().ok()?;
    let label = |key: &str| meta.labels.as_ref().and_then(|all| all.get(key)).map(String::as_str);
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    let said = annotation(names::DRAIN_OVERRIDE);
    let ready = condition(pod, "Ready");
    let terminating = meta.deletion_timestamp.is_some();
    let accepting = label(names::ACCEPTING_LABEL) == Some("true");
    let stuck = if terminating { None } else { stuck(pod, now) };
    Some(PodState {
        ordinal,
        uid: meta.uid.clone()?,
        resource_version: meta.resource_version.clone().unwrap_or_default(),
        revision: label("controller-revision-hash").unwrap_or_default().to_owned(),
        created_at: meta.creation_timestamp.as_ref().map(|at| at.0),
        ready: ready.is_some_and(holds),
        ready_since: since(ready, true),
        unready_since: since(ready, false),
        terminating,
        leftover: leftover(pod, now).unwrap_or_default(),
        running: runs(pod),
        stuck: stuck.as_ref().map(|(reason, _)| *reason),
        crashed: !ready.is_some_and(holds) && crashed(pod),
        stuck_message: stuck.map(|(_, message)| message).unwrap_or_default(),
        kubernetes_node: pod
            .spec
            .as_ref()
            .and_then(|spec| spec.node_name.clone())
            .unwrap_or_default(),
        node_unreachable: node_unreachable(pod),
        accepting,
        accepting_since: annotation(names::ACCEPTING_SINCE)
            .filter(|_| accepting)
            .and_then(|since| since.parse().ok()),
        drain: commitment(annotation),
        drain_override: said.and_then(|said| DrainOverride::of(said)),
        override_unknown: said.is_some_and(|said| DrainOverride::of(said).is_none()),
        eviction: annotation(names::EVICTION_REQUESTED_AT)
            .and_then(|at| at.parse().ok())
            .map(|requested_at| Eviction { requested_at, cordoned: None }),
        node: None,
        denied: false,
        name,
    })
}

fn commitment<'a>(annotation: impl Fn(&str) -> Option<&'a String>) -> Option<DrainCommitment> {
    let time = |key: &str| annotation(key)?.parse::<Timestamp>().ok();
    let started_at = time(names::DRAIN_STARTED_AT)?;
    let reason = match annotation(names::DRAIN_REASON).map(String::as_str) {
        Some("ScaleDown") => DrainReason::ScaleDown,
        Some("Eviction") => DrainReason::Eviction,
        _ => DrainReason::Rollout,
    };
    Some(DrainCommitment {
        reason,
        started_at,
        // Without one it would never end, or have ended already: it is decided anew.
        deadline: time(names::DRAIN_DEADLINE)?,
        target: annotation(names::DRAIN_TARGET).cloned().unwrap_or_default(),
        initial: annotation(names::DRAIN_INITIAL).and_then(|count| count.parse().ok()),
        drained_at: time(names::DRAINED_AT),
    })
}

/// The address at which the pod's node is asked.
pub fn address(pod: &Pod) -> Option<IpAddr> {
    pod.status.as_ref()?.pod_ip.as_ref()?.parse().ok()
}

pub(crate) fn container_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let init = status.init_container_statuses.iter().flatten();
        init.chain(status.container_statuses.iter().flatten())
    })
}

/// Whether the node's container runs, as far as its kubelet has told.
pub fn runs(pod: &Pod) -> bool {
    container_statuses(pod).any(|container| {
        container.name == names::NODE_CONTAINER
            && container.state.as_ref().is_some_and(|state| state.running.is_some())
    })
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Since when a condition holds, or does not.
fn since(condition: Option<&PodCondition>, held: bool) -> Option<Timestamp> {
    let condition = condition.filter(|condition| holds(condition) == held)?;
    condition.last_transition_time.as_ref().map(|at| at.0)
}

fn holds(condition: &PodCondition) -> bool {
    condition.status == "True"
}

/// Its Kubernetes node does not answer. The control plane then sets condition Ready to False but
/// leaves ContainersReady as the kubelet last told it, which no kubelet does.
pub(crate) fn node_unreachable(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref());
    status.phase.as_deref() == Some("Unknown")
        || status.reason.as_deref() == Some("NodeLost")
        || (gates.is_none_or(Vec::is_empty)
            && condition(pod, "Ready").is_some_and(|ready| !holds(ready))
            && condition(pod, "ContainersReady").is_some_and(holds))
}

/// Why a pod can't start, and what there is to tell of it.
pub(crate) fn stuck(pod: &Pod, now: Timestamp) -> Option<(StuckReason, String)> {
    let waiting = container_statuses(pod).find_map(|container| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let said = waiting.message.as_deref().unwrap_or_default();
        match waiting.reason.as_deref()? {
            // What its kubelet says is only how long it waits.
            "CrashLoopBackOff" => Some((StuckReason::CrashLoopBackOff, last_words(container))),
            "InvalidImageName" => Some((StuckReason::InvalidImageName, brief(said))),
            "ErrImagePull" | "ImagePullBackOff" | "ErrImageNeverPull" => {
                Some((StuckReason::ImagePull, brief(said)))
            }
            "CreateContainerError" | "CreateContainerConfigError" | "RunContainerError" => {
                Some((StuckReason::CreateContainer, brief(said)))
            }
            _ => None,
        }
    });
    waiting.or_else(|| {
        let scheduled = condition(pod, "PodScheduled")?;
        let since = scheduled.last_transition_time.as_ref().map(|at| at.0);
        let for_long = since.is_none_or(|since| now.duration_since(since) >= UNSCHEDULABLE_GRACE);
        let unschedulable =
            scheduled.status == "False" && scheduled.reason.as_deref() == Some("Unschedulable");
        let said = scheduled.message.as_deref().unwrap_or_default();
        (unschedulable && for_long).then(|| (StuckReason::Unschedulable, brief(said)))
    })
}

/// Whether the node's container ended with an error before the one that is there now.
fn crashed(pod: &Pod) -> bool {
    container_statuses(pod)
        .filter(|container| container.name == names::NODE_CONTAINER)
        .any(|container| last_end(container).is_some_and(|ended| ended.exit_code != 0))
}

/// How the container before the one that is there now ended.
fn last_end(container: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    container.last_state.as_ref()?.terminated.as_ref()
}

/// How a container that does not stay up ended last: its own words, or else its exit code.
fn last_words(container: &ContainerStatus) -> String {
    let Some(ended) = last_end(container) else { return String::new() };
    match ended.message.as_deref().map(brief).filter(|said| !said.is_empty()) {
        Some(said) => said,
        None => {
            let reason = ended.reason.as_deref().unwrap_or("ended");
            format!("{reason}, exit code {}", ended.exit_code)
        }
    }
}

/// A message as a part of a sentence: on one line, and not too long. Its end says the most.
pub(crate) fn brief(message: &str) -> String {
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let text = lines.join("; ");
    let cut = text.chars().count().saturating_sub(BRIEF);
    if cut == 0 { text } else { format!("…{}", text.chars().skip(cut).collect::<String>()) }
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
