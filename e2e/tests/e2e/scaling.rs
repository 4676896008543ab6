//! Growing and shrinking, by the spec and by `kubectl scale`.

use anyhow::ensure;
use kube::ResourceExt;
use serde_json::json;
use sluice_crds::{ConditionType, names};
use sluice_node_api::admin::DrainPhase;

use crate::{
    figure,
    support::{LONG, eventually, roll::Roll, spec, test},
};

#[test]
fn scale_3_5_2() {
    test("scale_3_5_2", async |space| {
        let cluster = space.cluster("chat", spec(3, json!({}))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(json!({ "replicas": 5 })).await?;
        roll.until("five pods", async || {
            let status = cluster.status().await?;
            let ready = cluster.condition(ConditionType::Ready).await?;
            Ok(status.ready_replicas == 5 && ready.status == "True")
        })
        .await?;
        let state = roll.state().await?;
        figure!(space, "at five pods {} closes, clients on {:?}", state.closes, state.by_node);
        ensure!(state.closes == 0, "growing moves nobody");
        cluster.change(json!({ "replicas": 2 })).await?;
        let outcome = roll.finish(2).await?;
        outcome.nobody_was_dropped(1)?;
        ensure!(outcome.new.len() == 2 && outcome.new.is_subset(&outcome.old), "{:?}", outcome.new);
        // Who was on the two pods that stay has not been touched; the others moved once.
        let moves = &outcome.report.moves;
        ensure!(moves.counts.keys().all(|count| count == "0" || count == "1"), "{moves:?}");
        Ok(())
    });
}

#[test]
fn scale_4_3_4_undoes_the_drain_and_keeps_every_pod() {
    test("scale_4_3_4_undoes_the_drain_and_keeps_every_pod", async |space| {
        // One client in two seconds: slow enough to be met in the middle.
        let drain = json!({ "drain": { "batchSize": 1, "batchIntervalSeconds": 2 } });
        let cluster = space.cluster("chat", spec(4, drain)).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        let roll = Roll::start(&cluster, 24).await?;
        cluster.change(json!({ "replicas": 3 })).await?;
        roll.until("a client to be moved", async || Ok(roll.state().await?.moved > 0)).await?;
        cluster.change(json!({ "replicas": 4 })).await?;
        roll.until("the drain to be undone", async || {
            let nodes = cluster.node_statuses().await?;
            let serving = nodes.iter().filter(|node| node.drain.phase == DrainPhase::None).count();
            Ok(serving == 4 && cluster.status().await?.drains.is_empty())
        })
        .await?;
        let outcome = roll.finish(4).await?;
        outcome.nobody_was_dropped(1)?;
        ensure!(cluster.identities().await? == before, "no pod was to be replaced");
        for pod in cluster.pods().await? {
            ensure!(!pod.annotations().contains_key(names::DRAIN_STARTED_AT), "{pod:?}");
        }
        let moves = &outcome.report.moves;
        let moved = moves.counts.get("1").copied().unwrap_or_default();
        figure!(space, "{moved} of 24 clients had been moved, and four pods stayed");
        ensure!(moves.counts.keys().all(|count| count == "0" || count == "1"), "{moves:?}");
        ensure!(moved < 6, "the drain went on to its end");
        Ok(())
    });
}

#[test]
fn kubectl_scale_works_on_the_scale_subresource() {
    test("kubectl_scale_works_on_the_scale_subresource", async |space| {
        let cluster = space.cluster("chat", spec(1, json!({}))).await?;
        cluster.wait_ready().await?;
        let status = cluster.status().await?;
        ensure!(!status.selector.is_empty(), "an autoscaler needs status.selector");
        let selected = space
            .kubectl(&["get", "pods", "--output=name", "--selector", &status.selector])
            .await?;
        ensure!(selected.lines().count() == 1, "the selector finds {selected}");
        space.kubectl(&["scale", "channelcluster/chat", "--replicas=3"]).await?;
        cluster.wait_ready().await?;
        ensure!(cluster.pods().await?.len() == 3, "three pods");
        space.kubectl(&["scale", "chc/chat", "--replicas=0"]).await?;
        eventually("no pod to be left", LONG, async || {
            ensure!(cluster.pods().await?.is_empty(), "there are some");
            Ok(())
        })
        .await?;
        space.kubectl(&["scale", "chc/chat", "--replicas=1"]).await?;
        let status = cluster.wait_ready().await?;
        figure!(space, "1 → 3 → 0 → 1, at the end {} ready", status.ready_replicas);
        Ok(())
    });
}
