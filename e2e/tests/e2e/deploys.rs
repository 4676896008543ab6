//! Deploys under live clients: each is moved exactly once, and nothing is lost.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{
        Space, colour, eventually, pod_watch, record,
        roll::{Outcome, Roll},
        spec, test,
        wait::SHORT,
    },
};

const CLIENTS: usize = 60;
/// No pod gets more than this many times its share.
const HIGHEST_PEAK: f64 = 1.15;

async fn deploy(space: &Space, change: Value) -> Result<Outcome> {
    // Balancers must have heard of a drain before it closes anyone, or some are moved to a pod that is next.
    let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
    let cluster = space.cluster("chat", spec(3, patient)).await?;
    cluster.wait_ready().await?;
    let roll = Roll::start(&cluster, CLIENTS).await?;
    let began = pod_watch::now();
    cluster.change(change).await?;
    let outcome = roll.finish(3).await?;
    let drain = "{initialDelaySeconds: 3, batchSize: 5, batchIntervalSeconds: 1}";
    record::record(&outcome, 3, drain, began)?;
    outcome.all_replaced_once()?;
    let peak = outcome.report.peak_over_mean.during;
    ensure!(
        peak <= HIGHEST_PEAK,
        "a pod had {peak:.2} times its share: {}",
        outcome.report.samples
    );
    let busiest = outcome.report.busiest_second();
    figure!(space, "at most {busiest} clients came back within a second");
    let status = cluster.status().await?;
    ensure!(status.updated_replicas == 3 && status.replicas == 3, "{status:?}");
    ensure!(status.drains.is_empty() && status.rollout.is_none(), "{status:?}");
    Ok(outcome)
}

#[test]
fn env_change_moves_each_of_60_clients_exactly_once() {
    test("env_change_moves_each_of_60_clients_exactly_once", async |space| {
        deploy(space, colour("blue")).await.map(drop)
    });
}

#[test]
fn image_change_moves_each_of_60_clients_exactly_once() {
    test("image_change_moves_each_of_60_clients_exactly_once", async |space| {
        let image = space.place.kubernetes.images()?.channel_node_next;
        deploy(space, json!({ "image": image })).await.map(drop)
    });
}

#[test]
fn two_deploys_one_after_the_other_move_each_client_twice() {
    test("two_deploys_one_after_the_other_move_each_client_twice", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(colour("blue")).await?;
        roll.until("the first deploy to be done", async || {
            Ok(cluster.condition(ConditionType::Ready).await?.status == "True")
        })
        .await?;
        cluster.change(colour("green")).await?;
        let outcome = roll.finish(2).await?;
        outcome.nobody_was_dropped(1)?;
        ensure!((outcome.report.moves.mean - 2.0).abs() < 0.11, "{:?}", outcome.report.moves);
        Ok(())
    });
}

#[test]
fn pause_mid_drain_undoes_it_and_going_on_finishes() {
    test("pause_mid_drain_undoes_it_and_going_on_finishes", async |space| {
        // Two clients a second: slow enough to be met in the middle.
        let drain = json!({ "drain": { "batchSize": 2, "batchIntervalSeconds": 2 } });
        let cluster = space.cluster("chat", spec(2, drain)).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(colour("blue")).await?;
        roll.until("some clients to be moved", async || Ok(roll.state().await?.moved > 0)).await?;
        cluster.change(json!({ "paused": true })).await?;
        eventually("the drain to be undone", SHORT, async || {
            roll.step().await?;
            let status = cluster.status().await?;
            ensure!(
                status.drains.is_empty() && status.draining_replicas == 0,
                "{:?}",
                status.drains
            );
            let condition = cluster.condition(ConditionType::Paused).await?;
            ensure!(condition.status == "True", "{condition:?}");
            for node in cluster.node_statuses().await? {
                ensure!(node.drain.phase == sluice_node_api::admin::DrainPhase::None, "{node:?}");
            }
            Ok(())
        })
        .await?;
        let moved = roll.state().await?.moved;
        figure!(space, "{moved} of 20 clients had been moved when it was paused");
        cluster.change(json!({ "paused": false })).await?;
        let outcome = roll.finish(2).await?;
        outcome.nobody_was_dropped(1)?;
        outcome.all_pods_replaced()
    });
}
