//! A backend in the cluster that decides: the auction of `examples/backend`, deployed as the example says.

use anyhow::{Result, ensure};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::ConfigMap};
use kube::api::{ListParams, LogParams};
use serde_json::{Value, json};

use crate::{
    figure,
    support::{Clients, Cluster, LONG, Space, eventually, test},
};

const SCRIPT: &str = include_str!("../../../examples/backend/backend.py");
const PODS: &str = "app=auction";

/// Applies an example in the test's namespace.
async fn apply(space: &Space, file: &str) -> Result<()> {
    let yaml = std::fs::read_to_string(space.place.in_repo(file))?;
    let python = space.place.kubernetes.images()?.python;
    let yaml = yaml
        .replace("namespace: default", &format!("namespace: {}", space.name))
        .replace(".default.svc", &format!(".{}.svc", space.name))
        .replace("python:3.13-slim", &python);
    let said = space.try_kubectl(&["apply", "--filename=-"], &yaml).await?;
    ensure!(said.success, "{file}: {}", said.stderr);
    Ok(())
}

/// Runs so many of the backend, and waits until it is so.
async fn scale(space: &Space, replicas: i32) -> Result<()> {
    space.kubectl(&["scale", "deployment/auction", &format!("--replicas={replicas}")]).await?;
    eventually(&format!("{replicas} of the backend"), LONG, async || {
        let ready = space.api::<Deployment>().get("auction").await?.status.unwrap_or_default();
        let pods = pods(space).await?;
        let ready = ready.ready_replicas.unwrap_or(0);
        ensure!(ready == replicas && pods.len() as i32 == replicas, "{ready} ready of {pods:?}");
        Ok(())
    })
    .await
}

async fn pods(space: &Space) -> Result<Vec<String>> {
    let api = space.api::<k8s_openapi::api::core::v1::Pod>();
    let pods = api.list(&ListParams::default().labels(PODS)).await?.items;
    Ok(pods.into_iter().filter_map(|pod| pod.metadata.name).collect())
}

/// What the backend was told of, and has printed.
async fn told(space: &Space) -> Result<Vec<Value>> {
    let api = space.api::<k8s_openapi::api::core::v1::Pod>();
    let mut lines = Vec::new();
    for pod in pods(space).await? {
        let log = api.logs(&pod, &LogParams::default()).await?;
        lines.extend(log.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    Ok(lines)
}

/// Waits until the backend is told of the end of a user's channel, and why.
async fn told_of_leave(space: &Space, user: &str, reason: &str) -> Result<()> {
    eventually(&format!("the backend to be told that {user} has gone"), LONG, async || {
        let told = told(space).await?;
        let left = told
            .iter()
            .any(|leave| leave["reason"] == reason && leave["socket"]["claims"]["sub"] == user);
        ensure!(left, "it is told {told:?}");
        Ok(())
    })
    .await
}

/// A URL of each pod, past the Service, which this example has inside the cluster only.
async fn urls(cluster: &Cluster<'_>) -> Result<Vec<String>> {
    cluster.pods().await?.iter().map(|pod| cluster.pod_url(pod)).collect()
}

fn user(name: &str) -> Value {
    json!({ "user": name })
}

#[test]
fn an_auction_in_a_backend_decides_is_told_and_its_loss_is_for_the_policy() {
    const NAME: &str = "an_auction_in_a_backend_decides_is_told_and_its_loss_is_for_the_policy";
    test(NAME, async |space| {
        let script = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "auction" },
            "data": { "backend.py": SCRIPT },
        });
        space.apply::<ConfigMap>("auction", script).await?;
        apply(space, "examples/webhooks.yaml").await?;
        apply(space, "examples/backend/kubernetes.yaml").await?;
        let cluster = Cluster::new(space, "webhooks");
        cluster.change(json!({ "minReadySeconds": 1 })).await?;
        cluster.wait_ready().await?;
        scale(space, 1).await?;
        let urls = urls(&cluster).await?;
        ensure!(urls.len() == 2, "{urls:?}");
        let clients = Clients::start(space).await?;

        // Who connects, and who joins.
        clients.open_with("anna", &urls[..1], "auction:lamp", 1, user("anna")).await?;
        clients.open_with("bert", &urls[1..], "auction:lamp", 1, user("bert")).await?;
        let lamp = json!({ "user": null, "amount": 10 });
        ensure!(clients.answers("anna").await? == [lamp], "the answer to a join is the backend's");
        let refused = clients.try_open_with("late", &urls, "auction:none", user("cleo")).await?;
        let reason = r#"join refused: {"reason":"no such lot"}"#;
        ensure!(refused.joined == 0 && refused.errors.iter().any(|e| e == reason), "{refused:?}");
        let nobody = clients.try_open_with("nobody", &urls, "auction:lamp", json!({})).await?;
        ensure!(nobody.joined == 0, "{nobody:?}");
        ensure!(nobody.errors.iter().any(|error| error.contains("403")), "{nobody:?}");
        clients.close("nobody").await?;
        clients.close("late").await?;

        // What is said, and what everybody hears of it.
        let bid = async |group: &str, amount: u32| {
            clients.push(group, 0, "bid", json!({ "amount": amount })).await
        };
        let reply = bid("anna", 70).await?;
        ensure!(reply.status == "ok", "{reply:?}");
        let highest = json!({ "event": "highest", "payload": { "user": "anna", "amount": 70 } });
        for group in ["anna", "bert"] {
            eventually(&format!("{group} to hear of the bid"), LONG, async || {
                let heard = clients.received(group, 0).await?;
                ensure!(heard == [highest.clone()], "{heard:?}");
                Ok(())
            })
            .await?;
        }
        let low = bid("bert", 60).await?;
        ensure!(low.status == "error" && low.response["reason"] == "too low", "{low:?}");

        // Who has gone.
        clients.each("anna", "leave").await?;
        told_of_leave(space, "anna", "left").await?;
        clients.open_with("dora", &urls[..1], "auction:chair", 1, user("dora")).await?;
        clients.close("dora").await?;
        told_of_leave(space, "dora", "closed").await?;

        // Without the backend: `onFailure: Deny`.
        scale(space, 0).await?;
        let lost = bid("bert", 80).await?;
        ensure!(lost.status == "error" && lost.response["reason"] == "unavailable", "{lost:?}");
        let stranger = clients.try_open_with("emil", &urls, "auction:lamp", user("emil")).await?;
        ensure!(stranger.joined == 0, "{stranger:?}");
        ensure!(stranger.errors.iter().any(|error| error.contains("403")), "{stranger:?}");
        let bert = clients.state("bert").await?;
        ensure!(bert.joined == 1 && bert.closes == 0, "who is in stays in: {bert:?}");

        // It is back, and so is who was refused, by phoenix.js itself.
        scale(space, 1).await?;
        eventually("a bid to be taken again", LONG, async || {
            let reply = bid("bert", 90).await?;
            ensure!(reply.status == "ok" || reply.response["highest"] == 90, "{reply:?}");
            Ok(())
        })
        .await?;
        eventually("the client that was refused to join", LONG, async || {
            let emil = clients.state("emil").await?;
            ensure!(emil.joined == 1, "{emil:?}");
            Ok(())
        })
        .await?;
        figure!(space, "refused without the backend {lost:?}, joined when it was back");
        Ok(())
    });
}
