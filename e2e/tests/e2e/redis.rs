//! PubSub by a Redis that the operator runs, and its loss.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{Pod, ResourceQuota, Secret},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::json;
use sluice_crds::{ConditionType, names};

use crate::{
    figure,
    support::{Clients, Cluster, LONG, Space, colour, eventually, spec, test},
};

/// Two clients on each of two pods, in groups `here` and `there`: what is said on one pod is heard on both.
pub async fn two_pods_chat(clients: &Clients, cluster: &Cluster<'_>) -> Result<()> {
    for (group, pod) in ["here", "there"].into_iter().zip(&cluster.pods().await?) {
        clients.open(group, &[cluster.pod_url(pod)?], "room:lobby", 2).await?;
    }
    clients.say("here", 0, "one").await?;
    clients.say("there", 0, "two").await?;
    for group in ["here", "there"] {
        clients.all_receive(group, &["one", "two"]).await?;
    }
    Ok(())
}

/// Clients that long-poll.
const POLLING: usize = 8;

/// They chat with those of [`two_pods_chat`] through the Service, which leads their requests to either pod; how many are
/// on which.
async fn any_pod_takes_their_requests(
    clients: &Clients,
    cluster: &Cluster<'_>,
) -> Result<BTreeMap<String, usize>> {
    let urls = cluster.urls().await?;
    let opened = clients.open_polling("polling", &urls, "room:lobby", POLLING).await?;
    for client in 0..POLLING {
        clients.say("polling", client, &format!("polled {client}")).await?;
    }
    let all: Vec<String> = (0..POLLING).map(|client| format!("polled {client}")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    for group in ["here", "there", "polling"] {
        clients.all_receive(group, &all).await?;
    }
    let state = clients.state("polling").await?;
    ensure!(state.closes == 0 && state.joined == POLLING, "{state:?}");
    Ok(opened.by_node)
}

#[test]
fn redis_that_can_not_start_comes_back_when_its_image_is_mended() {
    test("redis_that_can_not_start_comes_back_when_its_image_is_mended", async |space| {
        let image = |name: &str| json!({ "redis": { "managed": { "image": name } } });
        let redis = json!({
            "pubsub": { "adapter": "Redis" },
            "redis": { "mode": "Managed", "managed": { "image": "localhost/sluice/no-such-redis:1" } },
        });
        let cluster = space.cluster("chat", spec(1, redis)).await?;
        let stalled = cluster.wait_for(ConditionType::Stalled, "True").await?;
        figure!(space, "{}: {}", stalled.reason, stalled.message);
        ensure!(stalled.message.contains("chat-redis-0"), "{stalled:?}");
        cluster.change(image(&space.place.kubernetes.images()?.redis)).await?;
        cluster.wait_for(ConditionType::RedisReady, "True").await?;
        cluster.wait_for(ConditionType::Stalled, "False").await?;
        cluster.wait_ready().await?;

        // By hand it would never start anew.
        let by_hand = json!({ "spec": {
            "updateStrategy": { "type": "OnDelete", "rollingUpdate": null },
        } });
        let name = names::redis(&cluster.name);
        let sets = space.api::<StatefulSet>();
        sets.patch(&name, &PatchParams::default(), &Patch::Merge(by_hand)).await?;

        // Another password: Redis takes it, and the nodes find their way back.
        let secrets = space.api::<Secret>();
        starts_anew(&cluster, &name, async || {
            secrets.delete(&name, &DeleteParams::default()).await?;
            Ok(())
        })
        .await?;

        // One that somebody puts in, of letters that mean something in URLs and in Redis' own file.
        let password = json!({ "stringData": { "password": "p@ss w/\"rd" } });
        starts_anew(&cluster, &name, async || {
            secrets.patch(&name, &PatchParams::default(), &Patch::Merge(password)).await?;
            Ok(())
        })
        .await?;
        cluster.change(colour("blue")).await?;
        cluster.wait_ready().await?;
        nothing_of_others_stays(space, &name).await?;
        cluster.wait_for(ConditionType::RedisReady, "True").await?;
        Ok(())
    });
}

/// A change of its Secret replaces the managed Redis by one that takes the new password, as nodes do.
async fn starts_anew(
    cluster: &Cluster<'_>,
    name: &str,
    change: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let pods = cluster.space.api::<Pod>();
    let before = pods.get(&format!("{name}-0")).await?;
    change().await?;
    eventually("another Redis, by the new password", LONG, async || {
        let now = pods.get(&format!("{name}-0")).await?;
        ensure!(now.metadata.uid != before.metadata.uid, "it is still the one before");
        Ok(())
    })
    .await?;
    cluster.wait_for(ConditionType::RedisReady, "True").await?;
    Ok(())
}

/// What somebody puts into the pod template of the managed Redis is taken out again.
async fn nothing_of_others_stays(space: &Space, name: &str) -> Result<()> {
    let added = json!({ "spec": { "template": {
        "metadata": { "labels": { "team": "blue" } }, "spec": { "hostPID": true },
    } } });
    let params = PatchParams::default();
    space.api::<StatefulSet>().patch(name, &params, &Patch::Strategic(added)).await?;
    eventually("the pod of Redis to be without label and hostPID", LONG, async || {
        let template =
            space.api::<StatefulSet>().get(name).await?.spec.context("no spec")?.template;
        let labels = template.metadata.and_then(|metadata| metadata.labels).unwrap_or_default();
        ensure!(!labels.contains_key("team"), "{labels:?}");
        ensure!(template.spec.is_some_and(|spec| spec.host_pid.is_none()), "hostPID is there");
        let pod = space.api::<Pod>().get(&format!("{name}-0")).await?;
        ensure!(!pod.labels().contains_key("team"), "{:?}", pod.labels());
        Ok(())
    })
    .await
}

#[test]
fn redis_managed_chat_and_redis_killed_then_heals() {
    test("redis_managed_chat_and_redis_killed_then_heals", async |space| {
        let redis = json!({ "pubsub": { "adapter": "Redis" }, "redis": { "mode": "Managed" } });
        let cluster = space.cluster("chat", spec(2, redis)).await?;
        cluster.wait_ready().await?;
        cluster.wait_for(ConditionType::RedisReady, "True").await?;
        let clients = Clients::start(space).await?;
        two_pods_chat(&clients, &cluster).await?;
        let polling = any_pod_takes_their_requests(&clients, &cluster).await?;
        figure!(space, "{polling:?} clients long-poll through the Service, 0 closes");
        let before = cluster.identities().await?;

        // A quota keeps the controller from making another Redis at once.
        let quota = json!({
            "apiVersion": "v1", "kind": "ResourceQuota", "metadata": { "name": "no-more" }, "spec": { "hard": { "pods": "2" } },
        });
        space.apply::<ResourceQuota>("no-more", quota).await?;
        eventually("the quota to count", LONG, async || {
            let status =
                space.api::<ResourceQuota>().get("no-more").await?.status.unwrap_or_default();
            let used: BTreeMap<String, Quantity> = status.used.unwrap_or_default();
            ensure!(used.contains_key("pods"), "{used:?}");
            Ok(())
        })
        .await?;
        let name = names::redis(&cluster.name);
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        space.api::<Pod>().delete(&format!("{name}-0"), &now).await?;
        let lost = cluster.wait_for(ConditionType::RedisReady, "False").await?;
        figure!(space, "without Redis: {} {}", lost.reason, lost.message);
        clients.say("here", 0, "local").await?;
        clients.all_receive("here", &["local"]).await?;

        space.api::<ResourceQuota>().delete("no-more", &DeleteParams::default()).await?;
        // The controller waits longer after each refusal; a change of its object wakes it.
        let wake = Patch::Merge(json!({ "metadata": { "annotations": { "e2e/wake": "now" } } }));
        space.api::<StatefulSet>().patch(&name, &PatchParams::default(), &wake).await?;
        cluster.wait_for(ConditionType::RedisReady, "True").await?;
        clients.say("there", 0, "again").await?;
        for group in ["here", "there"] {
            clients.all_receive(group, &["again"]).await?;
        }
        // A session that was lost may learn so only now that its node can be asked: it joins anew.
        let mut tries = 0;
        eventually("all who long-poll to hear the same", LONG, async || {
            tries += 1;
            clients.say("there", 0, &format!("try {tries}")).await?;
            let mut tried: Vec<String> = (1..=tries).map(|n| format!("try {n}")).collect();
            for client in 0..POLLING {
                let heard = clients.received("polling", client).await?;
                tried.retain(|id| heard.iter().any(|message| message["payload"]["id"] == **id));
            }
            ensure!(!tried.is_empty(), "none of {tries} messages");
            Ok(())
        })
        .await?;
        ensure!(cluster.identities().await? == before, "nodes are not replaced because of Redis");
        let (here, there) = (clients.state("here").await?, clients.state("there").await?);
        ensure!(here.closes + there.closes == 0, "{here:?} {there:?}");
        let heard = clients.received("there", 0).await?.len();
        let said = 4 + POLLING + tries;
        figure!(
            space,
            "nobody was dropped; the other pod's clients heard {heard} of {said} messages"
        );
        let closes = clients.state("polling").await?.closes;
        figure!(
            space,
            "of {POLLING} that long-poll {closes} lost their session while Redis was away"
        );
        let owned = space.api::<StatefulSet>().get(&name).await?;
        ensure!(owned.owner_references().len() == 1, "Redis belongs to its cluster");
        Ok(())
    });
}
