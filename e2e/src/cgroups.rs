//! The nodes' cgroups: one tree for each node, in every hierarchy (version 1) or in the one there is (version 2).
//!
//! Only cgroups named as a node are made, emptied or removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Signal, pidfd_send_signal};

use crate::command::wait_until;
use crate::network::NODES;
use crate::processes::handle;

const ROOT: &str = "/sys/fs/cgroup";

/// Whether the machine has the one hierarchy of version 2.
pub fn is_v2() -> bool {
    Path::new(ROOT).join("cgroup.controllers").exists()
}

/// Makes a node's cgroups.
pub fn ensure(node: &str) -> Result<()> {
    if is_v2() {
        let own = Path::new(ROOT).join(node);
        make(&own)?;
        for folder in [Path::new(ROOT), &own] {
            for controller in ["cpu", "cpuset", "io", "memory", "pids", "hugetlb"] {
                // Each by itself: a machine may lack one, and the kubelet says which it cannot do without.
                let _ = fs::write(folder.join("cgroup.subtree_control"), format!("+{controller}"));
            }
        }
        return Ok(());
    }
    for hierarchy in hierarchies() {
        let own = hierarchy.join(node);
        make(&own)?;
        // A new cpuset is empty, and nothing runs in it until it has processors and memory.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(all) = fs::read(hierarchy.join(file)) {
                fs::write(own.join(file), all)
                    .with_context(|| format!("filling {}", own.display()))?;
            }
        }
    }
    Ok(())
}

/// Kills every process in the nodes' cgroups.
pub fn kill_all() -> Result<()> {
    let empty = wait_until(Duration::from_secs(10), || {
        let pids = processes();
        for pid in &pids {
            if let Some(handle) = handle(*pid) {
                let _ = pidfd_send_signal(handle, Signal::KILL);
            }
        }
        Ok(pids.is_empty())
    })?;
    ensure!(empty, "some processes in the nodes' cgroups did not end: {:?}", processes());
    Ok(())
}

/// Removes the nodes' cgroups, which must be empty by now.
pub fn remove() -> Result<()> {
    let gone = wait_until(Duration::from_secs(10), || {
        for folder in folders() {
            for inner in below(&folder).iter().rev() {
                let _ = fs::remove_dir(inner);
            }
        }
        Ok(folders().is_empty())
    })?;
    ensure!(gone, "these cgroups could not be removed: {:?}", folders());
    Ok(())
}

/// The processes in the cgroup whose folder has this name, below any node.
pub fn members(name: &str) -> Vec<i32> {
    let found = folders().iter().flat_map(|folder| below(folder)).find(|folder| {
        folder.file_name().is_some_and(|own| own.to_string_lossy().contains(name))
            && !listed(folder).is_empty()
    });
    found.map(|folder| listed(&folder)).unwrap_or_default()
}

/// The top cgroups of the nodes that are there.
pub fn folders() -> Vec<PathBuf> {
    let roots = if is_v2() { vec![PathBuf::from(ROOT)] } else { hierarchies() };
    let mut folders: Vec<PathBuf> = roots
        .iter()
        .chain([&Path::new(ROOT).join("unified")])
        .flat_map(|root| NODES.iter().map(move |node| root.join(node.name)))
        .filter(|folder| folder.is_dir())
        .collect();
    folders.dedup();
    folders
}

fn processes() -> Vec<i32> {
    let mut pids: Vec<i32> =
        folders().iter().flat_map(|folder| below(folder)).flat_map(|f| listed(&f)).collect();
    pids.sort_unstable();
    pids.dedup();
    pids
}

fn listed(folder: &Path) -> Vec<i32> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
}

/// A folder and all below it, outer ones first.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut all = vec![folder.to_path_buf()];
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                all.extend(below(&entry.path()));
            }
        }
    }
    all
}

fn hierarchies() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(ROOT) else { return Vec::new() };
    let mut all: Vec<PathBuf> = entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| path.join("cgroup.procs").exists())
        .filter(|path| !path.join("cgroup.controllers").exists())
        .collect();
    all.sort();
    all
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("making the cgroup {}", folder.display()))
}
