//! `channel-node`: a Phoenix-Channels-compatible realtime node.

use std::process::ExitCode;

use clap::Parser;
use sluice_node::run;

/// It gives memory back after a burst, where the system's own keeps most of it. The library leaves
/// the choice to its user.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    run::main(&run::Args::parse())
}
