//! The local Kubernetes that Sluice is tried and tested on, and what the end-to-end tests need of it.
//!
//! `cargo e2e` ([`cli`]) brings a real three-node Kubernetes up and down on one Linux machine, or works with a cluster
//! that the user names. Tests start at [`Cluster::connect`].
//!
//! Nothing in here may touch a process, mount, namespace, link or cgroup that it did not make itself.

#![cfg(target_os = "linux")]
#![warn(clippy::print_stdout, reason = "it panics when nobody reads: `say!` does not")]

pub mod binaries;
pub mod cargo;
pub mod cgroups;
pub mod check;
pub mod cli;
pub mod cluster;
pub mod command;
pub mod control_plane;
pub mod down;
#[cfg(test)]
mod edge_cases;
pub mod fuzz;
pub mod holder;
pub mod image_build;
pub mod images;
pub mod install;
pub mod leftovers;
pub mod load;
pub mod lock;
pub mod matrix;
pub mod network;
pub mod node;
pub mod node_config;
pub mod npm;
pub mod packages;
pub mod pki;
pub mod plot;
pub mod pods;
pub mod processes;
pub mod record;
pub mod recording;
pub mod rootfs;
mod say;
pub mod settings;
pub mod status;
pub mod steps;
pub mod storage;
pub mod up;

pub use cluster::Cluster;
pub use settings::Settings;
