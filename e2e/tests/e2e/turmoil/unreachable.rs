//! The API server out of the operator's reach, in the middle of a drain.

use std::time::Duration;

use anyhow::ensure;
use jiff::Timestamp;

use crate::{
    faults::deploy_in_the_middle,
    figure,
    support::{audit, operator, test_without_operator},
};

/// Longer than a lease: the leader gives up.
const OUTAGE: Duration = Duration::from_secs(60);

#[test]
fn api_server_out_of_reach_for_60_s_mid_drain_loses_nobody() {
    let name = "api_server_out_of_reach_for_60_s_mid_drain_loses_nobody";
    test_without_operator(name, Duration::from_secs(420), async |space| {
        operator::wait_whole(&space.place).await?;
        let (cluster, roll) = deploy_in_the_middle(space).await?;
        let moved = async || anyhow::Ok(roll.state().await?.moved);
        let before = moved().await?;
        let cut = operator::cut_off(&space.place).await?;
        // What was on its way has arrived by then.
        roll.go_on(Duration::from_secs(2)).await?;
        let mark = audit::mark(&space.place)?;
        let (drains, gone) = (roll.watch().drains(), roll.watch().deletions().len());
        roll.go_on(OUTAGE).await?;
        let writes = audit::writes(space, &mark)?;
        let after = moved().await?;
        ensure!(writes.is_empty(), "it was not cut off: {writes:?}");
        ensure!(roll.watch().drains() == drains, "a drain was decided by nobody");
        ensure!(roll.watch().deletions().len() == gone, "a pod went although nobody let it go");
        drop(cut);
        let back = Timestamp::now();
        roll.until("an operator to lead again", async || {
            operator::leading_since(&space.place, back).await.map(|_| true)
        })
        .await?;
        let outcome = roll.finish(2).await?;
        figure!(
            space,
            "cut off for {} s when {before} of 24 clients had moved: the node moved {} more, no pod went, nothing was written",
            OUTAGE.as_secs(),
            after - before
        );
        ensure!(after > before, "the node drains on by itself");
        outcome.all_replaced_once()?;
        let status = cluster.status().await?;
        ensure!(status.drains.is_empty() && status.rollout.is_none(), "{status:?}");
        operator::wait_whole(&space.place).await
    });
}
