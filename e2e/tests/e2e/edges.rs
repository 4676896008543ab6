//! Cases at the edge: changes in the middle of a rollout, a single pod, a node that can't be told or that is restarted.

use anyhow::{Result, ensure};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::ResourceExt;
use serde_json::{Value, json};
use sluice_crds::{ConditionType, names};

use crate::{
    figure,
    support::{
        Clients, Cluster, LONG, PodWatch, colour, eventually, local_test, operator, roll::Roll,
        spec, test,
    },
};

/// Slow enough to be met in the middle.
fn slow() -> Value {
    json!({ "drain": { "batchSize": 2, "batchIntervalSeconds": 1, "initialDelaySeconds": 2 } })
}

async fn moved(roll: &Roll<'_>) -> Result<usize> {
    Ok(roll.state().await?.moved)
}

#[test]
fn another_change_in_the_middle_keeps_the_drain_and_replaces_what_is_outdated() {
    let name = "another_change_in_the_middle_keeps_the_drain_and_replaces_what_is_outdated";
    test(name, async |space| {
        let cluster = space.cluster("chat", spec(3, slow())).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 24).await?;
        cluster.change(colour("blue")).await?;
        roll.until("the first pod to be replaced and the second to drain", async || {
            Ok(!roll.watch().deletions().is_empty() && roll.watch().drains().len() == 2)
        })
        .await?;
        cluster.change(colour("green")).await?;
        let outcome = roll.finish(3).await?;
        outcome.nobody_was_dropped(1)?;
        outcome.all_pods_replaced()?;
        let drains = outcome.watch.drains();
        let between: Vec<&String> =
            drains.keys().filter(|pod| !outcome.old.contains(*pod)).collect();
        figure!(space, "drained twice as often, for there were two changes: {between:?}");
        ensure!(!between.is_empty(), "who came in between is drained again: {drains:?}");
        outcome.drained_once_each()?;
        ensure!(cluster.status().await?.updated_replicas == 3, "all are green");
        Ok(())
    });
}

#[test]
fn scale_down_in_a_rollout_updates_no_pod_just_to_remove_it() {
    test("scale_down_in_a_rollout_updates_no_pod_just_to_remove_it", async |space| {
        let cluster = space.cluster("chat", spec(4, slow())).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 24).await?;
        cluster.change(colour("blue")).await?;
        roll.until("the first clients to be moved", async || Ok(moved(&roll).await? > 0)).await?;
        cluster.change(json!({ "replicas": 2 })).await?;
        let outcome = roll.finish(2).await?;
        outcome.nobody_was_dropped(1)?;
        outcome.all_pods_replaced()?;
        let made: Vec<String> =
            outcome.watch.names().into_iter().filter(|pod| !outcome.old.contains(pod)).collect();
        figure!(space, "made {made:?}, left {:?}", outcome.new);
        ensure!(outcome.new.iter().eq(&made), "a pod was made and removed again");
        ensure!(made.len() == 2, "{made:?}");
        Ok(())
    });
}

#[test]
fn a_single_pod_is_replaced_without_a_gap_and_drains_before_there_is_none() {
    let name = "a_single_pod_is_replaced_without_a_gap_and_drains_before_there_is_none";
    test(name, async |space| {
        let cluster = space.cluster("chat", spec(1, json!({}))).await?;
        cluster.wait_ready().await?;
        let budget = space.api::<PodDisruptionBudget>().get_opt("chat").await?;
        ensure!(budget.is_none(), "a budget for one pod would hold up every kubectl drain");
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(colour("blue")).await?;
        let mut looks = 0;
        roll.until("the deploy to be done", async || {
            let Ok(status) = cluster.status().await else { return Ok(false) };
            let is = |type_: &str, is: &str| {
                status.conditions.iter().any(|c| c.type_ == type_ && c.status == is)
            };
            looks += 1;
            assert!(is("Available", "True"), "a gap: {:?}", status.conditions);
            Ok(is("Ready", "True"))
        })
        .await?;
        let outcome = roll.finish(1).await?;
        outcome.all_replaced_once()?;
        figure!(space, "available at each of {looks} looks");

        let clients = Clients::start(space).await?;
        clients.open("last", &cluster.urls().await?, "room:lobby", 10).await?;
        let watch = PodWatch::start(&cluster).await?;
        cluster.change(json!({ "replicas": 0 })).await?;
        eventually("no pod to be left", LONG, async || {
            ensure!(cluster.pods().await?.is_empty(), "there is one");
            Ok(())
        })
        .await?;
        let report = clients.report("last", 1).await?;
        let drained: Vec<bool> = watch.deletions().iter().map(|pod| pod.drained).collect();
        figure!(space, "to none: closes {:?}, drained {drained:?}", report.close_codes);
        ensure!(drained == [true], "{drained:?}");
        ensure!(report.close_codes.get("1012") == Some(&10), "{:?}", report.close_codes);
        ensure!(report.close_codes.len() == 1, "{:?}", report.close_codes);
        cluster.wait_for(ConditionType::Ready, "True").await.map(drop)
    });
}

/// The reasons of the events about the cluster.
async fn told(cluster: &Cluster<'_>) -> Result<String> {
    let reasons = "--output=jsonpath={.items[*].reason}";
    cluster.space.kubectl(&["get", "events", reasons]).await
}

#[test]
fn a_node_that_cannot_be_told_to_drain_goes_when_its_time_is_over() {
    local_test("a_node_that_cannot_be_told_to_drain_goes_when_its_time_is_over", async |space| {
        let short = json!({ "drain": { "timeoutSeconds": 12 } });
        let cluster = space.cluster("chat", spec(2, short)).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        let node =
            space.place.kubernetes.container(&space.name, "chat-1", names::NODE_CONTAINER)?;
        let cut = operator::cut_off_from(&space.place, &node, names::ADMIN_PORT).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        roll.until("the warning", async || {
            Ok(told(&cluster).await?.contains("DrainEndpointUnreachable"))
        })
        .await?;
        let ready = cluster.condition(ConditionType::Ready).await?;
        let early = moved(&roll).await?;
        let outcome = roll.finish(1).await?;
        drop(cut);
        figure!(space, "{early} moved when it was told: {}: {}", ready.reason, ready.message);
        outcome.nothing_was_lost()?;
        ensure!(early == 0, "it was told to drain");
        let ends = outcome.watch.deletions();
        ensure!(ends.len() == 1 && ends[0].name == "chat-1", "{ends:?}");
        let overdue = ends[0].deadline.is_some_and(|deadline| deadline <= ends[0].at + 1e3);
        ensure!(overdue, "it went before its time was over: {ends:?}");
        let moves = &outcome.report.moves.counts;
        ensure!(moves.get("1") == Some(&10), "its own 10 clients were moved: {moves:?}");
        Ok(())
    });
}

#[test]
fn a_container_that_restarts_while_it_drains_is_drained_once() {
    local_test("a_container_that_restarts_while_it_drains_is_drained_once", async |space| {
        let cluster = space.cluster("chat", spec(2, slow())).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        roll.until("the first clients to be moved", async || Ok(moved(&roll).await? > 0)).await?;
        let node =
            space.place.kubernetes.container(&space.name, "chat-1", names::NODE_CONTAINER)?;
        node.kill()?;
        let outcome = roll.finish(1).await?;
        let report = &outcome.report;
        figure!(space, "closes {:?}, moves {:?}", report.close_codes, report.moves.counts);
        ensure!(report.joined == report.clients, "{report:?}");
        ensure!(
            report.close_codes.keys().all(|code| code == "1012" || code == "1006"),
            "{report:?}"
        );
        let moves = &report.moves.counts;
        ensure!(moves.get("1") == Some(&10) && moves.get("0") == Some(&10), "{moves:?}");
        let (drains, ends) = (outcome.watch.drains(), outcome.watch.deletions());
        ensure!(drains.get("chat-1") == Some(&1), "it is one drain: {drains:?}");
        // Drained again, or let go before that: it is not Ready, and has no clients any more.
        ensure!(ends.len() == 1 && (ends[0].drained || !ends[0].ready), "{ends:?}");
        let left: Vec<String> = cluster.pods().await?.iter().map(ResourceExt::name_any).collect();
        ensure!(left == ["chat-0"], "{left:?}");
        Ok(())
    });
}

#[test]
fn a_pod_deleted_in_the_middle_of_its_drain_moves_each_client_once() {
    test("a_pod_deleted_in_the_middle_of_its_drain_moves_each_client_once", async |space| {
        let slow = json!({ "initialDelaySeconds": 3, "batchSize": 2, "batchIntervalSeconds": 1 });
        let cluster = space.cluster("chat", spec(3, json!({ "drain": slow }))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(colour("blue")).await?;
        roll.until("the first clients to be moved", async || Ok(moved(&roll).await? > 0)).await?;
        let drains = roll.watch().drains();
        ensure!(drains.len() == 1, "{drains:?}");
        for pod in drains.keys() {
            space.kubectl(&["delete", "pod", pod, "--wait=false"]).await?;
        }
        let outcome = roll.finish(3).await?;
        outcome.nothing_was_lost()?;
        outcome.moved_once_each()?;
        outcome.closed_one_after_the_other()?;
        outcome.all_pods_replaced()?;
        let ends = outcome.watch.deletions();
        let end = ends.iter().find(|end| drains.contains_key(&end.name));
        let left = end.map_or(0, |end| outcome.closes_after(end));
        figure!(space, "{drains:?} deleted by hand with {left} of 10 clients left");
        ensure!(left > 0, "it was deleted when its drain was over: {ends:?}");
        let status = cluster.status().await?;
        ensure!(status.drains.is_empty() && status.rollout.is_none(), "{status:?}");
        Ok(())
    });
}
