//! The Secret with a cluster's tokens, deleted under live clients.

use std::time::Instant;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Secret;
use kube::api::DeleteParams;
use serde_json::json;
use sluice_crds::{ConditionType, names};

use crate::{
    figure,
    support::{Cluster, cluster::http, colour, roll::Roll, spec, test},
};

const REPLICAS: i32 = 3;

/// Whether every node takes the admin token that is in the Secret now, and is linked with each of
/// the others in both directions.
async fn whole(cluster: &Cluster<'_>) -> Result<bool> {
    let nodes = cluster.node_statuses().await?;
    let others = REPLICAS as usize - 1;
    let linked = |peers: &[sluice_node_api::admin::PeerStatus]| {
        peers.iter().filter(|peer| peer.inbound && peer.outbound).count() == others
    };
    Ok(nodes.len() == REPLICAS as usize && nodes.iter().all(|node| linked(&node.peers)))
}

#[test]
fn tokens_deleted_under_live_clients() {
    test("tokens_deleted_under_live_clients", async |space| {
        // Balancers must have heard of a drain before it closes anyone.
        let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
        let cluster = space.cluster("chat", spec(REPLICAS, patient)).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        let old = cluster.token(names::PUBLISH_TOKEN).await?;
        let secrets = space.api::<Secret>();
        let roll = Roll::start(&cluster, 30).await?;
        let began = Instant::now();
        secrets.delete(&names::tokens_secret("chat"), &DeleteParams::default()).await?;
        roll.until("other tokens", async || Ok(cluster.token(names::PUBLISH_TOKEN).await? != old))
            .await?;
        let made = began.elapsed();
        roll.until("all nodes to take them, and to be linked", async || whole(&cluster).await)
            .await?;
        figure!(
            space,
            "another Secret after {:.1} s, its tokens in force on all nodes {:.1} s later",
            made.as_secs_f64(),
            (began.elapsed() - made).as_secs_f64()
        );
        roll.until("the operator to see that", async || {
            Ok(cluster.condition(ConditionType::ClusterFormed).await?.status == "True")
        })
        .await?;
        let new = cluster.token(names::PUBLISH_TOKEN).await?;
        let url = cluster.publish_urls().await?.remove(0);
        let sent = [("new", new, 202), ("old", old, 202), ("wrong", "wrong".to_owned(), 401)];
        for (id, token, status) in sent {
            let body = json!({ "topic": "room:lobby", "event": "msg", "payload": { "id": id } });
            let answer = http()?.post(&url).bearer_auth(token).json(&body).send().await?.status();
            ensure!(answer.as_u16() == status, "published with a token: {answer}, not {status}");
        }
        roll.clients().all_receive("clients", &["new", "old"]).await?;
        ensure!(cluster.identities().await? == before, "a pod was replaced");
        let state = roll.state().await?;
        figure!(space, "{} of 30 clients closed", state.closes);
        ensure!(state.closes == 0 && state.joined == 30, "{state:?}");
        roll.finish(REPLICAS as usize).await?.nothing_was_lost()?;

        // A deploy brings pods that know nothing but the new tokens.
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(colour("blue")).await?;
        let outcome = roll.finish(REPLICAS as usize).await?;
        outcome.all_replaced_once()
    });
}
