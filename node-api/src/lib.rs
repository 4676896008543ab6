//! What the operator and a node say to each other, and nothing else: the two configuration files
//! that the operator renders and a node reads ([`config`]), and the admin API that a node serves
//! and the operator calls ([`admin`]).
//!
//! This crate holds types only. It must never do I/O and never depend on Kubernetes: a node runs
//! without either.

pub mod admin;
pub mod auth;
pub mod config;
mod history;
mod live;
mod origin;
mod presence;
#[cfg(feature = "schema")]
mod schema;
mod slow;
pub mod webhooks;
