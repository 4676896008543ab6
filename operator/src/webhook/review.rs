//! Answers one AdmissionReview: reads pod, cluster and Kubernetes node, live, asks [`decide`], and
//! notes the request on the pod, which is what makes the planner drain it.
//!
//! Whichever replica is asked writes that note, the leader or not: it is a request, decides nothing
//! by itself, and whoever waits for the answer can't be sent to another replica. Whatever goes
//! wrong, the eviction is let through: emptying a Kubernetes node must never depend on us.

use std::{sync::Arc, time::Duration};

use axum::{Json, extract::State};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, Client, api::Patch, core::DeserializeGuard};
use serde::Deserialize;
use serde_json::{Value, json};
use sluice_crds::{ChannelCluster, names};
use tokio::time::timeout;

use super::{Answer, decide};
use crate::{
    apply::managed,
    events::{self, Recorder},
    metrics::Metrics,
    observe,
    status::{Event, EventReason},
    telemetry,
};

/// Longer takes no answer: the API server gives up after five seconds by default.
const IN_TIME: Duration = Duration::from_secs(4);
/// `kubectl drain` asks every five seconds; that is not written each time.
const NOTED_EVERY: SignedDuration = SignedDuration::from_secs(60);

/// What requests are answered with.
pub struct Reviewer {
    /// Reads and writes.
    pub client: Client,
    /// Namespaces that are looked after; none: all.
    pub namespaces: Vec<String>,
    /// Counts answers.
    pub metrics: Arc<Metrics>,
    /// Tells that an eviction waits.
    pub recorder: Recorder,
}

/// An AdmissionReview, as far as it matters.
#[derive(Debug, Deserialize)]
pub struct Review {
    request: Request,
}

/// What is asked: somebody evicts the pod of this name.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request {
    uid: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("failed to read the {0}")]
    Read(&'static str, #[source] Box<kube::Error>),
    #[error("the ChannelCluster can't be understood")]
    Cluster,
    #[error("failed to note the request on the pod")]
    Note(#[source] Box<kube::Error>),
    #[error("no answer in time")]
    Late,
}

/// Answers a review.
pub async fn review(
    State(reviewer): State<Arc<Reviewer>>,
    Json(review): Json<Review>,
) -> Json<Value> {
    let request = &review.request;
    let judged = timeout(IN_TIME, reviewer.judge(request)).await.unwrap_or(Err(Error::Late));
    let (answer, word) = match judged {
        Ok(answer) => {
            let word = answer.as_str();
            (answer, word)
        }
        Err(error) => {
            let error = telemetry::told(&error);
            let (pod, namespace) = (&request.name, &request.namespace);
            tracing::warn!(pod, namespace, error, "an eviction is let through unjudged");
            (Answer::Allow, "error")
        }
    };
    reviewer.metrics.eviction_requested(word);
    Json(response(&request.uid, &answer))
}

/// The review that says `answer`.
fn response(uid: &str, answer: &Answer) -> Value {
    let mut response = json!({ "uid": uid, "allowed": answer.allows() });
    if let Answer::Defer(why) = answer {
        // By this code whoever evicts knows that it is to try again.
        response["status"] = json!({
            "status": "Failure", "code": 429, "reason": "TooManyRequests", "message": why,
        });
    }
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
}

impl Reviewer {
    async fn judge(&self, request: &Request) -> Result<Answer, Error> {
        let namespace = &request.namespace;
        if !self.namespaces.is_empty() && !self.namespaces.contains(namespace) {
            return Ok(Answer::Allow);
        }
        let read = |what| move |error| Error::Read(what, Box::new(error));
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), namespace);
        let Some(pod) = pods.get_opt(&request.name).await.map_err(read("pod"))? else {
            return Ok(Answer::Allow);
        };
        let now = Timestamp::now();
        let Some(name) = cluster_of(&pod) else { return Ok(Answer::Allow) };
        let Some(state) = observe::pod_state(&pod, name, now) else { return Ok(Answer::Allow) };
        let clusters: Api<DeserializeGuard<ChannelCluster>> =
            Api::namespaced(self.client.clone(), namespace);
        let cluster = clusters.get_opt(name).await.map_err(read("ChannelCluster"))?;
        let cluster = cluster.map(|guard| guard.0.map_err(|_| Error::Cluster)).transpose()?;
        let cluster = cluster.filter(|it| it.metadata.deletion_timestamp.is_none());
        let cordoned =
            observe::cordoned(&self.client, &pod).await.map_err(read("Kubernetes node"))?;
        let answer = decide(&state, cluster.as_ref().map(|it| &it.spec), cordoned, now);
        let last = state.eviction.map(|eviction| eviction.requested_at);
        let due = last.is_none_or(|last| now.duration_since(last) >= NOTED_EVERY);
        if answer.concerns() && due && !request.dry_run {
            let note = json!({ "metadata": {
                "uid": state.uid,
                "annotations": { names::EVICTION_REQUESTED_AT: now.to_string() },
            } });
            let noted = pods.patch(&request.name, &managed(), &Patch::Merge(note)).await;
            noted.map_err(|error| Error::Note(Box::new(error)))?;
            if let (None, Answer::Defer(why), Some(cluster)) = (last, &answer, cluster) {
                self.tell(cluster, (request.name.clone(), state.uid), why);
            }
            tracing::info!(
                pod = request.name,
                namespace,
                answer = answer.as_str(),
                "asked to evict"
            );
        }
        Ok(answer)
    }

    /// Tells that the eviction of a pod, given by name and UID, waits. Beside the answer, which is
    /// not to wait for it; once for each pod, so there are not many.
    fn tell(&self, cluster: ChannelCluster, pod: (String, String), why: &str) {
        let message = format!("The eviction of {} waits: {why}", pod.0);
        let event = Event { reason: EventReason::EvictionDeferred, pod: Some(pod), message };
        let recorder = self.recorder.clone();
        tokio::spawn(async move {
            _ = timeout(IN_TIME, events::publish(&recorder, &cluster, vec![event])).await;
        });
    }
}

/// The cluster of a channel node's pod: by its labels and by the StatefulSet that controls it. A
/// pod that merely has the labels is drained by nobody, and must not wait for it.
fn cluster_of(pod: &Pod) -> Option<&str> {
    let labels = pod.metadata.labels.as_ref()?;
    let cluster = labels.get(names::CLUSTER_LABEL)?;
    let owners = pod.metadata.owner_references.as_deref().unwrap_or_default();
    let owned = owners.iter().any(|owner| {
        owner.controller == Some(true) && owner.kind == "StatefulSet" && owner.name == *cluster
    });
    let node = labels.get(names::COMPONENT_LABEL).is_some_and(|it| it == names::COMPONENT_NODE);
    (owned && node).then_some(cluster.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(kind: &str, owner: &str, component: &str) -> Pod {
        serde_json::from_value(json!({ "metadata": {
            "name": "chat-1",
            "labels": { names::CLUSTER_LABEL: "chat", names::COMPONENT_LABEL: component },
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": kind, "name": owner, "uid": "u",
                "controller": true,
            }],
        } }))
        .expect("a pod")
    }

    #[test]
    fn only_channel_nodes_of_a_cluster_are_its_pods() {
        assert_eq!(cluster_of(&pod("StatefulSet", "chat", "node")), Some("chat"));
        assert_eq!(cluster_of(&pod("StatefulSet", "chat-redis", "redis")), None);
        assert_eq!(cluster_of(&pod("Job", "chat", "node")), None);
        assert_eq!(cluster_of(&Pod::default()), None);
    }

    #[test]
    fn a_deferred_eviction_is_told_to_try_again() {
        let no = response("7", &Answer::Defer("not yet".into()));
        assert_eq!(no["response"]["allowed"], false);
        assert_eq!(no["response"]["status"]["code"], 429);
        assert_eq!(no["response"]["status"]["message"], "not yet");
        let yes = response("7", &Answer::Release);
        assert_eq!(
            (&yes["response"]["allowed"], &yes["response"]["uid"]),
            (&json!(true), &json!("7"))
        );
        assert_eq!(yes["response"].get("status"), None);
    }

    #[test]
    fn a_review_is_read_as_the_api_server_sends_it() {
        let sent = json!({
            "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": "a", "kind": { "group": "policy", "version": "v1", "kind": "Eviction" },
                "resource": { "group": "", "version": "v1", "resource": "pods" },
                "subResource": "eviction", "name": "chat-1", "namespace": "team",
                "operation": "CREATE", "userInfo": { "username": "admin" },
                "object": { "kind": "Eviction", "apiVersion": "policy/v1" }, "oldObject": null,
                "dryRun": true, "options": null,
            },
        });
        let review: Review = serde_json::from_value(sent).expect("a review");
        let request = review.request;
        assert_eq!((request.name.as_str(), request.namespace.as_str()), ("chat-1", "team"));
        assert!(request.dry_run);
    }
}
