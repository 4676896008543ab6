//! Whose the machine's one local cluster is. There is one bridge, one network namespace and one cgroup for each node,
//! whatever state folder a run has: a second folder must neither share them nor clear them.
//!
//! Nothing is written down for it: the cluster's processes carry their state folder's name, and a cluster without any
//! process is a leftover that anybody may clear.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow};

use crate::settings::STATE_VARIABLE;
use crate::{Settings, control_plane, network, processes};

/// The state folder, other than ours, whose cluster runs on this machine. Only root can tell.
pub fn other(settings: &Settings) -> Option<PathBuf> {
    other_in(&settings.state, processes::marks())
}

/// Refuses to touch the machine while another state folder's cluster runs on it.
pub fn refuse_other(settings: &Settings) -> Result<()> {
    other(settings).map_or(Ok(()), |other| Err(anyhow!(said(&other, settings))))
}

/// What to tell the user of another state folder's cluster.
pub fn said(other: &Path, settings: &Settings) -> String {
    format!(
        "This machine's one local cluster is that of the state folder {other}, not of {}: use it with {STATE_VARIABLE}={other}, or end it with {STATE_VARIABLE}={other} cargo e2e down",
        settings.state.display(),
        other = other.display(),
    )
}

fn other_in(own: &Path, marks: impl IntoIterator<Item = (PathBuf, String)>) -> Option<PathBuf> {
    marks.into_iter().find(|(state, name)| state != own && is_of_a_cluster(name)).map(|it| it.0)
}

/// Whether a component of this name uses what the machine has once.
fn is_of_a_cluster(name: &str) -> bool {
    control_plane::NAMES.contains(&name)
        || network::NODES.iter().any(|node| name.starts_with(node.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(marks: &[(&str, &str)]) -> Option<PathBuf> {
        let owned = marks.iter().map(|(state, name)| (PathBuf::from(state), String::from(*name)));
        other_in(Path::new("/var/lib/own"), owned)
    }

    #[test]
    fn another_folders_cluster_is_found_by_any_of_its_processes() {
        for name in ["etcd", "kube-apiserver", "sluice-b-containerd", "sluice-c-kubelet"] {
            let marks = [("/var/lib/own", "etcd"), ("/tmp/other", name)];
            assert_eq!(found(&marks), Some("/tmp/other".into()), "{name}");
        }
    }

    #[test]
    fn our_own_processes_and_those_of_no_cluster_are_nobody_elses() {
        assert_eq!(found(&[("/var/lib/own", "etcd"), ("/var/lib/own", "sluice-a-kubelet")]), None);
        assert_eq!(found(&[("/tmp/a-test", "sleeper")]), None);
        assert_eq!(found(&[]), None);
    }
}
