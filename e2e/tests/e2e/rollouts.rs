//! Other ways for a deploy to go: in place, a canary, turned back in the middle.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{Cluster, colour, roll::Roll, spec, test},
};

async fn uids(cluster: &Cluster<'_>) -> Result<BTreeSet<String>> {
    Ok(cluster.identities().await?.into_values().map(|(uid, _)| uid).collect())
}

#[test]
fn without_surge_pods_are_replaced_in_place() {
    test("without_surge_pods_are_replaced_in_place", async |space| {
        let in_place = json!({
            "updateStrategy": { "rollingUpdate": { "maxSurge": 0, "maxUnavailable": 1 } },
            "drain": { "initialDelaySeconds": 2, "batchSize": 2, "batchIntervalSeconds": 2 },
        });
        let cluster = space.cluster("chat", spec(3, in_place)).await?;
        cluster.wait_ready().await?;
        let before = uids(&cluster).await?;
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(colour("blue")).await?;
        let outcome = roll.finish(3).await?;
        outcome.nobody_was_dropped(1)?;
        ensure!(outcome.old == outcome.new, "the names stay: {:?}", outcome.new);
        ensure!(before.is_disjoint(&uids(&cluster).await?), "every pod is another");
        // 1 + 1/N with steering, give or take one client of the thirty; without, it would be 1.6 and more.
        let mean = outcome.report.moves.mean;
        ensure!(mean <= 1.0 + 1.0 / 3.0 + 0.04, "{mean} moves a client");
        // Two of three pods serve while the third is replaced, kept level from batch to batch.
        let peak = outcome.report.peak_over_mean.during;
        ensure!(peak <= 1.15 * 3.0 / 2.0, "a pod had {peak:.2} times its share");
        Ok(())
    });
}

/// Of three pods two stay at the revision before.
fn canary() -> Value {
    json!({
        "updateStrategy": { "rollingUpdate": { "partition": 2 } },
        "drain": { "initialDelaySeconds": 3 },
    })
}

/// Waits until the cluster says that its canary stands, and gives the pods' UIDs then.
async fn canary_stands(roll: &Roll<'_>, cluster: &Cluster<'_>) -> Result<BTreeSet<String>> {
    roll.until("the canary to stand", async || {
        let generation = cluster.get().await?.metadata.generation;
        let ready = cluster.condition(ConditionType::Ready).await?;
        let known = ready.observed_generation == generation;
        Ok(known && ready.status == "True" && ready.reason == "PartitionReached")
    })
    .await?;
    uids(cluster).await
}

#[test]
fn canary_stands_until_it_is_let_go_on() {
    test("canary_stands_until_it_is_let_go_on", async |space| {
        let cluster = space.cluster("chat", spec(3, canary())).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(colour("blue")).await?;
        canary_stands(&roll, &cluster).await?;
        let status = cluster.status().await?;
        let moved = roll.state().await?.moved;
        figure!(space, "{} of 3 pods updated, {moved} clients moved", status.updated_replicas);
        ensure!(status.updated_replicas == 1 && status.replicas == 3, "{status:?}");
        let all = json!({ "updateStrategy": { "rollingUpdate": { "partition": 0 } } });
        cluster.change(all).await?;
        let outcome = roll.finish(3).await?;
        outcome.nobody_was_dropped(1)?;
        // While the canary stands, old pods stay too, and may take whom it has no room for: two deploys, for those.
        let moves = &outcome.report.moves;
        ensure!(moves.counts.keys().all(|count| count == "1" || count == "2"), "{moves:?}");
        ensure!(moves.mean <= 1.0 + 1.0 / 3.0, "{moves:?}");
        outcome.all_pods_replaced()
    });
}

#[test]
fn canary_that_is_set_back_goes_and_the_pods_before_it_stay() {
    test("canary_that_is_set_back_goes_and_the_pods_before_it_stay", async |space| {
        let cluster = space.cluster("chat", spec(3, canary())).await?;
        cluster.wait_ready().await?;
        let first = uids(&cluster).await?;
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(colour("blue")).await?;
        let with_blue = canary_stands(&roll, &cluster).await?;
        ensure!(first.intersection(&with_blue).count() == 2, "two of the first pods stay");

        // Another canary takes the place of this one, not of a pod that was there before.
        cluster.change(colour("green")).await?;
        let with_green = canary_stands(&roll, &cluster).await?;
        ensure!(first.intersection(&with_green).count() == 2, "{first:?} {with_green:?}");
        ensure!(with_blue.intersection(&with_green).count() == 2, "the blue one is gone");

        cluster.change(json!({ "podTemplate": { "env": [] } })).await?;
        let outcome = roll.finish(3).await?;
        outcome.nobody_was_dropped(1)?;
        let last = uids(&cluster).await?;
        ensure!(first.intersection(&last).count() == 2, "{first:?} {last:?}");
        ensure!(with_green.intersection(&last).count() == 2, "the green one is gone");
        let status = cluster.status().await?;
        ensure!(
            status.updated_replicas == 3 && status.current_revision == status.update_revision,
            "{status:?}"
        );
        figure!(space, "two of three pods never left; moves {:?}", outcome.report.moves);
        Ok(())
    });
}

#[test]
fn rollback_in_the_middle_keeps_the_pods_that_are_still_right() {
    test("rollback_in_the_middle_keeps_the_pods_that_are_still_right", async |space| {
        let drain = json!({ "drain": { "batchSize": 2, "batchIntervalSeconds": 2 } });
        let cluster = space.cluster("chat", spec(3, drain)).await?;
        cluster.wait_ready().await?;
        let before = uids(&cluster).await?;
        let roll = Roll::start(&cluster, 30).await?;
        cluster.change(colour("red")).await?;
        roll.until("the first pod to be replaced and the second to drain", async || {
            Ok(!roll.watch().deletions().is_empty() && roll.watch().drains().len() == 2)
        })
        .await?;
        cluster.change(json!({ "podTemplate": { "env": [] } })).await?;
        let outcome = roll.finish(3).await?;
        outcome.nobody_was_dropped(1)?;
        let kept = before.intersection(&uids(&cluster).await?).count();
        figure!(space, "{kept} of 3 pods are still the first ones");
        ensure!(kept == 2, "only what had changed is replaced");
        Ok(())
    });
}
