//! The operator's program: arguments, and [`sluice_operator::run`].

use std::process::ExitCode;

use clap::Parser;
use sluice_operator::{args::Args, run};

fn main() -> ExitCode {
    run::main(Args::parse())
}
