//! What a person and their tools see of a deploy: `kubectl wait`, kstatus' rules, `kubectl get` and `kubectl describe`.

use anyhow::{Context, Result, ensure};
use kube::api::PostParams;
use serde_json::{Value, json};
use sluice_crds::{ChannelCluster, ConditionType};

use crate::{
    figure,
    support::{Cluster, Space, colour, eventually, roll::Roll, spec, test, wait::SHORT},
};

/// What kstatus, and with it Flux, Argo CD and `kpt live`, makes of an object with conditions: its own rules, in its order.
fn kstatus(object: &Value) -> &'static str {
    let status = &object["status"];
    let is = |type_: &str| {
        let conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.into_iter().find(|c| c["type"] == type_).map(|c| c["status"].clone())
    };
    let observed = &status["observedGeneration"];
    if !observed.is_null() && *observed != object["metadata"]["generation"] {
        return "InProgress";
    }
    if is("Reconciling").is_some_and(|status| status == "True") {
        return "InProgress";
    }
    if is("Stalled").is_some_and(|status| status == "True") {
        return "Failed";
    }
    match is("Ready") {
        Some(status) if status == "True" => "Current",
        Some(_) => "InProgress",
        None => "Current",
    }
}

/// The object as kstatus sees it, with what it says of itself.
async fn look(cluster: &Cluster<'_>) -> Result<(&'static str, i32)> {
    let object = cluster.get().await?;
    let updated = object.status.as_ref().map_or(0, |status| status.updated_replicas);
    Ok((kstatus(&serde_json::to_value(object)?), updated))
}

/// Runs `kubectl wait` while the clients go on.
async fn wait(space: &Space, roll: &Roll<'_>, arguments: &[&str]) -> Result<()> {
    let all = [&["wait", "channelcluster/chat", "--timeout=170s"], arguments].concat();
    roll.during(space.kubectl(&all)).await.map(drop)
}

#[test]
fn kubectl_wait_and_kstatus_tell_when_a_deploy_is_done() {
    test("kubectl_wait_and_kstatus_tell_when_a_deploy_is_done", async |space| {
        // Balancers must have heard of a drain before it closes anyone, or some are moved twice.
        let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
        let cluster = space.cluster("chat", spec(2, patient)).await?;
        // As whoever has just made it is answered, before anybody has looked at it.
        let new: ChannelCluster = serde_json::from_value(json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "ChannelCluster",
            "metadata": { "name": "new" },
            "spec": { "replicas": 0 },
        }))?;
        let made = space.api().create(&PostParams::default(), &new).await?;
        let made = serde_json::to_value(made)?;
        ensure!(kstatus(&made) == "InProgress", "done before anybody has seen it: {made}");
        space.kubectl(&["wait", "chc/chat", "--for=condition=Ready", "--timeout=170s"]).await?;
        let roll = Roll::start(&cluster, 20).await?;
        let before = cluster.status().await?.update_revision;

        // Asked in the moment of the change, while everything still says that all is well.
        cluster.change(colour("blue")).await?;
        let mut seen: Vec<&str> = Vec::new();
        {
            let mut waiting = std::pin::pin!(wait(space, &roll, &["--for=condition=Ready"]));
            loop {
                tokio::select! {
                    done = &mut waiting => break done?,
                    looked = look(&cluster) => {
                        let (is, updated) = looked?;
                        ensure!(is != "Current" || updated == 2, "current with {updated} of 2 pods updated");
                        if seen.last() != Some(&is) {
                            seen.push(is);
                        }
                    }
                }
            }
        }
        let status = cluster.status().await?;
        ensure!(status.updated_replicas == 2 && status.update_revision != before, "{status:?}");
        seen.push(look(&cluster).await?.0);
        seen.dedup();
        figure!(space, "kubectl wait came back when both pods were updated; kstatus: {seen:?}");
        ensure!(seen == ["InProgress", "Current"], "{seen:?}");

        cluster.change(json!({ "image": "localhost/sluice/no-such-image:1" })).await?;
        wait(space, &roll, &["--for=condition=Stalled"]).await?;
        let (stalled, _) = look(&cluster).await?;
        let ready = cluster.condition(ConditionType::Ready).await?;
        let available = cluster.condition(ConditionType::Available).await?;
        figure!(
            space,
            "an image that is not there: {stalled}; Ready={} {}: {}",
            ready.status,
            ready.reason,
            ready.message
        );
        ensure!(stalled == "Failed" && ready.status == "False", "{stalled} {ready:?}");
        ensure!(available.status == "True", "its clients are served: {available:?}");

        let image = space.place.kubernetes.images()?.channel_node;
        cluster.change(json!({ "image": image })).await?;
        wait(space, &roll, &["--for=condition=Ready"]).await?;
        wait(space, &roll, &["--for=condition=Stalled=False"]).await?;
        wait(space, &roll, &["--for=jsonpath={.status.updatedReplicas}=2"]).await?;
        let (mended, _) = look(&cluster).await?;
        ensure!(mended == "Current", "{mended}");
        // No client was moved by what could not start, nor by what came back.
        let outcome = roll.finish(2).await?;
        outcome.nothing_was_lost()?;
        outcome.pods_went_empty_or_overdue()?;
        outcome.moved_once_each()
    });
}

/// The lines of `kubectl describe` below `Events:`, as reason and message.
fn events(described: &str) -> Vec<(String, String)> {
    let below = described.lines().skip_while(|line| !line.starts_with("Events:")).skip(3);
    below
        .filter_map(|line| {
            let (_, message) = line.split_once("sluice-operator")?;
            let reason = line.split_whitespace().nth(1)?;
            Some((reason.to_owned(), message.trim().to_owned()))
        })
        .collect()
}

#[test]
fn kubectl_describe_reads_as_the_story_of_a_deploy() {
    test("kubectl_describe_reads_as_the_story_of_a_deploy", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(colour("blue")).await?;
        let outcome = roll.finish(2).await?;
        outcome.nobody_was_dropped(1)?;
        let told = eventually("the story's end", SHORT, async || {
            let told = events(&space.kubectl(&["describe", "channelcluster/chat"]).await?);
            let last = told.last().context("no events")?;
            ensure!(last.0 == "RolloutCompleted", "{told:?}");
            Ok(told)
        })
        .await?;
        for (reason, message) in &told {
            figure!(space, "{reason}: {message}");
        }
        let reasons: Vec<&str> = told.iter().map(|(reason, _)| reason.as_str()).collect();
        let story = [
            "RolloutStarted",
            "DrainStarted",
            "DrainCompleted",
            "DrainStarted",
            "DrainCompleted",
            "RolloutCompleted",
        ];
        ensure!(reasons == story, "{reasons:?}");
        for (pod, at) in [("chat-0", [1, 2]), ("chat-1", [3, 4])] {
            ensure!(at.iter().all(|at| told[*at].1.contains(pod)), "{pod}: {told:?}");
        }
        // The next deploy is told in its own words, however soon it comes.
        let first = cluster.status().await?.update_revision;
        cluster.change(colour("green")).await?;
        cluster.wait_ready().await?;
        let second = cluster.status().await?.update_revision;
        ensure!(second != first, "{first} is still wanted");
        eventually("the second story", SHORT, async || {
            let told = events(&space.kubectl(&["describe", "channelcluster/chat"]).await?);
            for reason in ["RolloutStarted", "RolloutCompleted"] {
                for revision in [&first, &second] {
                    let said =
                        told.iter().any(|(why, text)| why == reason && text.contains(revision));
                    ensure!(said, "no {reason} of {revision}: {told:?}");
                }
            }
            Ok(())
        })
        .await?;
        let row = space.kubectl(&["get", "chc", "chat"]).await?;
        figure!(space, "{}", row.trim().replace('\n', "\n    "));
        let head: Vec<&str> = row.lines().next().unwrap_or_default().split_whitespace().collect();
        let columns =
            ["NAME", "DESIRED", "READY", "UPDATED", "DRAINING", "CONNECTIONS", "STATUS", "AGE"];
        ensure!(head == columns, "{head:?}");
        ensure!(row.contains("AllReplicasUpdated"), "{row}");
        Ok(())
    });
}
