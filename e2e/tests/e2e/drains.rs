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
    support::{Clients, Cluster, LONG, PodWatch, eventually, roll::Roll, spec, test},
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
fn a_pod_deleted_by_hand_goes_when_the_time_of_its_drain_is_over() {
    let name = "a_pod_deleted_by_hand_goes_when_the_time_of_its_drain_is_over";
    test(name, async |space| {
        let drain = json!({ "mode": "Wait", "timeoutSeconds": 8 });
        let cluster = space.cluster("chat", with_drain(drain)).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        // Half an hour of grace is far more than anything here waits for.
        space.kubectl(&["delete", "pod", "chat-1", "--wait=false"]).await?;
        roll.until("the pod to be back", async || {
            Ok(!roll.watch().deletions().is_empty()
                && cluster.condition(ConditionType::Ready).await?.status == "True")
        })
        .await?;
        let outcome = roll.finish(2).await?;
        outcome.nothing_was_lost()?;
        let codes = &outcome.report.close_codes;
        figure!(space, "closes {codes:?} of a pod that had half an hour of grace");
        ensure!(codes.get("1012") >= Some(&10), "its ten clients are to be moved: {codes:?}");
        ensure!(outcome.watch.deletions().len() == 1, "{:?}", outcome.watch.deletions());
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

#[test]
fn waiting_drain_goes_with_the_few_that_it_may_leave() {
    test("waiting_drain_goes_with_the_few_that_it_may_leave", async |space| {
        let drain = json!({ "mode": "Wait", "exitAtConnections": 2 });
        let cluster = space.cluster("chat", with_drain(drain)).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let pods = cluster.pods().await?;
        for (group, pod) in [("stays", 0), ("leaves", 1), ("lingers", 1)] {
            let count = if group == "lingers" { 2 } else { 5 };
            clients.open(group, &[cluster.pod_url(&pods[pod])?], "room:lobby", count).await?;
        }
        let watch = PodWatch::start(&cluster).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        eventually("the drain to have begun, and to wait", LONG, async || {
            let status = cluster.status().await?;
            let drain = status.drains.first().ok_or_else(|| anyhow::anyhow!("no drain"))?;
            let waits =
                matches!(drain.phase, DrainReportPhase::Waiting | DrainReportPhase::Closing);
            ensure!(waits && drain.remaining_connections == 7, "{drain:?}");
            Ok(())
        })
        .await?;
        let closes = clients.state("leaves").await?.closes + clients.state("lingers").await?.closes;
        ensure!(closes == 0 && watch.deletions().is_empty(), "{closes} {:?}", watch.deletions());
        // Two may be left, and they go with the pod. They know its address only, so that they do not come back.
        clients.close("leaves").await?;
        cluster.wait_ready().await?;
        let ends = watch.deletions();
        ensure!(ends.len() == 1 && ends[0].drained, "{ends:?}");
        let report = clients.report("lingers", 1).await?;
        figure!(space, "5 of 7 left by themselves; then closes {:?}", report.close_codes);
        let told = report.close_codes.get("1012") == Some(&2) && report.close_codes.len() == 1;
        ensure!(told, "{:?}", report.close_codes);
        ensure!(clients.state("stays").await?.closes == 0, "the others noticed nothing");
        Ok(())
    });
}

#[test]
fn clients_have_the_time_to_leave_before_the_first_batch() {
    test("clients_have_the_time_to_leave_before_the_first_batch", async |space| {
        let drain = json!({ "waitSeconds": 8, "batchSize": 5, "batchIntervalSeconds": 1 });
        let cluster = space.cluster("chat", with_drain(drain)).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(json!({ "replicas": 1 })).await?;
        drain_in(&cluster, DrainReportPhase::Waiting).await?;
        let outcome = roll.finish(1).await?;
        outcome.nobody_was_dropped(1)?;
        let moves = &outcome.report.moves.counts;
        ensure!(moves.get("1") == Some(&10) && moves.get("0") == Some(&10), "{moves:?}");
        // The first close is as late as the spec says, by the operator's own note of the drain's begin.
        let began = outcome.watch.sights().into_iter().find(|sight| sight.started.is_some());
        let began = began.and_then(|sight| sight.started).unwrap_or_default();
        let began = began.parse::<jiff::Timestamp>()?.as_millisecond() as f64;
        let closes = outcome.report.closes_by_node.values().flatten().copied();
        let first = closes.fold(f64::INFINITY, f64::min);
        figure!(
            space,
            "the first close came {:.1} s after the drain had begun",
            (first - began) / 1e3
        );
        ensure!(first - began >= 9e3, "1 s of delay and 8 s to leave were promised");
        Ok(())
    });
}
