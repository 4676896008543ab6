//! The operator's program: arguments, a runtime, and [`sluice_operator::run`].

use clap::Parser;
use sluice_operator::{args::Args, run::run};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    run(Args::parse()).await
}
