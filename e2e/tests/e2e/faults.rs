//! Faults of the operator itself, in the middle of a drain. They stop processes of this machine: local only.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt, api::DeleteParams};
use serde_json::json;
use sluice_crds::DrainReportPhase;

use crate::{
    figure,
    support::{
        LONG, Space, eventually, local_test, operator, place::OPERATOR_NAMESPACE, roll::Roll, spec,
    },
};

/// A deploy that is slow enough to be met in the middle, stopped where clients are being moved.
pub(crate) async fn deploy_in_the_middle<'a>(
    space: &'a Space,
) -> Result<(super::support::Cluster<'a>, Roll<'a>)> {
    let drain = json!({ "drain": { "batchSize": 2, "batchIntervalSeconds": 2 } });
    let cluster = space.cluster("chat", spec(2, drain)).await?;
    cluster.wait_ready().await?;
    let roll = Roll::start(&cluster, 24).await?;
    let env = json!([{ "name": "COLOUR", "value": "blue" }]);
    cluster.change(json!({ "podTemplate": { "env": env } })).await?;
    roll.until("a drain in its middle", async || {
        let status = cluster.status().await?;
        let closing = status.drains.iter().any(|drain| drain.phase == DrainReportPhase::Closing);
        Ok(closing && roll.clients().state("clients").await?.moved > 0)
    })
    .await?;
    Ok((cluster, roll))
}

/// What holds whoever leads: each client is moved once, and each pod drained once, one at a time.
async fn finished_as_by_one(roll: Roll<'_>) -> Result<()> {
    let outcome = roll.finish(2).await?;
    outcome.nobody_was_dropped(1)?;
    outcome.moved_once_each()?;
    outcome.all_pods_replaced()?;
    let drains = outcome.watch.drains();
    ensure!(drains.values().all(|drains| *drains == 1), "{drains:?}");
    Ok(())
}

#[test]
fn operator_killed_mid_drain() {
    local_test("operator_killed_mid_drain", async |space| {
        let _alone = operator::alone().await;
        operator::wait_whole(&space.place).await?;
        let (_cluster, roll) = deploy_in_the_middle(space).await?;
        let old = operator::leader(&space.place).await?;
        let moved = roll.clients().state("clients").await?.moved;
        operator::process(&space.place, &old)?.kill()?;
        // Gone with its pod, or its container would be back within a second and lead again.
        let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
        let pods = Api::<Pod>::namespaced(space.client.clone(), OPERATOR_NAMESPACE);
        pods.delete(&old.name_any(), &now).await?;
        finished_as_by_one(roll).await?;
        let new = operator::leader(&space.place).await?;
        figure!(
            space,
            "the leader {} was killed when {moved} of 24 clients had been moved; {} finished",
            old.name_any(),
            new.name_any()
        );
        ensure!(new.name_any() != old.name_any(), "it is back");
        operator::wait_whole(&space.place).await
    });
}

#[test]
fn leader_cut_off_does_not_act_twice() {
    local_test("leader_cut_off_does_not_act_twice", async |space| {
        let _alone = operator::alone().await;
        operator::wait_whole(&space.place).await?;
        let (_cluster, roll) = deploy_in_the_middle(space).await?;
        let old = operator::leader(&space.place).await?;
        let process = operator::process(&space.place, &old)?;
        process.stop()?;
        // Frozen until the other one leads, and until that one has begun a drain of its own.
        let begun = roll.watch().drains().len();
        let met = roll
            .until("the other replica to lead and to go on", async || {
                let leader = operator::leader(&space.place).await?;
                Ok(leader.name_any() != old.name_any() && roll.watch().drains().len() > begun)
            })
            .await;
        // Whatever came of it, it must not stay frozen.
        process.resume()?;
        met?;
        finished_as_by_one(roll).await?;
        let new = operator::leader(&space.place).await?;
        figure!(space, "{} was frozen and woken while {} leads", old.name_any(), new.name_any());
        ensure!(new.name_any() != old.name_any(), "the old leader took the lease back");
        eventually("the one that was cut off to stand by", LONG, async || {
            operator::wait_whole(&space.place).await
        })
        .await
    });
}
