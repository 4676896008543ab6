//! `kubectl drain` of a Kubernetes node under live clients: its pods move their clients first, and are evicted then.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::{Value, json};
use sluice_crds::{DrainReason, names};
use sluice_e2e::command::Output;
use tokio::sync::{Mutex, MutexGuard};

use crate::{
    figure,
    support::{
        Clients, Cluster, LONG, Space, colour, eventually,
        operator::metric,
        place::Place,
        roll::{Outcome, Roll},
        spec, test,
    },
};

/// Pods of one test alone have it: a drain must not touch those of the tests beside it.
const LABEL: &str = "e2e-drain";
const CLIENTS: usize = 30;
const WEBHOOKS: &str = "validatingwebhookconfigurations";

/// A Kubernetes node that is or may be cordoned; takes pods again when this value ends, whatever became of the test.
/// One test at a time has any: the others need nodes for their pods.
struct Emptied {
    place: Place,
    node: String,
    _alone: Arc<MutexGuard<'static, ()>>,
}

/// Waits for the turn to empty a Kubernetes node.
async fn turn() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::const_new(());
    LOCK.lock().await
}

impl Emptied {
    async fn of(space: &Space, node: &str) -> Self {
        Self::in_turn(space, node, turn().await)
    }

    fn in_turn(space: &Space, node: &str, alone: MutexGuard<'static, ()>) -> Self {
        Self { place: space.place.clone(), node: node.to_owned(), _alone: Arc::new(alone) }
    }

    /// A second one at the same time.
    fn and(&self, node: &str) -> Self {
        Self { place: self.place.clone(), node: node.to_owned(), _alone: self._alone.clone() }
    }

    /// `kubectl drain`, of the pods of this test.
    async fn drain(&self, space: &Space, timeout: &str) -> Result<Output> {
        let selector = format!("--pod-selector={LABEL}={}", space.name);
        let timeout = format!("--timeout={timeout}");
        let arguments = [
            "drain",
            &self.node,
            "--ignore-daemonsets",
            "--delete-emptydir-data",
            &selector,
            &timeout,
        ];
        space.try_kubectl(&arguments, "").await
    }

    fn uncordon(&self) -> Result<()> {
        self.place.kubernetes.kubectl(["uncordon", &self.node]).map(drop)
    }
}

impl Drop for Emptied {
    fn drop(&mut self) {
        if let Err(error) = self.uncordon() {
            eprintln!("  {} is still cordoned: {error:#}", self.node);
        }
    }
}

fn labelled(space: &Space, mut more: Value) -> Value {
    more["podTemplate"]["labels"] = json!({ LABEL: space.name });
    more
}

fn node_of(pod: &Pod) -> String {
    pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default()
}

/// The pods on each Kubernetes node.
async fn layout(cluster: &Cluster<'_>) -> Result<BTreeMap<String, Vec<String>>> {
    let mut layout: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for pod in cluster.pods().await? {
        layout.entry(node_of(&pod)).or_default().push(pod.name_any());
    }
    Ok(layout)
}

/// Runs `kubectl drain` on the Kubernetes node of the last pod under live clients: what came of it, and who moved.
async fn drained(
    space: &Space,
    cluster: &Cluster<'_>,
    replicas: usize,
    emptied: &Emptied,
) -> Result<(Outcome, usize)> {
    let roll = Roll::start(cluster, CLIENTS).await?;
    let there = layout(cluster).await?.remove(&emptied.node).unwrap_or_default();
    let before = roll.state().await?.by_node;
    let moving: usize = there.iter().filter_map(|pod| before.get(pod)).sum();
    ensure!(moving > 0, "{} has no clients: {before:?}", emptied.node);
    let said = roll.during(emptied.drain(space, "180s")).await?;
    ensure!(said.success, "kubectl drain: {}", said.stderr.trim());
    figure!(space, "{} drained of {there:?}, which had {moving} clients", emptied.node);
    figure!(space, "kubectl: {}", said.stderr.lines().next().unwrap_or_default());
    let outcome = roll.finish(replicas).await?;
    let after = layout(cluster).await?;
    ensure!(!after.contains_key(&emptied.node), "pods are on {} again: {after:?}", emptied.node);
    Ok((outcome, moving))
}

/// Those who were on pods that went moved once, nobody else did.
fn moved_once(outcome: &Outcome, moving: usize) -> Result<()> {
    let counts = &outcome.report.moves.counts;
    let stayed = counts.get("0").copied().unwrap_or_default();
    let once = counts.get("1").copied().unwrap_or_default();
    ensure!((stayed, once) == (CLIENTS - moving, moving), "{moving} were to move once: {counts:?}");
    Ok(())
}

#[test]
fn kubectl_drain_moves_clients_once_before_their_pods_are_evicted() {
    test("kubectl_drain_moves_clients_once_before_their_pods_are_evicted", async |space| {
        let cluster = space.cluster("chat", spec(3, labelled(space, json!({})))).await?;
        cluster.wait_ready().await?;
        let node = node_of(cluster.pods().await?.last().context("a pod")?);
        let emptied = Emptied::of(space, &node).await;
        let before = metric(&space.place, "sluice_operator_eviction_requests_total").await?;
        let (outcome, moving) = drained(space, &cluster, 3, &emptied).await?;
        let asked = metric(&space.place, "sluice_operator_eviction_requests_total").await?;
        ensure!(asked - before >= 2.0, "the webhook was asked {before} → {asked}");
        outcome.nobody_was_dropped(1)?;
        moved_once(&outcome, moving)?;
        let events = space
            .kubectl(&["get", "events", "--output=jsonpath={.items[*].note}{.items[*].message}"])
            .await?;
        for told in ["waits: the clients", "its Kubernetes node is being emptied"] {
            ensure!(events.contains(told), "no event says that {told}: {events}");
        }
        Ok(())
    });
}

#[test]
fn two_kubernetes_nodes_emptied_at_once_move_one_pod_after_the_other() {
    test("two_kubernetes_nodes_emptied_at_once_move_one_pod_after_the_other", async |space| {
        let cluster = space.cluster("chat", spec(3, labelled(space, json!({})))).await?;
        cluster.wait_ready().await?;
        let there = layout(&cluster).await?;
        let nodes: Vec<&String> = there.keys().collect();
        ensure!(nodes.len() == 3, "a pod on each Kubernetes node: {there:?}");
        let first = Emptied::of(space, nodes[1]).await;
        let second = first.and(nodes[2]);
        let roll = Roll::start(&cluster, CLIENTS).await?;
        let both =
            async { tokio::try_join!(first.drain(space, "240s"), second.drain(space, "240s")) };
        let (one, other) = roll.during(both).await?;
        for said in [one, other] {
            ensure!(said.success, "kubectl drain: {}", said.stderr.trim());
        }
        let outcome = roll.finish(3).await?;
        let after = layout(&cluster).await?;
        ensure!(after.keys().eq([nodes[0]]), "pods are elsewhere: {after:?}");
        outcome.nothing_was_lost()?;
        outcome.pods_went_empty_or_overdue()?;
        let most = outcome.watch.most_drains_at_a_time();
        ensure!(most == 1, "{most} drains at a time");
        // Nobody on the pod that stays is moved, and who is moved meets no pod that goes next.
        let counts = &outcome.report.moves.counts;
        ensure!(counts.keys().all(|times| times == "0" || times == "1"), "{counts:?}");
        Ok(())
    });
}

#[test]
fn the_only_pod_is_replaced_before_kubectl_drain_evicts_it() {
    test("the_only_pod_is_replaced_before_kubectl_drain_evicts_it", async |space| {
        let cluster = space.cluster("chat", spec(1, labelled(space, json!({})))).await?;
        cluster.wait_ready().await?;
        let node = node_of(cluster.pods().await?.last().context("a pod")?);
        let emptied = Emptied::of(space, &node).await;
        let (outcome, _) = drained(space, &cluster, 1, &emptied).await?;
        outcome.all_replaced_once()
    });
}

#[test]
fn uncordoning_cancels_the_drain() {
    test("uncordoning_cancels_the_drain", async |space| {
        // Nobody leaves by himself, so the drain lasts until it is cancelled.
        let drain = json!({ "mode": "Wait", "batchSize": null, "batchIntervalSeconds": null });
        let mut wanted = spec(2, labelled(space, json!({ "drain": drain })));
        if let Some(drain) = wanted["drain"].as_object_mut() {
            drain.retain(|_, value| !value.is_null());
        }
        let cluster = space.cluster("chat", wanted).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        clients.open_evenly("all", &cluster.urls().await?, "room:lobby", 10, 2).await?;
        let before = cluster.identities().await?;
        let node = node_of(cluster.pods().await?.last().context("a pod")?);
        let emptied = Emptied::of(space, &node).await;
        let said = emptied.drain(space, "7s").await?;
        ensure!(!said.success && said.stderr.contains("being moved"), "{}", said.stderr.trim());
        let status = cluster.status().await?;
        let reasons: Vec<_> = status.drains.iter().map(|drain| drain.reason).collect();
        ensure!(reasons == [DrainReason::Eviction], "{:?}", status.drains);

        emptied.uncordon()?;
        cluster.wait_ready().await?;
        eventually("the request to be forgotten, and the pod to take clients", LONG, async || {
            for pod in cluster.pods().await? {
                let noted = pod.annotations().contains_key(names::EVICTION_REQUESTED_AT);
                let takes = pod.labels().contains_key(names::ACCEPTING_LABEL);
                ensure!(!noted && takes, "{}: noted {noted}, takes {takes}", pod.name_any());
            }
            Ok(())
        })
        .await?;
        let closes = clients.state("all").await?.closes;
        figure!(space, "{node} cordoned and uncordoned: {closes} closes");
        ensure!(closes == 0, "{closes} clients were closed");
        ensure!(cluster.identities().await? == before, "{:?}", cluster.identities().await?);
        Ok(())
    });
}

#[test]
fn kubectl_drain_in_the_middle_of_a_rollout_keeps_every_client() {
    test("kubectl_drain_in_the_middle_of_a_rollout_keeps_every_client", async |space| {
        let drain = json!({ "initialDelaySeconds": 3, "batchSize": 3, "batchIntervalSeconds": 1 });
        let cluster =
            space.cluster("chat", spec(3, labelled(space, json!({ "drain": drain })))).await?;
        cluster.wait_ready().await?;
        let turn = turn().await;
        let roll = Roll::start(&cluster, CLIENTS).await?;
        cluster.change(colour("blue")).await?;
        let mut taken = None;
        roll.until("clients on a new pod", async || {
            let loads = roll.state().await?.by_node;
            taken = loads.into_keys().find(|pod| !roll.old().contains(pod));
            Ok(taken.is_some())
        })
        .await?;
        let taken = taken.context("a pod")?;
        let pod = space.api::<Pod>().get(&taken).await?;
        let emptied = Emptied::in_turn(space, &node_of(&pod), turn);
        let said = roll.during(emptied.drain(space, "180s")).await?;
        ensure!(said.success, "kubectl drain: {}", said.stderr.trim());
        let outcome = roll.finish(3).await?;
        let after = layout(&cluster).await?;
        ensure!(!after.contains_key(&emptied.node), "pods are on it again: {after:?}");
        figure!(
            space,
            "{} with {taken} was emptied; labels of pods changed {:?} times",
            emptied.node,
            outcome.watch.label_changes()
        );
        // Who makes way is drained ahead of the rollout, and its old pods come back as they were: one that has no clients
        // and is not Ready yet then goes without a drain.
        outcome.nothing_was_lost()?;
        outcome.pods_went_empty_or_overdue()?;
        let most = outcome.watch.most_drains_at_a_time();
        ensure!(most == 1, "{most} drains at a time");
        // Once for the rollout. Those of the pods that are evicted are moved once more, some of them to pods that the
        // rollout drains later: two on average is what two such pods of three make at the most.
        let moves = &outcome.report.moves;
        ensure!(moves.mean <= 2.0, "{moves:?}");
        let status = cluster.status().await?;
        ensure!(status.updated_replicas == 3 && status.drains.is_empty(), "{status:?}");
        Ok(())
    });
}

/// The operator's webhook as it was, when this value ends.
struct Unreachable {
    place: Place,
    name: String,
}

impl Unreachable {
    fn port(&self, port: u16) -> Result<()> {
        let path = "/webhooks/0/clientConfig/service/port";
        let patch = json!([{ "op": "replace", "path": path, "value": port }]).to_string();
        let arguments = ["patch", WEBHOOKS, &self.name, "--type=json", "--patch", &patch];
        self.place.kubernetes.kubectl(arguments).map(drop)
    }
}

impl Drop for Unreachable {
    fn drop(&mut self) {
        if let Err(error) = self.port(443) {
            eprintln!("  the webhook {} is still out of reach: {error:#}", self.name);
        }
    }
}

#[test]
fn an_eviction_goes_through_when_the_webhook_is_out_of_reach() {
    test("an_eviction_goes_through_when_the_webhook_is_out_of_reach", async |space| {
        let cluster = space.cluster("chat", spec(3, labelled(space, json!({})))).await?;
        cluster.wait_ready().await?;
        let node = node_of(cluster.pods().await?.last().context("a pod")?);
        let emptied = Emptied::of(space, &node).await;
        let name = space
            .kubectl(&[
                "get",
                WEBHOOKS,
                "-l",
                "app.kubernetes.io/part-of=sluice,app.kubernetes.io/instance=sluice",
                "-o",
                "name",
            ])
            .await?;
        let name = name.trim().rsplit('/').next().unwrap_or_default().to_owned();
        let unreachable = Unreachable { place: space.place.clone(), name };
        unreachable.port(444)?;
        let (outcome, moving) = drained(space, &cluster, 3, &emptied).await?;
        drop(unreachable);
        // SIGTERM drains: those who leave may meet another pod that is evicted next.
        outcome.nothing_was_lost()?;
        let counts = &outcome.report.moves.counts;
        let moved: usize = counts.iter().filter(|(times, _)| *times != "0").map(|(_, n)| n).sum();
        ensure!(moved >= moving, "{moved} of {moving} were moved");
        ensure!(outcome.watch.drains().is_empty(), "no drain was decided");
        Ok(())
    });
}
