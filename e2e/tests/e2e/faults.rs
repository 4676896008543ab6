//! Faults of the operator itself, in the middle of a drain. They stop processes of this machine: local only.

use anyhow::{Result, ensure};
use kube::ResourceExt;
use serde_json::json;
use sluice_crds::DrainReportPhase;

use crate::{
    figure,
    support::{LONG, Space, colour, eventually, local_test, operator, roll::Roll, spec},
};

/// A deploy that is slow enough to be met in the middle, stopped where clients are being moved.
pub(crate) async fn deploy_in_the_middle<'a>(
    space: &'a Space,
) -> Result<(super::support::Cluster<'a>, Roll<'a>)> {
    let drain = json!({ "drain": { "batchSize": 2, "batchIntervalSeconds": 2 } });
    let cluster = space.cluster("chat", spec(2, drain)).await?;
    cluster.wait_ready().await?;
    let roll = Roll::start(&cluster, 24).await?;
    cluster.change(colour("blue")).await?;
    roll.until("a drain in its middle", async || {
        let status = cluster.status().await?;
        let closing = status.drains.iter().any(|drain| drain.phase == DrainReportPhase::Closing);
        Ok(closing && roll.state().await?.moved > 0)
    })
    .await?;
    Ok((cluster, roll))
}

#[test]
fn operator_killed_mid_drain() {
    local_test("operator_killed_mid_drain", async |space| {
        let _alone = operator::alone().await;
        operator::wait_whole(&space.place).await?;
        let (_cluster, roll) = deploy_in_the_middle(space).await?;
        let old = operator::leader(&space.place).await?;
        let moved = roll.state().await?.moved;
        operator::process(&space.place, &old)?.kill()?;
        operator::remove(&space.place, &old).await?;
        roll.finish(2).await?.all_replaced_once()?;
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
        roll.finish(2).await?.all_replaced_once()?;
        let new = operator::leader(&space.place).await?;
        figure!(space, "{} was frozen and woken while {} leads", old.name_any(), new.name_any());
        ensure!(new.name_any() != old.name_any(), "the old leader took the lease back");
        eventually("the one that was cut off to stand by", LONG, async || {
            operator::wait_whole(&space.place).await
        })
        .await
    });
}
