//! Talking: across pods, from outside, and through the loss of a pod.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{ResourceExt, api::DeleteParams};
use serde_json::json;
use sluice_crds::{ConditionType, names};

use crate::{
    figure,
    support::{Clients, Cluster, LONG, clients::State, cluster::http, eventually, spec, test},
};

const TOPIC: &str = "room:lobby";

/// Opens clients until they are on as many pods as wanted.
pub async fn open_on_pods(
    clients: &Clients,
    cluster: &Cluster<'_>,
    group: &str,
    pods: usize,
) -> Result<State> {
    let urls = cluster.urls().await?;
    for _ in 0..40 {
        let state = clients.open(group, &urls, TOPIC, pods).await?;
        if state.by_node.len() >= pods {
            return Ok(state);
        }
        // A pod that has just begun to take clients is not known to every balancer yet.
        tokio::time::sleep(std::time::Duration::from_millis(250)).await;
    }
    let state = clients.state(group).await?;
    anyhow::bail!("no client on some of {pods} pods: {:?}", state.by_node)
}

#[test]
fn two_clients_on_different_pods_chat_both_ways() {
    test("two_clients_on_different_pods_chat_both_ways", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        // Straight to the pods, so that each client is where it is meant to be.
        let pods = cluster.pods().await?;
        for (group, pod) in ["here", "there"].into_iter().zip(&pods) {
            let state = clients.open(group, &[cluster.pod_url(pod)?], TOPIC, 1).await?;
            ensure!(state.by_node.contains_key(&pod.name_any()), "on {:?}", state.by_node);
        }
        for (from, to, id) in [("here", "there", "hello"), ("there", "here", "hello yourself")] {
            clients.say(from, 0, id).await?;
            clients.all_receive(to, &[id]).await?;
            clients.all_receive(from, &[id]).await?;
        }
        let received = clients.received("there", 0).await?;
        figure!(space, "{} and {}: {received:?}", pods[0].name_any(), pods[1].name_any());
        ensure!(received.len() == 2, "each message once");
        Ok(())
    });
}

#[test]
fn publish_over_http_reaches_all() {
    test("publish_over_http_reaches_all", async |space| {
        let cluster = space.cluster("chat", spec(3, json!({}))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let state = open_on_pods(&clients, &cluster, "all", 3).await?;
        let token = cluster.token(names::PUBLISH_TOKEN).await?;
        let urls = eventually("all pods to be behind the publish Service", LONG, async || {
            let urls = cluster.publish_service_urls().await?;
            ensure!(urls.len() == 3, "{urls:?}");
            Ok(urls)
        })
        .await?;
        let mut ids = Vec::new();
        for (number, url) in urls.iter().enumerate() {
            let id = format!("news-{number}");
            let body = json!({ "topic": TOPIC, "event": "news", "payload": { "id": id } });
            let request = http()?.post(url).bearer_auth(&token).json(&body);
            request.send().await?.error_for_status().context("publishing")?;
            ids.push(id);
        }
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        clients.all_receive("all", &ids).await?;
        let received = clients.received("all", 0).await?;
        ensure!(received.len() == 3 && received[0]["event"] == "news", "{received:?}");
        figure!(
            space,
            "{} messages by {} pods to clients on {:?}",
            ids.len(),
            urls.len(),
            state.by_node
        );
        Ok(())
    });
}

#[test]
fn three_pods_each_see_two_peers() {
    test("three_pods_each_see_two_peers", async |space| {
        let cluster = space.cluster("chat", spec(3, json!({}))).await?;
        cluster.wait_ready().await?;
        let formed = cluster.wait_for(ConditionType::ClusterFormed, "True").await?;
        for status in cluster.node_statuses().await? {
            let linked = status.peers.iter().filter(|peer| peer.inbound && peer.outbound);
            let peers: Vec<&str> = linked.map(|peer| peer.name.as_str()).collect();
            figure!(space, "{} is linked with {peers:?}", status.node);
            ensure!(peers.len() == 2, "{} sees {:?}", status.node, status.peers);
        }
        figure!(space, "ClusterFormed: {}", formed.message);
        Ok(())
    });
}

#[test]
fn pod_deleted_clients_return_and_cluster_is_whole() {
    test("pod_deleted_clients_return_and_cluster_is_whole", async |space| {
        let cluster = space.cluster("chat", spec(3, json!({}))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let state = open_on_pods(&clients, &cluster, "all", 3).await?;
        let victim = cluster.pods().await?.swap_remove(1);
        let (name, uid) = (victim.name_any(), victim.uid());
        space.api::<Pod>().delete(&name, &DeleteParams::default()).await?;
        eventually("the clients to be back on pods that are there", LONG, async || {
            let now = clients.state("all").await?;
            ensure!(now.joined == state.joined && now.moved >= state.by_node[&name], "{now:?}");
            Ok(())
        })
        .await?;
        eventually("another pod in its place", LONG, async || {
            let pods = cluster.pods().await?;
            ensure!(pods.iter().any(|pod| pod.name_any() == name && pod.uid() != uid), "not yet");
            Ok(())
        })
        .await?;
        cluster.wait_ready().await?;
        cluster.wait_for(ConditionType::ClusterFormed, "True").await?;
        clients.say("all", 0, "back").await?;
        clients.all_receive("all", &["back"]).await?;
        let report = clients.report("all", 3).await?;
        figure!(
            space,
            "{} of {} clients were on {name}; closes {:?}, moves {:?}, away p50 {} / max {} ms",
            state.by_node[&name],
            state.joined,
            report.close_codes,
            report.moves.counts,
            report.away.p50,
            report.away.max
        );
        ensure!(report.close_codes.keys().all(|code| code == "1012"), "{:?}", report.close_codes);
        Ok(())
    });
}
