//! The ways to drain, and what happens when a drain's time is over.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::json;
use sluice_crds::{ConditionType, DrainReportPhase, names};

use crate::{
    chat::open_on_pods,
    figure,
    support::{Clients, Cluster, LONG, PodWatch, eventually, spec, test},
};

/// Waits for a drain in a phase; gives its pod.
async fn drain_in(cluster: &Cluster<'_>, phase: DrainReportPhase) -> Result<String> {
    eventually(&format!("a drain in phase {phase:?}"), LONG, async || {
        let status = cluster.status().await?;
        let found = status.drains.iter().find(|drain| drain.phase == phase);
        let found = found.map(|drain| drain.pod_name.clone());
        found.ok_or_else(|| anyhow::anyhow!("drains: {:?}", status.drains))
    })
    .await
}

fn with_drain(drain: serde_json::Value) -> serde_json::Value {
    let nothing = serde_json::Value::Null;
    let mut all = json!({ "batchSize": nothing, "batchIntervalSeconds": nothing });
    if let (Some(all), Some(drain)) = (all.as_object_mut(), drain.as_object()) {
        all.extend(drain.clone());
    }
    let mut whole = spec(2, json!({}));
    for (key, value) in all.as_object().into_iter().flatten() {
        whole["drain"][key] = value.clone();
    }
    if let Some(drain) = whole["drain"].as_object_mut() {
        drain.retain(|_, value| !value.is_null());
    }
    whole
}

#[test]
fn immediate_drain_moves_all_at_once() {
    test("immediate_drain_moves_all_at_once", async |space| {
        let cluster = space.cluster("chat", with_drain(json!({ "mode": "Immediate" }))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        clients.open_evenly("all", &cluster.urls().await?, "room:lobby", 20, 2).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        cluster.wait_ready().await?;
        let report = clients.report("all", 1).await?;
        figure!(space, "closes {:?}, moves {:?}", report.close_codes, report.moves.counts);
        ensure!(report.joined == 20 && report.close_codes.get("1012") == Some(&10), "{report:?}");
        ensure!(report.close_codes.len() == 1, "{report:?}");
        Ok(())
    });
}

#[test]
fn waiting_drain_closes_nobody_until_all_have_left() {
    test("waiting_drain_closes_nobody_until_all_have_left", async |space| {
        let cluster = space.cluster("chat", with_drain(json!({ "mode": "Wait" }))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let leaving = cluster.pods().await?.pop().map(|pod| pod.name_any()).unwrap_or_default();
        let pods = cluster.pods().await?;
        for (group, pod) in ["stays", "leaves"].iter().zip(&pods) {
            clients.open(group, &[cluster.pod_url(pod)?], "room:lobby", 5).await?;
        }
        cluster.change(json!({ "replicas": 1 })).await?;
        let pod = drain_in(&cluster, DrainReportPhase::Waiting).await;
        let pod = match pod {
            Ok(pod) => pod,
            Err(_) => drain_in(&cluster, DrainReportPhase::Closing).await?,
        };
        ensure!(pod == leaving, "{pod} drains and not {leaving}");
        ensure!(clients.state("leaves").await?.closes == 0, "nobody is closed");
        let remaining = eventually("the drain to tell who is left", LONG, async || {
            let status = cluster.status().await?;
            let drain = status.drains.first().map(|drain| drain.remaining_connections);
            ensure!(drain == Some(5), "{:?}", status.drains);
            Ok(5)
        })
        .await?;
        clients.close("leaves").await?;
        cluster.wait_ready().await?;
        figure!(
            space,
            "{remaining} were left in peace; the pod went when they had left by themselves"
        );
        ensure!(clients.state("stays").await?.closes == 0, "the others noticed nothing");
        Ok(())
    });
}

#[test]
fn time_over_terminate_lets_the_pod_go() {
    test("time_over_terminate_lets_the_pod_go", async |space| {
        let drain = json!({ "mode": "Wait", "timeoutSeconds": 4, "timeoutPolicy": "Terminate" });
        let cluster = space.cluster("chat", with_drain(drain)).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let state = open_on_pods(&clients, &cluster, "all", 2).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        cluster.wait_ready().await?;
        eventually("the clients to be on the pod that is left", LONG, async || {
            let now = clients.state("all").await?;
            ensure!(now.joined == state.joined && now.by_node.len() == 1, "{now:?}");
            Ok(())
        })
        .await?;
        let events =
            space.kubectl(&["get", "events", "--output=jsonpath={.items[*].reason}"]).await?;
        let report = clients.report("all", 1).await?;
        figure!(space, "closes {:?}; events {events}", report.close_codes);
        ensure!(events.contains("DrainTimedOut"), "no warning: {events}");
        ensure!(report.close_codes.keys().all(|code| code == "1012"), "{:?}", report.close_codes);
        Ok(())
    });
}

#[test]
fn time_over_hold_keeps_the_pod_until_somebody_decides() {
    test("time_over_hold_keeps_the_pod_until_somebody_decides", async |space| {
        let drain = json!({ "mode": "Wait", "timeoutSeconds": 4, "timeoutPolicy": "Hold" });
        let cluster = space.cluster("chat", with_drain(drain)).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        open_on_pods(&clients, &cluster, "all", 2).await?;
        let watch = PodWatch::start(&cluster).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        let held = drain_in(&cluster, DrainReportPhase::Held).await?;
        ensure!(watch.deletions().is_empty(), "{:?}", watch.deletions());
        let ready = cluster.condition(ConditionType::Ready).await?;
        ensure!(ready.status == "False" && ready.reason == "DrainHeld", "{ready:?}");
        let annotation =
            json!({ "metadata": { "annotations": { names::DRAIN_OVERRIDE: "release" } } });
        space.api::<Pod>().patch(&held, &PatchParams::default(), &Patch::Merge(annotation)).await?;
        cluster.wait_ready().await?;
        let gone: Vec<String> = watch.deletions().into_iter().map(|pod| pod.name).collect();
        figure!(
            space,
            "{held} was held ({}: {}), then released: {gone:?}",
            ready.reason,
            ready.message
        );
        ensure!(gone == [held], "{gone:?}");
        Ok(())
    });
}
