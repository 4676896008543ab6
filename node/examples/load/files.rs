//! The open files that a run needs, in this program and in each that it starts: they inherit the limit.

use anyhow::bail;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::Args;

/// Files that a shard has open by itself.
const OF_SHARD: u64 = 4;

/// Takes as many as may be had.
///
/// # Errors
/// They are fewer than the run needs.
pub fn raise(args: &Args) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    let (connections, most) = (args.connections, limit.maximum);
    let need = need(connections as u64, args.shards as u64);
    if let Some(most) = most.filter(|most| *most < need) {
        bail!(
            "{connections} connections need {need} open files, and {most} are the most here: \
             `ulimit -n {need}` as a user who may, or fewer `--connections`"
        );
    }
    limit.current = most;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

/// A node keeps a quarter of its files for others than clients, 64 at the least and 4096 at the most.
fn need(connections: u64, shards: u64) -> u64 {
    let held = connections.saturating_add(shards.saturating_mul(OF_SHARD));
    held.saturating_add(held.div_ceil(3).clamp(64, 4096))
}
