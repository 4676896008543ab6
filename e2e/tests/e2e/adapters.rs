//! PubSub by other means: the adapter changed under live clients, and a Redis that is not ours.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Pod, Secret, Service},
};
use kube::api::{DeleteParams, ListParams};
use serde_json::json;
use sluice_crds::{ConditionType, names};

use crate::{
    figure,
    redis::two_pods_chat,
    support::{
        Clients, Cluster, LONG, Space, cluster::ready, colour, eventually, roll::Roll, spec, test,
    },
};

#[test]
fn adapter_changed_under_live_clients() {
    test("adapter_changed_under_live_clients", async |space| {
        // Balancers must have heard of a drain before it closes anyone.
        let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
        let cluster = space.cluster("chat", spec(2, patient)).await?;
        cluster.wait_ready().await?;
        for (adapter, mode) in [("Redis", "Managed"), ("Mesh", "Disabled")] {
            let roll = Roll::start(&cluster, 24).await?;
            figure!(space, "to {adapter}");
            let change = json!({ "pubsub": { "adapter": adapter }, "redis": { "mode": mode } });
            cluster.change(change).await?;
            roll.until("the cluster to be Ready, and all to be back", async || {
                let ready = cluster.condition(ConditionType::Ready).await?;
                Ok(ready.status == "True" && roll.state().await?.joined == 24)
            })
            .await?;
            // From clients on both pods, to all.
            let ids: Vec<String> = (0..4).map(|client| format!("{adapter} {client}")).collect();
            for (client, id) in ids.iter().enumerate() {
                roll.clients().say("clients", client, id).await?;
            }
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            roll.clients().all_receive("clients", &ids).await?;
            let outcome = roll.finish(2).await?;
            // Nodes of different adapters do not hear each other: what is missed is not judged.
            let codes = &outcome.report.close_codes;
            ensure!(codes.keys().all(|code| code == "1012"), "close codes {codes:?}");
            outcome.moved_once_each()?;
            outcome.all_pods_replaced()?;
        }
        Ok(())
    });
}

/// A Redis as somebody else runs it, with a password; its URL, which is in the Secret `bus` too.
pub async fn foreign_redis(space: &Space) -> Result<String> {
    let url = format!("redis://:correct-horse@bus.{}.svc:6379/3", space.name);
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "bus" },
        "stringData": { "url": &url },
    });
    space.apply::<Secret>("bus", secret).await?;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "bus" },
        "spec": { "selector": { "app": "bus" }, "ports": [{ "port": 6379 }] },
    });
    space.apply::<Service>("bus", service).await?;
    let arguments = ["--requirepass", "correct-horse", "--save", "", "--dir", "/tmp"];
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "bus" },
        "spec": {
            "selector": { "matchLabels": { "app": "bus" } },
            "template": {
                "metadata": { "labels": { "app": "bus" } },
                "spec": {
                    "automountServiceAccountToken": false,
                    "terminationGracePeriodSeconds": 1,
                    "securityContext": {
                        "runAsNonRoot": true, "runAsUser": 65532,
                        "seccompProfile": { "type": "RuntimeDefault" },
                    },
                    "containers": [{
                        "name": "redis",
                        "image": space.place.kubernetes.images()?.redis,
                        "imagePullPolicy": "IfNotPresent",
                        "args": arguments,
                        "readinessProbe": { "tcpSocket": { "port": 6379 }, "periodSeconds": 1 },
                        "securityContext": {
                            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] },
                        },
                    }],
                },
            },
        },
    });
    space.apply::<Deployment>("bus", deployment).await?;
    redis_up(space).await?;
    Ok(url)
}

async fn redis_up(space: &Space) -> Result<()> {
    eventually("Redis to be up", LONG, async || {
        let pods = space.api::<Pod>().list(&ListParams::default().labels("app=bus")).await?.items;
        ensure!(pods.iter().any(ready), "{} pods, none ready", pods.len());
        Ok(())
    })
    .await
}

/// While Redis is away: a pod that comes back takes clients, one more does, and a deploy gets to its end.
async fn pods_come_and_go(space: &Space, cluster: &Cluster<'_>) -> Result<()> {
    let all_take_clients = async |what: &str, wanted: usize| {
        eventually(what, LONG, async || {
            let taking = format!("{}=true", names::ACCEPTING_LABEL);
            let taking = ListParams::default().labels(&taking);
            let taking = space.api::<Pod>().list(&taking).await?.items;
            let pods = cluster.pods().await?;
            ensure!(pods.len() == wanted && pods.iter().all(ready), "{} pods", pods.len());
            ensure!(taking.len() == wanted, "{} of {wanted} pods take clients", taking.len());
            Ok(())
        })
        .await
    };
    let pods = cluster.identities().await?;
    let last = pods.keys().next_back().context("two pods")?;
    space.api::<Pod>().delete(last, &DeleteParams::default()).await?;
    eventually("another pod in its place", LONG, async || {
        ensure!(cluster.identities().await? != pods, "it is still the first one");
        Ok(())
    })
    .await?;
    all_take_clients("the pod that came back to take clients", 2).await?;
    cluster.change(json!({ "replicas": 3 })).await?;
    all_take_clients("the pod that was added to take clients", 3).await?;
    let before = cluster.identities().await?;
    cluster.change(colour("blue")).await?;
    eventually("the deploy to replace every pod", LONG, async || {
        let now = cluster.identities().await?;
        ensure!(now.len() == 3 && now.keys().all(|pod| !before.contains_key(pod)), "{now:?}");
        Ok(())
    })
    .await?;
    all_take_clients("the pods of the deploy to take clients", 3).await?;
    figure!(
        space,
        "without Redis: a pod came back, one was added, 3 were replaced; all take clients"
    );
    Ok(())
}

#[test]
fn redis_external_chat_and_redis_lost_then_heals() {
    test("redis_external_chat_and_redis_lost_then_heals", async |space| {
        foreign_redis(space).await?;
        let external =
            json!({ "mode": "External", "urlSecretRef": { "name": "bus", "key": "url" } });
        let redis = json!({ "pubsub": { "adapter": "Redis" }, "redis": external });
        let cluster = space.cluster("chat", spec(2, redis)).await?;
        cluster.wait_ready().await?;
        cluster.wait_for(ConditionType::RedisReady, "True").await?;
        let clients = Clients::start(space).await?;
        two_pods_chat(&clients, &cluster).await?;
        let before = cluster.identities().await?;
        space.kubectl(&["scale", "deployment/bus", "--replicas=0"]).await?;
        let lost = cluster.wait_for(ConditionType::RedisReady, "False").await?;
        figure!(space, "without Redis: {} {}", lost.reason, lost.message);
        clients.say("here", 0, "local").await?;
        clients.all_receive("here", &["local"]).await?;
        space.kubectl(&["scale", "deployment/bus", "--replicas=1"]).await?;
        redis_up(space).await?;
        cluster.wait_for(ConditionType::RedisReady, "True").await?;
        clients.say("there", 0, "again").await?;
        for group in ["here", "there"] {
            clients.all_receive(group, &["again"]).await?;
        }
        let (here, there) = (clients.state("here").await?, clients.state("there").await?);
        ensure!(here.closes + there.closes == 0, "{here:?} {there:?}");
        ensure!(cluster.identities().await? == before, "a node was replaced because of Redis");
        figure!(space, "4 clients through the loss of a foreign Redis, 0 closes");
        space.kubectl(&["scale", "deployment/bus", "--replicas=0"]).await?;
        cluster.wait_for(ConditionType::RedisReady, "False").await?;
        pods_come_and_go(space, &cluster).await?;
        space.kubectl(&["scale", "deployment/bus", "--replicas=1"]).await?;
        redis_up(space).await?;
        cluster.wait_ready().await?;
        // It is not ours: it stays when the cluster goes.
        space.api::<sluice_crds::ChannelCluster>().delete("chat", &DeleteParams::default()).await?;
        eventually("the pods to be gone", LONG, async || {
            let left = cluster.pods().await?.len();
            ensure!(left == 0, "{left} pods are left");
            Ok(())
        })
        .await?;
        space.api::<Secret>().get("bus").await?;
        redis_up(space).await
    });
}
