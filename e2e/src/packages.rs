//! The Debian packages that the local cluster is made with, and the other things a machine must bring.
//!
//! It installs Debian packages where it may, and nothing else; anything else that is missing is named.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::Settings;
use crate::command::{command, logged};
use crate::say::say;
use crate::steps::step;

/// Files that must be there, each with the Debian package that brings it.
pub type Needs = &'static [(&'static str, &'static str)];

/// What the local cluster is made with.
pub const CLUSTER: Needs = &[
    ("runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("ip", "iproute2"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("conntrack", "conntrack"),
    ("buildah", "buildah"),
    ("redis-check-rdb", "redis-tools"), // the server itself, without the package that starts one
    ("nsenter", "util-linux"),
    ("setpriv", "util-linux"),
    ("make", "make"),       // builds the node's allocator
    ("python3", "python3"), // runs the example of a backend, in an image of its own
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// What images are built with, for a cluster that the user has.
pub const IMAGES: Needs = &[
    ("buildah", "buildah"),
    ("redis-check-rdb", "redis-tools"),
    ("make", "make"),
    ("python3", "python3"),
    ("/etc/ssl/certs/ca-certificates.crt", "ca-certificates"),
];

/// What the tests need: a Redis for the node's own tests, a browser for the chat page.
pub const TESTS: Needs =
    &[("make", "make"), ("redis-check-rdb", "redis-tools"), ("chromium", "chromium")];

/// What the load test needs.
pub const LOAD: Needs = &[("make", "make")];

/// What the matrix of clients needs.
pub const MATRIX: Needs =
    &[("make", "make"), ("python3", "python3-venv"), ("chromium", "chromium")];

/// The way out for machines that cannot carry the local cluster.
const WAY_OUT: &str = "Or use a cluster that you have: cargo e2e --context NAME --registry REGISTRY up (kind's works too)";

/// Refuses machines that the local cluster cannot run on.
pub fn check_machine() -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "The local Kubernetes makes network namespaces and cgroups, so it needs root: run the same command as root. {WAY_OUT}"
        );
    }
    Ok(())
}

/// Refuses machines that cannot build Kubernetes.
pub fn check_go() -> Result<()> {
    if find("go").is_none() {
        bail!(
            "Kubernetes is built with Go, and no `go` is on the PATH: install Go 1.26 or later. {WAY_OUT}"
        );
    }
    Ok(())
}

/// Makes the folder of the logs, and installs the Debian packages that are missing, or names them.
pub fn need(settings: &Settings, needs: Needs) -> Result<()> {
    settings.prepare()?;
    let installed = step("Debian packages", || install(settings, needs))?;
    if !installed.is_empty() {
        say!("       installed {}", installed.join(" "));
    }
    Ok(())
}

/// Installs the Debian packages that are missing; returns their names.
fn install(settings: &Settings, needs: Needs) -> Result<Vec<&'static str>> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|(file, _)| find(file).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    if find("apt-get").is_none() || !rustix::process::geteuid().is_root() {
        bail!(
            "These are missing: as root, install the packages {} (their names on Debian)",
            missing.join(" ")
        );
    }
    let log = settings.log("apt-get");
    let limit = Duration::from_secs(600);
    let apt = |arguments: &[&str]| {
        let mut apt = command("apt-get", arguments);
        apt.env("DEBIAN_FRONTEND", "noninteractive");
        logged(&mut apt, &log, limit)
    };
    apt(&["update", "-q"])?;
    let mut arguments = vec!["install", "-q", "-y", "--no-install-recommends"];
    arguments.extend(&missing);
    apt(&arguments)?;
    Ok(missing)
}

/// Where a program is: on the PATH or among the system's own.
pub fn find(program: &str) -> Option<PathBuf> {
    if program.starts_with('/') {
        return Path::new(program).exists().then(|| PathBuf::from(program));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin"].map(PathBuf::from))
        .map(|folder| folder.join(program))
        .find(|file| fs::metadata(file).is_ok_and(|data| data.is_file()))
}
