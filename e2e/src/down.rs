//! `down`: ends the local cluster and leaves nothing of it running, mounted or routed.

use std::fs;

use anyhow::{Context, Result};

use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::steps::step;
use crate::{Settings, leftovers, lock, packages};

/// Ends the local cluster; from a cluster of the user's it takes away what `up` installed there.
pub fn down(settings: &Settings, files_too: bool) -> Result<()> {
    if !settings.is_local() {
        return uninstall(settings);
    }
    packages::check_machine()?;
    step("processes, mounts, network and cgroups removed", || leftovers::clear(settings))?;
    if files_too && settings.state.exists() {
        step("state folder removed", || {
            fs::remove_dir_all(&settings.state)
                .with_context(|| format!("removing {}", settings.state.display()))
        })?;
    }
    lock::remove_machine();
    Ok(())
}

fn uninstall(settings: &Settings) -> Result<()> {
    let cluster = Cluster::of(settings)?;
    step("the example deleted", || {
        cluster.kubectl(["delete", "-f", "examples/chat.yaml", "--ignore-not-found"])
    })?;
    for release in ["sluice", "sluice-crds"] {
        step(&format!("{release} uninstalled"), || {
            cluster.helm([
                "uninstall",
                release,
                "-n",
                SYSTEM_NAMESPACE,
                "--ignore-not-found",
                "--wait",
            ])
        })?;
    }
    Ok(())
}
