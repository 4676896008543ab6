//! Tests of the planner: rows of the table of edge cases by name, properties over random
//! histories, and small models exhausted.

mod cases;
mod cases_steady;
mod cases_stuck;
mod conveyor;
mod cordon;
mod evictions;
mod exhaustive;
mod random;
mod rebalance;
mod redis;
pub(crate) mod sim;

use sluice_crds::ChannelClusterSpec;

/// A spec with everything at its default but the drain, which is quick, and without rebalancing.
pub(crate) fn spec(replicas: i32) -> ChannelClusterSpec {
    let mut s: ChannelClusterSpec =
        serde_json::from_value(serde_json::json!({})).expect("every field has a default");
    s.replicas = replicas;
    s.min_ready_seconds = 1;
    s.drain.initial_delay_seconds = 2;
    s.drain.batch_size = Some(2);
    s.drain.batch_interval_seconds = Some(1);
    s.drain.timeout_seconds = 300;
    // Most tests count moves, or lay clients out unevenly on purpose.
    s.rebalance.mode = sluice_crds::RebalanceMode::Off;
    s
}
