//! The operator's program: arguments, a runtime, and [`sluice_operator::run`].

use std::process::ExitCode;

use clap::Parser;
use sluice_operator::{args::Args, run::run};

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "can't go on");
            ExitCode::FAILURE
        }
    }
}
