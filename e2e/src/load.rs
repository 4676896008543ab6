//! What one node costs on this machine, beside a bare epoll server: builds the node as it is released and the load
//! program, and runs them. No cluster is needed.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::Settings;
use crate::cargo::{built, cargo};
use crate::command::{LONG, capture, command, stream};
use crate::packages;
use crate::steps::step;

/// Builds and runs; `arguments` go to the load program.
pub fn run(settings: &Settings, arguments: &[String]) -> Result<()> {
    packages::need(settings, packages::LOAD)?;
    let (load, node) = step("channel-node and load", || programs(settings))?;
    let mut measure = command(load, ["--node"]);
    if !stream(measure.arg(node).args(arguments), LONG)?.success() {
        bail!("what it said is above");
    }
    Ok(())
}

fn programs(settings: &Settings) -> Result<(PathBuf, PathBuf)> {
    let mut build = cargo(settings, &["build", "--profile", "local", "--package", "sluice-node"]);
    build.args(["--bin", "channel-node", "--example", "load"]);
    let done = capture(build.args(["--message-format", "json-render-diagnostics"]), LONG)?;
    if !done.success {
        bail!("cargo build failed:\n{}", done.stderr);
    }
    Ok((built(&done.stdout, "load")?, built(&done.stdout, "channel-node")?))
}
