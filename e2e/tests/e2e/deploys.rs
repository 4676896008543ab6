//! Deploys under live clients: each is moved exactly once, and nothing is lost.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{
        Space,
        chance::number,
        colour, eventually, pod_watch, quiet_test, record,
        roll::{Outcome, Roll},
        spec, test,
        wait::SHORT,
    },
};

/// No pod gets more than this many times its share.
const HIGHEST_PEAK: f64 = 1.15;
/// The fullest pod over the mean once it is over, as `rebalance.maxSkewPercent` has it by default.
const HIGHEST_SKEW: f64 = 1.10;
/// So long, in milliseconds, 99 of 100 clients are away at the most.
const LONGEST_AWAY: u64 = 100;

/// What the sockets of a batch may need to close, in seconds.
const BATCH_SLACK: f64 = 0.5;

/// How many clients there are, and how a drain moves them.
struct Pace {
    clients: usize,
    batch: usize,
    seconds: usize,
}

impl Pace {
    /// The most that may come back within a second, wherever that begins.
    fn most(&self) -> usize {
        self.batch * (1 + 1 / self.seconds)
    }

    /// From the first batch of a third of the clients to the last.
    fn seconds_of_a_drain(&self) -> usize {
        (self.clients.div_ceil(3).div_ceil(self.batch) - 1) * self.seconds
    }
}

/// What a deploy did, and how long a batch of clients needs to connect and join when nothing else happens.
async fn deploy(space: &Space, pace: Pace, change: Value) -> Result<(Outcome, Duration)> {
    // Balancers must have heard of a drain before it closes anyone, or some are moved to a pod that is next.
    let drain = json!({
        "initialDelaySeconds": 3, "batchSize": pace.batch, "batchIntervalSeconds": pace.seconds,
    });
    let cluster = space.cluster("chat", spec(3, json!({ "drain": drain }))).await?;
    cluster.wait_ready().await?;
    let roll = Roll::start(&cluster, pace.clients).await?;
    let batch = roll.clients().burst(&cluster.urls().await?, "room:lobby", pace.batch).await?;
    figure!(space, "{} clients connect and join in {} ms", pace.batch, batch.as_millis());
    let began = pod_watch::now();
    cluster.change(change).await?;
    roll.until_ready().await?;
    let done = Instant::now();
    let mean = pace.clients as f64 / 3.0;
    let bound = (mean * HIGHEST_SKEW).max(mean + 2.0);
    roll.until("an even load", async || {
        let loads = roll.state().await?.by_node;
        Ok(loads.len() == 3 && loads.values().all(|load| *load as f64 <= bound))
    })
    .await?;
    figure!(space, "even {:.1} s after the end of the deploy", done.elapsed().as_secs_f64());
    let outcome = roll.finish(3).await?;
    let text = format!(
        "{{initialDelaySeconds: 3, batchSize: {}, batchIntervalSeconds: {}}}",
        pace.batch, pace.seconds
    );
    record::record(&outcome, 3, &text, began)?;
    outcome.all_replaced_once()?;
    let peak = outcome.report.peak_over_mean.during;
    ensure!(
        peak <= HIGHEST_PEAK,
        "a pod had {peak:.2} times its share: {}",
        outcome.report.samples
    );
    let (busiest, most) = (outcome.report.busiest_second(), pace.most());
    figure!(space, "at most {busiest} clients came back within a second, the drain allows {most}");
    ensure!(busiest * 10 <= most * 11, "{busiest} came back within a second, not {most}");
    let (longest, least) = (outcome.report.longest_drain(), pace.seconds_of_a_drain());
    figure!(
        space,
        "a pod closed its clients in {longest:.1} s at the most, its batches take {least} s"
    );
    ensure!(
        longest <= least as f64 * 1.1 + BATCH_SLACK,
        "a drain took {longest:.1} s, not {least}: clients waited for nothing"
    );
    let status = cluster.status().await?;
    ensure!(status.updated_replicas == 3 && status.replicas == 3, "{status:?}");
    ensure!(status.drains.is_empty() && status.rollout.is_none(), "{status:?}");
    Ok((outcome, batch))
}

#[test]
fn env_change_moves_each_of_60_clients_exactly_once() {
    test("env_change_moves_each_of_60_clients_exactly_once", async |space| {
        let pace = Pace { clients: 60, batch: 5, seconds: 1 };
        deploy(space, pace, colour("blue")).await.map(drop)
    });
}

#[test]
fn image_change_moves_each_of_hundreds_of_clients_exactly_once_and_soon() {
    let name = "image_change_moves_each_of_hundreds_of_clients_exactly_once_and_soon";
    quiet_test(name, async |space| {
        let image = space.place.kubernetes.images()?.channel_node_next;
        let clients = number("SLUICE_E2E_CLIENTS")?.map_or(300, |clients| clients as usize);
        let pace = Pace { clients, batch: (clients / 15).max(1), seconds: 2 };
        let (outcome, batch) = deploy(space, pace, json!({ "image": image })).await?;
        // On a machine that is busy otherwise a batch takes its time without any deploy, too.
        let most = LONGEST_AWAY.max(batch.as_millis() as u64);
        let away = outcome.report.away.p99;
        ensure!(away <= most, "one of a hundred clients was away for {away} ms, not {most}");
        Ok(())
    });
}

#[test]
fn two_deploys_one_after_the_other_move_each_client_twice() {
    test("two_deploys_one_after_the_other_move_each_client_twice", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 20).await?;
        cluster.change(colour("blue")).await?;
        roll.until_ready().await?;
        cluster.change(colour("green")).await?;
        let outcome = roll.finish(2).await?;
        outcome.nobody_was_dropped(1)?;
        ensure!((outcome.report.moves.mean - 2.0).abs() < 0.11, "{:?}", outcome.report.moves);
        Ok(())
    });
}

#[test]
fn with_history_a_deploy_loses_no_message_at_all() {
    test("with_history_a_deploy_loses_no_message_at_all", async |space| {
        let history = json!({ "size": 1000, "maxBytes": 1_048_576 });
        let channels = json!([{ "topic": "room:*", "announceNode": true, "history": history }]);
        let cluster = space.cluster("chat", spec(3, json!({ "channels": channels }))).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 45).await?;
        cluster.change(colour("blue")).await?;
        let outcome = roll.finish(3).await?;
        outcome.all_replaced_once()?;
        let report = &outcome.report;
        figure!(space, "{} messages came in the history of a join", report.caught_up);
        ensure!(report.deliveries.missed_while_moving == 0, "{:?}", report.deliveries);
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
