//! `down`: ends the local cluster and leaves nothing of it running, mounted or routed.

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, SYSTEM_NAMESPACE};
use crate::steps::step;
use crate::{Settings, leftovers, lock, packages};

/// What kubectl adds when a kind is not known.
const CRDS_FIRST: &str = "ensure CRDs are installed first";

/// Ends the local cluster; from a cluster of the user's it takes away what `up` installed there.
pub fn down(settings: &Settings, files_too: bool) -> Result<()> {
    if settings.is_local() {
        packages::check_machine()?;
        step("processes, mounts, network and cgroups removed", || leftovers::clear(settings))?;
    } else {
        uninstall(settings)?;
    }
    if files_too && settings.state.exists() {
        step("state folder removed", || {
            fs::remove_dir_all(&settings.state)
                .with_context(|| format!("removing {}", settings.state.display()))
        })?;
    }
    if settings.is_local() {
        lock::remove_machine();
    }
    Ok(())
}

fn uninstall(settings: &Settings) -> Result<()> {
    let cluster = Cluster::of(settings)?;
    step("the example deleted", || {
        let example = ["delete", "-f", "examples/chat.yaml", "--ignore-not-found"];
        let done = cluster.kubectl_capture(example)?;
        // Without the CRD there is no ChannelCluster, and kubectl has deleted all else.
        let told = done.stderr.lines().filter(|line| !line.trim().is_empty());
        let gone = |line: &str| line.contains("no matches for kind \"ChannelCluster\"");
        let other: Vec<&str> =
            told.filter(|line| !gone(line) && !line.contains(CRDS_FIRST)).collect();
        ensure!(done.success || other.is_empty(), "kubectl delete: {}", other.join("\n"));
        Ok(())
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
