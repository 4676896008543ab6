//! A container's process and network as the machine sees them, for tests that kill or freeze one. Local only.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Signal, pidfd_send_signal};

use crate::command::command;
use crate::processes::handle;
use crate::{Cluster, cgroups};

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its pod's UID.
    pub pod_uid: String,
    /// Its ID in containerd.
    pub id: String,
    /// Its first process, as the machine counts.
    pub pid: i32,
}

impl Container {
    /// Sends its first process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let handle = handle(self.pid).context("the container's process has ended")?;
        // The number may have been used again since it was read.
        ensure!(cgroups::members(&self.id).contains(&self.pid), "the container has ended");
        pidfd_send_signal(handle, signal).context("signalling the container's process")
    }

    /// Ends it at once.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Freezes it.
    pub fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Its pod's network namespace.
    pub fn network_namespace(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/ns/net", self.pid))
    }

    /// A program of the machine's, to be run in the pod's network.
    pub fn in_network(&self, program: &str) -> Command {
        command(
            "nsenter",
            [format!("--net={}", self.network_namespace().display()), program.into()],
        )
    }
}

/// Finds a container of a pod by name.
pub fn find(cluster: &Cluster, namespace: &str, pod: &str, container: &str) -> Result<Container> {
    ensure!(cluster.is_local(), "only the local cluster's processes can be reached");
    let told = cluster.kubectl(["get", "pod", "-n", namespace, pod, "-o", "json"])?;
    let object: serde_json::Value = serde_json::from_str(&told)?;
    let statuses = object["status"]["containerStatuses"].as_array();
    let id = statuses
        .into_iter()
        .flatten()
        .find(|status| status["name"] == container)
        .and_then(|status| status["containerID"].as_str())
        .and_then(|id| id.strip_prefix("containerd://"))
        .with_context(|| format!("pod {pod} has no container {container} that was started"))?;
    let pod_uid = object["metadata"]["uid"].as_str().unwrap_or_default().to_owned();
    let Some(pid) = cgroups::members(id).first().copied() else {
        bail!("container {container} of pod {pod} is not running");
    };
    Ok(Container { pod_uid, id: id.to_owned(), pid })
}
