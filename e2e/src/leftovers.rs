//! Clears all that a run of the cluster leaves on the machine, whether it was ended or killed at any point.
//!
//! Nothing is judged ours by a guess: processes by our mark in their environment or by our cgroups, mounts by lying
//! below the state folder, network and cgroups by our own names, unless another state folder's cluster uses them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rustix::mount::{UnmountFlags, unmount};
use rustix::process::Signal;

use crate::{Settings, cgroups, holder, network, processes};

/// Parts of the state folder that are a running cluster's, and are worth nothing without its processes.
const OF_A_CLUSTER: &[&str] = &["etcd", "nodes", "run"];

/// Folder in which every kubelet links its pods' logs, whatever it is told.
const LINKED_LOGS: &str = "/var/log/containers";

/// Ends and removes everything; the next `up` starts from nothing but built programs and images.
pub fn clear(settings: &Settings) -> Result<()> {
    holder::refuse_other(settings)?;
    // Whatever would start a container again ends first, then the containers, then the rest.
    for name in processes::recorded(settings) {
        if name.ends_with("-kubelet") || name.ends_with("-proxy") {
            processes::signal(settings, &name, Signal::KILL);
        }
    }
    cgroups::kill_all()?;
    let sockets = shim_sockets(settings);
    processes::kill_all_marked(settings)?;
    // A shim may have started one more in the meantime.
    cgroups::kill_all()?;
    for socket in sockets {
        let _ = fs::remove_file(socket);
    }
    unmount_all(&settings.state)?;
    network::remove()?;
    cgroups::remove()?;
    remove_log_links(&settings.state);
    for part in OF_A_CLUSTER {
        let folder = settings.state.join(part);
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("removing {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Whether there is anything to clear.
pub fn any(settings: &Settings) -> bool {
    OF_A_CLUSTER.iter().any(|part| settings.state.join(part).exists())
        || network::exists()
        || !cgroups::folders().is_empty()
        || !processes::all_marked(settings).is_empty()
}

fn unmount_all(folder: &Path) -> Result<()> {
    for mount in mounts_below(folder)?.iter().rev() {
        let _ = unmount(mount, UnmountFlags::DETACH);
    }
    // Removing files through a mount that is still there would reach what is not ours.
    let left = mounts_below(folder)?;
    ensure!(left.is_empty(), "these could not be unmounted: {left:?}");
    Ok(())
}

fn mounts_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let table = fs::read_to_string("/proc/self/mountinfo").context("reading the mounts")?;
    Ok(table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .map(|escaped| PathBuf::from(escaped.replace("\\040", " ")))
        .filter(|point| point != folder && point.starts_with(folder))
        .collect())
}

/// The shims' sockets: they lie in a folder that every containerd of the machine shares, under names that only the
/// shims' own files tell.
fn shim_sockets(settings: &Settings) -> Vec<PathBuf> {
    let mut sockets = Vec::new();
    for node in &network::NODES {
        let tasks = settings
            .state
            .join("nodes")
            .join(node.name)
            .join("state/io.containerd.runtime.v2.task/k8s.io");
        let Ok(entries) = fs::read_dir(tasks) else { continue };
        for entry in entries.flatten() {
            let Ok(text) = fs::read_to_string(entry.path().join("bootstrap.json")) else {
                continue;
            };
            let told: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
            if let Some(path) = told["address"].as_str().and_then(|at| at.strip_prefix("unix://")) {
                sockets.push(PathBuf::from(path));
                sockets.push(PathBuf::from(format!("{path}.debug")));
            }
        }
    }
    sockets.retain(|path| path.starts_with("/run/containerd/s"));
    sockets
}

fn remove_log_links(state: &Path) {
    let Ok(entries) = fs::read_dir(LINKED_LOGS) else { return };
    for entry in entries.flatten() {
        if fs::read_link(entry.path()).is_ok_and(|target| target.starts_with(state)) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
