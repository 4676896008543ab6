//! Several clusters beside each other.

use anyhow::ensure;
use kube::ResourceExt;
use serde_json::json;
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{Clients, eventually, spec, test, wait::LONG},
};

#[test]
fn two_clusters_in_two_namespaces_do_not_meet() {
    test("two_clusters_in_two_namespaces_do_not_meet", async |space| {
        let other = space.second().await?;
        let result = async {
            let here = space.cluster("chat", spec(2, json!({}))).await?;
            let there = other.cluster("chat", spec(2, json!({}))).await?;
            here.wait_ready().await?;
            there.wait_ready().await?;
            let clients = Clients::start(space).await?;
            clients.open("here", &here.urls().await?, "room:lobby", 6).await?;
            clients.open("there", &there.urls().await?, "room:lobby", 6).await?;
            clients.push("here", 0, "msg", json!({ "id": "ours" })).await?;
            clients.all_receive("here", &["ours"]).await?;
            // A message of their own comes after it on every way that "ours" could have taken.
            clients.push("there", 0, "msg", json!({ "id": "theirs" })).await?;
            clients.all_receive("there", &["theirs"]).await?;
            for client in 0..6 {
                let (a, b) = (
                    clients.received("here", client).await?,
                    clients.received("there", client).await?,
                );
                ensure!(a.len() == 1 && b.len() == 1, "they met: {a:?} {b:?}");
            }
            for cluster in [&here, &there] {
                for status in cluster.node_statuses().await? {
                    ensure!(status.peers.len() == 1, "{} sees {:?}", status.node, status.peers);
                }
            }
            ensure!(
                here.token("mesh-token").await? != there.token("mesh-token").await?,
                "one token"
            );
            figure!(space, "12 clients, 4 pods, two worlds");
            Ok(())
        }
        .await;
        other.remove().await?;
        result
    });
}

#[test]
fn broken_object_does_not_starve_others() {
    test("broken_object_does_not_starve_others", async |space| {
        for number in 0..5 {
            let broken = spec(1, json!({ "image": format!("nowhere.invalid/none:{number}") }));
            space.cluster(&format!("broken-{number}"), broken).await?;
        }
        let external = json!({
            "pubsub": { "adapter": "Redis" },
            "redis": { "mode": "External", "urlSecretRef": { "name": "missing", "key": "url" } },
        });
        let lost = space.cluster("lost", spec(1, external)).await?;
        let good = space.cluster("good", spec(1, json!({}))).await?;
        let ready = good.wait_ready().await?;
        let broken = crate::support::Cluster::new(space, "broken-0");
        let told = eventually("the broken one to say so", LONG, async || {
            let stalled = broken.condition(ConditionType::Stalled).await?;
            ensure!(stalled.status == "True" && stalled.reason == "PodStuck", "{stalled:?}");
            Ok(stalled)
        })
        .await?;
        let not_ready = lost.condition(ConditionType::Ready).await?;
        ensure!(not_ready.status != "True", "{not_ready:?}");
        figure!(space, "beside 6 broken ones: {} ready", ready.ready_replicas);
        figure!(space, "broken: {}: {}", told.reason, told.message);
        figure!(space, "lost: {}: {}", not_ready.reason, not_ready.message);

        // Mended, it goes on at once: the stuck pod is replaced without a drain.
        broken.change(json!({ "image": "" })).await?;
        broken.wait_ready().await?;
        let pods: Vec<String> = broken.pods().await?.iter().map(ResourceExt::name_any).collect();
        ensure!(pods.len() == 1, "{pods:?}");
        Ok(())
    });
}
