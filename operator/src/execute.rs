//! Carries out a plan: its actions in order, then the cursor. Every step may be repeated, and
//! nothing is remembered: a process that is killed between any two steps leaves a state from which
//! the next reconcile goes on.
//!
//! It must never take a disruptive step on what was seen a while ago: patches on pods are guarded
//! by UID and resourceVersion, before clients are asked to move the cluster's generation is read
//! once more, and the pods that are to serve meanwhile, and before the cursor lets pods go so are
//! StatefulSet, pods and their sockets (`confirm.rs`).

mod annotations;
mod confirm;
mod wake;

pub use annotations::annotations;

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
};

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::Patch};
use serde_json::{Value, json};
use sluice_crds::names;

use crate::{
    apply::{Applier, Error, managed},
    build::Rendering,
    model::{Action, Cursor, DrainOverride, Observed, Plan, PodRef, TemplateStep},
    node_client::{self, NodeClient},
    observe::Seen,
    secrets::AdminToken,
};

/// What carrying out a plan came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Actions that were done.
    pub done: Vec<Action>,
    /// Whether the StatefulSet was written.
    pub cursor_moved: bool,
    /// UIDs of the pods that it lets go.
    pub let_go: Vec<String>,
    /// Something changed between plan and step; look again soon.
    pub stale: bool,
    /// An object that the pods do not need could not be written; all else went on.
    pub refused: Option<Error>,
}

/// How far a plan was carried out.
enum Ended {
    /// As far as it is good for.
    All,
    /// Something changed: the rest was left.
    Early,
}

/// Carries out plans for one cluster.
pub struct Executor<'a> {
    /// Writes objects.
    pub applier: &'a Applier<'a>,
    /// Calls nodes.
    pub nodes: &'a NodeClient,
    /// The token for it.
    pub token: &'a AdminToken,
    /// What the plan was made from.
    pub seen: &'a Seen,
}

impl Executor<'_> {
    /// Carries out `plan`.
    pub async fn execute(
        &self,
        plan: &Plan,
        rendering: &Rendering,
        now: Timestamp,
    ) -> Result<Outcome, Error> {
        let mut outcome = Outcome::default();
        let ended = self.act(plan, rendering, now, &mut outcome).await;
        if !matches!(ended, Ok(Ended::All)) {
            // Whatever stands in the way of the rest, drains under way must not run out.
            let renewed = self.renew(plan, &outcome.done).await;
            ended.and(renewed)?;
        }
        Ok(outcome)
    }

    async fn act(
        &self,
        plan: &Plan,
        rendering: &Rendering,
        now: Timestamp,
        outcome: &mut Outcome,
    ) -> Result<Ended, Error> {
        if plan.actions.iter().any(moves_clients) && !self.spec_holds().await? {
            // What the plan would renew may not be wanted any more.
            outcome.stale = true;
            return Ok(Ended::All);
        }
        if plan.actions.iter().any(commits) && !self.pods_hold().await? {
            outcome.stale = true;
            return Ok(Ended::Early);
        }
        // The version of each pod after our own patches.
        let mut versions = HashMap::new();
        let mut failed = HashSet::new();
        for action in &plan.actions {
            if pod_of(action).is_some_and(|pod| failed.contains(&pod.uid)) {
                continue;
            }
            match self.step(action, &mut versions).await {
                Ok(true) => outcome.done.push(action.clone()),
                Ok(false) => failed.extend(pod_of(action).map(|pod| pod.uid.clone())),
                Err(Error::Stale(what)) => {
                    tracing::debug!(what, "changed meanwhile");
                    outcome.stale = true;
                    if matters(action) {
                        return Ok(Ended::Early);
                    }
                    failed.extend(pod_of(action).map(|pod| pod.uid.clone()));
                }
                Err(error) => return Err(error),
            }
        }
        self.cursor(&plan.cursor, rendering, now, outcome).await?;
        Ok(Ended::All)
    }

    /// Carries out of `plan` only what keeps drains going that had begun before, unless it is `done`.
    pub async fn renew(&self, plan: &Plan, done: &[Action]) -> Result<(), Error> {
        for action in renewals(plan, &self.seen.observed, done) {
            self.step(action, &mut HashMap::new()).await?;
        }
        Ok(())
    }

    /// Takes one step; `false`: the node did not do it, which holds up only its own pod.
    async fn step(
        &self,
        action: &Action,
        versions: &mut HashMap<String, String>,
    ) -> Result<bool, Error> {
        match action {
            Action::Commit { pod, commitment } => {
                self.patch(pod, annotations::commit(commitment, self.said(pod)), versions, true)
                    .await?;
                tracing::info!(
                    pod = pod.name, reason = ?commitment.reason, deadline = %commitment.deadline,
                    "a drain is decided"
                );
            }
            Action::MarkDrained { pod, at } => {
                let patch =
                    json!({ "metadata": { "annotations": { names::DRAINED_AT: at.to_string() } } });
                self.patch(pod, patch, versions, true).await?;
                tracing::info!(pod = pod.name, "drained");
            }
            Action::StripAnnotations { pod } => {
                self.patch(pod, annotations::strip(self.said(pod)), versions, false).await?;
                tracing::info!(pod = pod.name, "the drain is undone");
            }
            Action::SetAccepting { pods, at } => self.set_accepting(pods, *at, versions).await?,
            Action::Cordon { pod, request } => {
                return self
                    .tell(pod, async |address| {
                        self.nodes.cordon(address, self.token, request).await
                    })
                    .await;
            }
            Action::Uncordon { pod } => {
                return self
                    .tell(pod, async |address| self.nodes.uncordon(address, self.token).await)
                    .await;
            }
            Action::StartDrain { pod, request } => {
                return self
                    .tell(pod, async |address| {
                        self.nodes.start_drain(address, self.token, request).await
                    })
                    .await;
            }
            Action::Shed { pod, request } => {
                self.applier.may_write()?;
                let Some(address) = self.seen.address(&pod.uid) else { return Ok(false) };
                let answer = self.nodes.shed(address, self.token, request).await;
                let told = noted(pod, answer);
                if told {
                    tracing::info!(pod = pod.name, clients = request.count, "rebalancing");
                }
                return Ok(told);
            }
            Action::CancelDrain { pod } => {
                return self
                    .tell(pod, async |address| self.nodes.cancel_drain(address, self.token).await)
                    .await;
            }
        }
        Ok(true)
    }

    /// Calls a pod's node; whether it did as it was told.
    async fn tell<T>(
        &self,
        pod: &PodRef,
        call: impl AsyncFnOnce(IpAddr) -> Result<T, node_client::Error>,
    ) -> Result<bool, Error> {
        self.applier.may_write()?;
        let Some(address) = self.seen.address(&pod.uid) else { return Ok(false) };
        Ok(noted(pod, call(address).await))
    }

    /// Labels that go on first: whoever connects in between finds a pod that stays.
    async fn set_accepting(
        &self,
        pods: &[(PodRef, bool)],
        at: Timestamp,
        versions: &mut HashMap<String, String>,
    ) -> Result<(), Error> {
        for wanted in [true, false] {
            let (label, since) = match wanted {
                true => ("true".into(), at.to_string().into()),
                false => (Value::Null, Value::Null),
            };
            let patch = json!({ "metadata": {
                "labels": { names::ACCEPTING_LABEL: label },
                "annotations": { names::ACCEPTING_SINCE: since },
            } });
            let patches = pods.iter().filter(|(_, to)| *to == wanted).map(|(pod, _)| {
                let patch = patch.clone();
                async move { (pod, self.send(pod, patch, None).await) }
            });
            for (pod, answer) in join_all(patches).await {
                versions.insert(pod.uid.clone(), answer?);
                tracing::info!(pod = pod.name, accepting = wanted, "steered");
            }
        }
        Ok(())
    }

    /// Patches a pod, guarded by its UID and, if `exact`, by the version that the plan saw.
    async fn patch(
        &self,
        pod: &PodRef,
        patch: Value,
        versions: &mut HashMap<String, String>,
        exact: bool,
    ) -> Result<(), Error> {
        let version = versions.get(&pod.uid).unwrap_or(&pod.resource_version).clone();
        let version = self.send(pod, patch, exact.then_some(version)).await?;
        versions.insert(pod.uid.clone(), version);
        Ok(())
    }

    async fn send(
        &self,
        pod: &PodRef,
        mut patch: Value,
        version: Option<String>,
    ) -> Result<String, Error> {
        // The API server refuses a patch that would change either.
        patch["metadata"]["uid"] = pod.uid.as_str().into();
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.into();
        }
        self.applier.may_write()?;
        let patched = self.pods().patch(&pod.name, &managed(), &Patch::Merge(patch)).await;
        let patched = patched.map_err(|source| gone_is_stale(&pod.name, source))?;
        Ok(patched.metadata.resource_version.unwrap_or_default())
    }

    /// Brings the StatefulSet to `cursor`.
    async fn cursor(
        &self,
        cursor: &Cursor,
        rendering: &Rendering,
        now: Timestamp,
        outcome: &mut Outcome,
    ) -> Result<(), Error> {
        let seen = self.seen.observed.statefulset.as_ref();
        let rollout = (cursor.template == TemplateStep::Apply).then(|| now.to_string());
        let moves = seen.is_some_and(|seen| {
            (seen.replicas, seen.ordinals_start, seen.partition)
                != (cursor.replicas, cursor.ordinals_start, cursor.partition)
        });
        let fresh;
        let live = if moves {
            match self.confirm(cursor).await? {
                Some(live) => {
                    fresh = live;
                    Some(&fresh)
                }
                None => {
                    outcome.stale = true;
                    return Ok(());
                }
            }
        } else {
            self.seen.stateful_set.as_ref()
        };
        match self.applier.ensure_workload(&rendering.workload, live, cursor, rollout).await {
            Ok(written) => {
                outcome.cursor_moved = written;
                if written {
                    let seen = seen.filter(|_| moves);
                    outcome.let_go = seen.map_or(Vec::new(), |seen| self.leaving(cursor, seen));
                    tracing::info!(
                        replicas = cursor.replicas, start = cursor.ordinals_start,
                        partition = cursor.partition, template = ?cursor.template, "cursor moved"
                    );
                }
                Ok(())
            }
            Err(Error::Stale(_)) => {
                outcome.stale = true;
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// What a person wanted with a pod's drain when the plan was made.
    fn said(&self, pod: &PodRef) -> Option<DrainOverride> {
        self.seen.observed.pods.iter().find(|seen| seen.uid == pod.uid)?.drain_override
    }

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.applier.client.clone(), self.applier.cluster.namespace)
    }
}

/// Whether a step makes clients leave that were not to leave before.
fn moves_clients(action: &Action) -> bool {
    matches!(action, Action::Commit { .. } | Action::Shed { .. })
}

/// Whether a drain begins.
fn commits(action: &Action) -> bool {
    matches!(action, Action::Commit { .. })
}

/// Whether later steps, on whatever pod, rely on this one.
fn matters(action: &Action) -> bool {
    matches!(action, Action::Commit { .. } | Action::SetAccepting { .. })
}

/// The steps that renew drains to which their pods were committed before this plan, but for those
/// that are `done`.
fn renewals<'a>(plan: &'a Plan, seen: &Observed, done: &[Action]) -> Vec<&'a Action> {
    let runs =
        |pod: &PodRef| seen.pods.iter().any(|known| known.uid == pod.uid && known.drain.is_some());
    let actions = plan.actions.iter().filter(|action| !done.contains(action));
    actions.filter(|a| matches!(a, Action::StartDrain { pod, .. } if runs(pod))).collect()
}

/// The one pod that a step is about.
fn pod_of(action: &Action) -> Option<&PodRef> {
    match action {
        Action::Commit { pod, .. }
        | Action::StartDrain { pod, .. }
        | Action::MarkDrained { pod, .. }
        | Action::CancelDrain { pod }
        | Action::Shed { pod, .. }
        | Action::Cordon { pod, .. }
        | Action::Uncordon { pod }
        | Action::StripAnnotations { pod } => Some(pod),
        Action::SetAccepting { .. } => None,
    }
}

/// Whether the node did it; a node that did not is reported by the next look at it.
fn noted<T>(pod: &PodRef, answer: Result<T, crate::node_client::Error>) -> bool {
    answer
        .inspect_err(|error| {
            tracing::warn!(pod = pod.name, error = error as &dyn std::error::Error, "no answer");
        })
        .is_ok()
}

fn gone_is_stale(pod: &str, source: kube::Error) -> Error {
    match &source {
        // 422: the UID differs.
        kube::Error::Api(status) if matches!(status.code, 404 | 409 | 422) => {
            Error::Stale(format!("pod {pod}"))
        }
        _ => Error::Pod { name: pod.into(), source: Box::new(source) },
    }
}

#[cfg(test)]
#[path = "execute_tests.rs"]
mod tests;
