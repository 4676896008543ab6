//! Clients that sit unevenly are spread again.

use anyhow::ensure;
use serde_json::json;
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{roll::Roll, spec, test},
};

#[test]
fn rebalance_after_scale_2_4_moves_no_more_than_it_must() {
    test("rebalance_after_scale_2_4_moves_no_more_than_it_must", async |space| {
        let rebalance = json!({ "rebalance": { "mode": "Auto" } });
        let cluster = space.cluster("chat", spec(2, rebalance)).await?;
        cluster.wait_ready().await?;
        let roll = Roll::start(&cluster, 60).await?;
        let began = std::time::Instant::now();
        cluster.change(json!({ "replicas": 4 })).await?;
        // 60 over 4: the mean is 15, and two more than that are fine.
        roll.until("an even load, and nobody under way", async || {
            let ready = cluster.condition(ConditionType::Ready).await?;
            let nodes = cluster.node_statuses().await?;
            let even = nodes.iter().all(|node| node.connections <= 17 && node.shedding == 0);
            let all: u64 = nodes.iter().map(|node| node.connections).sum();
            Ok(ready.status == "True" && nodes.len() == 4 && even && all == 60)
        })
        .await?;
        let took = began.elapsed().as_secs();
        let state = roll.state().await?;
        figure!(space, "even after {took} s and {} closes: {:?}", state.closes, state.by_node);
        ensure!(state.closes >= 26, "at least 26 were too many on their pods: {state:?}");
        // The planner's bound: half as many again, and three a pod.
        ensure!(
            state.closes <= 30 + 15 + 3 * 4,
            "of 30 that were too many, {} were moved",
            state.closes
        );
        let outcome = roll.finish(4).await?;
        outcome.nobody_was_dropped(0)?;
        let moves = &outcome.report.moves.counts;
        ensure!(moves.keys().all(|count| ["0", "1", "2"].contains(&count.as_str())), "{moves:?}");
        Ok(())
    });
}
