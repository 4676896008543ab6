//! The operator killed at random moments of one rollout.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use serde_json::json;
use sluice_e2e::pods::Container;

use crate::{
    figure,
    support::{
        Space,
        chance::{Chance, number},
        cluster::restarts,
        colour, operator,
        roll::Roll,
        spec, test_without_operator,
    },
};

const CLIENTS: usize = 60;
/// How often, unless `SLUICE_E2E_KILLS` says otherwise.
const KILLS: u64 = 6;
/// A new leader lives so long at the most, in milliseconds: a rollout's steps are a second or two apart.
const LONGEST_LIFE: u64 = 3_000;

/// Kills the process that leads. Its container is back at once, under the same name, and leads again; or, the second time,
/// which Kubernetes would make wait, it goes with its pod, and the other replica takes over.
async fn kill(space: &Space, pod: &Pod, process: &Container) -> Result<bool> {
    let with_pod = restarts(pod) > 0;
    process.kill()?;
    if with_pod {
        operator::remove(&space.place, pod).await?;
    }
    Ok(with_pod)
}

#[test]
fn operator_killed_at_random_moments_of_a_rollout_moves_each_client_once() {
    let name = "operator_killed_at_random_moments_of_a_rollout_moves_each_client_once";
    let kills = number("SLUICE_E2E_KILLS").expect("a number").unwrap_or(KILLS);
    let limit = std::time::Duration::from_secs(240 + 30 * kills);
    test_without_operator(name, limit, async |space| {
        operator::wait_whole(&space.place).await?;
        let mut chance = Chance::new(space)?;
        // As slow as that many kills need.
        let drain = json!({ "drain": {
            "initialDelaySeconds": 3, "batchSize": 1, "batchIntervalSeconds": kills.div_ceil(6),
            "timeoutSeconds": 1800,
        } });
        let cluster = space.cluster("chat", spec(3, drain)).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, CLIENTS).await?;
        cluster.change(colour("blue")).await?;

        let mut since = Timestamp::now();
        let mut moved = Vec::new();
        let mut with_pod = 0;
        for _ in 0..kills {
            let mut leader = None;
            roll.until("an operator to lead", async || {
                leader = Some(operator::leading_since(&space.place, since).await?);
                Ok(true)
            })
            .await?;
            roll.go_on(chance.time(0..=LONGEST_LIFE)).await?;
            let left: BTreeSet<String> =
                cluster.pods().await?.iter().map(ResourceExt::name_any).collect();
            ensure!(
                !left.is_disjoint(roll.old()),
                "done after {} kills: slow it down",
                moved.len()
            );
            moved.push(roll.state().await?.moved);
            if let Some((pod, process)) = leader {
                with_pod += u32::from(kill(space, &pod, &process).await?);
            }
            since = Timestamp::now();
        }
        let outcome = roll.finish(3).await?;
        figure!(
            space,
            "killed {kills} times, {with_pod} times with its pod, when of {CLIENTS} clients {moved:?} had moved"
        );
        outcome.all_replaced_once()?;
        let status = cluster.status().await?;
        ensure!(status.drains.is_empty() && status.rollout.is_none(), "{status:?}");
        operator::wait_whole(&space.place).await
    });
}
