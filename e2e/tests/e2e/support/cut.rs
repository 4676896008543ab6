//! Packets that a pod's network drops, for as long as a value lives. Local only.

use std::{fs::File, os::fd::AsRawFd};

use anyhow::{Context, Result};
use sluice_e2e::{
    command::{command, output},
    pods::Container,
};

/// Rules of pods' networks; they go with this value.
#[derive(Default)]
pub struct Cut(Vec<(File, Vec<String>)>);

impl Cut {
    /// Drops what matches, a chain and its conditions as iptables has them, in a container's network.
    pub fn drop_packets(&mut self, container: &Container, matching: &[&str]) -> Result<()> {
        // Held open: the container may end, its pod's network stays.
        let path = container.network_namespace();
        let network = File::open(&path).with_context(|| format!("{}", path.display()))?;
        let rule: Vec<String> =
            matching.iter().chain(&["--jump", "DROP"]).map(ToString::to_string).collect();
        iptables(&network, "--insert", &rule)?;
        self.0.push((network, rule));
        Ok(())
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        for (network, rule) in &self.0 {
            if let Err(error) = iptables(network, "--delete", rule) {
                eprintln!("  a pod still drops packets by {rule:?}: {error:#}");
            }
        }
    }
}

fn iptables(network: &File, action: &str, rule: &[String]) -> Result<()> {
    let network = format!("--net=/proc/{}/fd/{}", std::process::id(), network.as_raw_fd());
    let mut run = command("nsenter", [network.as_str(), "iptables", action]);
    output(run.args(rule)).map(drop)
}
