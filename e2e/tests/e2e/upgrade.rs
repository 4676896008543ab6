//! An upgrade of the operator that renders pods otherwise, under live clients.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{
        Cluster, colour, operator,
        place::{OPERATOR_NAMESPACE, Place},
        roll::Roll,
        spec, test_without_operator,
    },
};

/// The release under test with another default image and another operator pod; as it was, when this value ends.
struct Upgraded {
    place: Place,
    /// The release's revision before.
    before: String,
}

impl Upgraded {
    /// Notes how it is; nothing is upgraded yet.
    fn note(place: &Place) -> Result<Self> {
        let namespace = ["--namespace", OPERATOR_NAMESPACE];
        let told = place
            .kubernetes
            .helm([&["status", "sluice", "--output=json"][..], &namespace].concat())?;
        let status: serde_json::Value = serde_json::from_str(&told)?;
        let before = status["version"].as_u64().context("the release has no revision")?.to_string();
        Ok(Self { place: place.clone(), before })
    }
}

fn upgrade(place: &Place, values: &[String]) -> Result<()> {
    let chart = place.in_repo("charts/sluice").display().to_string();
    let mut arguments: Vec<String> =
        ["upgrade", "sluice", &chart, "--namespace", OPERATOR_NAMESPACE, "--reuse-values"]
            .map(String::from)
            .into();
    for value in values {
        arguments.extend([String::from("--set"), value.clone()]);
    }
    arguments.extend(["--wait", "--timeout", "120s"].map(String::from));
    place.kubernetes.helm(&arguments).map(drop)
}

impl Drop for Upgraded {
    fn drop(&mut self) {
        // With all its values: an upgrade that reuses values can't take one back.
        let back =
            ["rollback", "sluice", &self.before, "--namespace", OPERATOR_NAMESPACE, "--wait"];
        let back = self.place.kubernetes.helm(back);
        if let Err(error) = back {
            eprintln!("  the operator is still the upgraded one: {error:#}");
        }
    }
}

fn image(pod: &Pod) -> &str {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    containers.into_iter().find_map(|container| container.image.as_deref()).unwrap_or_default()
}

async fn images(cluster: &Cluster<'_>) -> Result<Vec<String>> {
    Ok(cluster.pods().await?.iter().map(|pod| image(pod).to_owned()).collect())
}

#[test]
fn operator_upgrade_with_another_node_image_rolls_nothing_until_the_next_change() {
    let name = "operator_upgrade_with_another_node_image_rolls_nothing_until_the_next_change";
    test_without_operator(name, std::time::Duration::from_secs(420), async |space| {
        operator::wait_whole(&space.place).await?;
        let built = space.place.kubernetes.images()?;
        let (old, new) = (built.channel_node, built.channel_node_next);
        let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
        let cluster = space.cluster("chat", spec(2, patient)).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        ensure!(images(&cluster).await? == [&*old; 2], "{:?}", images(&cluster).await?);
        let roll = Roll::start(&cluster, 20).await?;

        let upgraded = Upgraded::note(&space.place)?;
        let values = [format!("nodeImage={new}"), String::from("podAnnotations.e2e=upgraded")];
        let place = space.place.clone();
        roll.during(async { tokio::task::spawn_blocking(move || upgrade(&place, &values)).await? })
            .await?;
        roll.until("the cluster to say that it would be rendered otherwise", async || {
            let waits = cluster.condition(ConditionType::RequiresUpdate).await?;
            let ready = cluster.condition(ConditionType::Ready).await?;
            Ok(waits.status == "True" && ready.status == "True")
        })
        .await?;
        let waits = cluster.condition(ConditionType::RequiresUpdate).await?;
        let state = roll.state().await?;
        figure!(space, "upgraded: {} closes; RequiresUpdate: {}", state.closes, waits.message);
        ensure!(cluster.identities().await? == before, "a pod was replaced");
        ensure!(state.closes == 0, "a client was moved: {state:?}");

        // Nor does a change of size: who comes is as those that are there.
        cluster.change(json!({ "replicas": 3 })).await?;
        roll.until("a third pod", async || {
            let ready = cluster.condition(ConditionType::Ready).await?;
            Ok(ready.status == "True" && cluster.pods().await?.len() == 3)
        })
        .await?;
        let (state, there) = (roll.state().await?, images(&cluster).await?);
        figure!(space, "grown: {} closes, images {there:?}", state.closes);
        ensure!(there == [&*old; 3] && state.closes == 0, "{there:?}");

        cluster.change(colour("blue")).await?;
        roll.until_ready().await?;
        let there = images(&cluster).await?;
        ensure!(there == [&*new; 3], "the next change brings the new image: {there:?}");
        let waits = cluster.condition(ConditionType::RequiresUpdate).await?;
        ensure!(waits.status == "False", "{waits:?}");
        let outcome = roll.finish(3).await?;
        outcome.nobody_was_dropped(1)?;
        let moves = &outcome.report.moves;
        ensure!(moves.counts.keys().all(|count| count == "0" || count == "1"), "{moves:?}");
        drop(upgraded);
        operator::wait_whole(&space.place).await
    });
}
