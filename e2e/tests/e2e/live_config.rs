//! Settings that nodes load while they run.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::{
    figure,
    support::{Clients, Cluster, LONG, eventually, spec, test},
};

async fn hashes(cluster: &Cluster<'_>) -> Result<Vec<String>> {
    Ok(cluster.node_statuses().await?.into_iter().map(|status| status.live_config_hash).collect())
}

#[test]
fn live_config_change_restarts_nothing() {
    test("live_config_change_restarts_nothing", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let pods = cluster.pods().await?;
        let before = cluster.identities().await?;
        let old = hashes(&cluster).await?;
        let mut urls = Vec::new();
        for pod in &pods {
            urls.push(cluster.pod_url(pod)?);
        }
        clients.open("old", &urls, "room:lobby", 4).await?;
        ensure!(clients.try_open("early", &urls, "news:today").await?.joined == 0, "no rule yet");
        clients.close("early").await?;
        let channels = json!([
            { "topic": "room:*", "announceNode": true },
            { "topic": "news:*", "announceNode": true, "events": ["headline"] },
        ]);
        let drain = json!({ "initialDelaySeconds": 2, "batchSize": 7 });
        cluster.change(json!({ "channels": channels, "drain": drain })).await?;
        eventually("the new rules to be in force on both pods", LONG, async || {
            let new = hashes(&cluster).await?;
            ensure!(new.len() == 2 && new[0] == new[1] && !old.contains(&new[0]), "{new:?}");
            Ok(())
        })
        .await?;
        for (group, url) in ["first", "second"].iter().zip(&urls) {
            clients.open(group, std::slice::from_ref(url), "news:today", 1).await?;
            let good = clients.push(group, 0, "headline", json!({ "id": *group })).await?;
            let bad = clients.push(group, 0, "gossip", json!({})).await?;
            ensure!(good.status == "ok" && bad.status == "error", "{good:?} {bad:?}");
        }
        clients.all_receive("first", &["first", "second"]).await?;
        cluster.wait_ready().await?;
        let after = cluster.identities().await?;
        ensure!(before == after, "pods were replaced or restarted: {before:?} → {after:?}");
        let state = clients.state("old").await?;
        ensure!(state.closes == 0 && state.joined == 4, "{state:?}");
        figure!(
            space,
            "new rules on {} pods, none restarted, {} of 4 clients noticed",
            after.len(),
            state.closes
        );
        Ok(())
    });
}
