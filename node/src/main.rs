//! `channel-node`: a Phoenix-Channels-compatible realtime node.

use std::process::ExitCode;

use clap::Parser;
use sluice_node::run;

fn main() -> ExitCode {
    run::main(&run::Args::parse())
}
