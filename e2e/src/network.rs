//! The network: one bridge, a namespace for each node, and the routes between their pods.
//!
//! Every name starts with `sluice`, and only those are ever made or removed. Traffic never leaves the machine: the host
//! does not forward, and service addresses that no node has translated are unreachable on it.

use std::fs;
use std::path::Path;

use anyhow::Result;

use crate::command::{SHORT, capture, command, output};

/// The bridge that joins the nodes.
pub const BRIDGE: &str = "sluice0";
/// The host's address on the bridge, where the control plane and DNS listen.
pub const HOST: &str = "10.200.0.1";
/// The addresses of all pods.
pub const PODS: &str = "10.201.0.0/16";
/// The addresses of services.
pub const SERVICES: &str = "10.202.0.0/16";
/// The first service address, which is the API server's own.
pub const CLUSTER_IP: &str = "10.202.0.1";

/// A node of the local cluster.
#[derive(Debug, Clone, Copy)]
pub struct Node {
    /// Its name, which its network namespace and its cgroup have too.
    pub name: &'static str,
    /// Its address on the bridge.
    pub address: &'static str,
    /// The addresses of its pods.
    pub pods: &'static str,
    /// Its link on the host's side.
    link: &'static str,
}

/// The nodes of the local cluster.
pub const NODES: [Node; 3] = [
    Node { name: "sluice-a", address: "10.200.0.11", pods: "10.201.1.0/24", link: "sluice-a0" },
    Node { name: "sluice-b", address: "10.200.0.12", pods: "10.201.2.0/24", link: "sluice-b0" },
    Node { name: "sluice-c", address: "10.200.0.13", pods: "10.201.3.0/24", link: "sluice-c0" },
];

/// Makes what is missing of the network.
pub fn ensure() -> Result<()> {
    if !link_exists(BRIDGE) {
        ip(&["link", "add", BRIDGE, "type", "bridge"])?;
    }
    ip(&["address", "replace", &format!("{HOST}/24"), "dev", BRIDGE])?;
    ip(&["link", "set", BRIDGE, "up"])?;
    ip(&["route", "replace", "unreachable", SERVICES])?;
    for node in &NODES {
        ensure_node(node)?;
    }
    Ok(())
}

fn ensure_node(node: &Node) -> Result<()> {
    let name = node.name;
    if !namespace_exists(name) {
        ip(&["netns", "add", name])?;
    }
    if !link_exists(node.link) {
        ip(&["link", "add", node.link, "type", "veth", "peer", "name", "eth0", "netns", name])?;
    }
    ip(&["link", "set", node.link, "master", BRIDGE, "up"])?;
    let inside = |arguments: &[&str]| ip(&[&["-n", name], arguments].concat());
    inside(&["link", "set", "lo", "up"])?;
    inside(&["address", "replace", &format!("{}/24", node.address), "dev", "eth0"])?;
    inside(&["link", "set", "eth0", "up"])?;
    for other in NODES.iter().filter(|other| other.name != name) {
        inside(&["route", "replace", other.pods, "via", other.address])?;
    }
    // Looked up before kube-proxy translates the address, so there must be one.
    inside(&["route", "replace", SERVICES, "via", HOST])?;
    let forward = ["netns", "exec", name, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
    ip(&forward)?;
    ip(&["route", "replace", node.pods, "via", node.address, "dev", BRIDGE])
}

/// Removes all of the network.
pub fn remove() -> Result<()> {
    for node in &NODES {
        if namespace_exists(node.name) {
            ip(&["netns", "delete", node.name])?;
        }
        // A link whose far end was in the namespace goes with it, but later: not to be waited for.
        if link_exists(node.link) {
            let _ = ip(&["link", "delete", node.link]);
        }
    }
    if link_exists(BRIDGE) {
        ip(&["link", "delete", BRIDGE])?;
    }
    let route = output(&mut command("ip", ["route", "show", "type", "unreachable", SERVICES]))?;
    if !route.trim().is_empty() {
        ip(&["route", "delete", "unreachable", SERVICES])?;
    }
    Ok(())
}

/// Whether any part of the network is there.
pub fn exists() -> bool {
    link_exists(BRIDGE) || NODES.iter().any(|node| namespace_exists(node.name))
}

fn namespace_exists(name: &str) -> bool {
    let path = Path::new("/run/netns").join(name);
    if !path.exists() {
        return false;
    }
    // A file without its mount is what a killed `ip netns add` leaves.
    let whole = capture(&mut command("ip", ["-n", name, "link", "show", "lo"]), SHORT)
        .is_ok_and(|done| done.success);
    if !whole {
        let _ = fs::remove_file(&path);
    }
    whole
}

fn link_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

fn ip(arguments: &[&str]) -> Result<()> {
    output(&mut command("ip", arguments)).map(|_| ())
}
