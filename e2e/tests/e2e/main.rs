//! End-to-end tests: real Kubernetes, real containers, live unmodified phoenix.js clients.
//!
//! Each test has a namespace of its own and may run beside the others, in any order. `cargo e2e test` runs them all,
//! `cargo e2e test NAME` some of them.

mod adapters;
mod api;
mod auth;
mod backend;
mod care;
mod chat;
mod clusters;
mod deploys;
mod drain_metrics;
mod drains;
mod edges;
mod evictions;
mod faults;
mod live_config;
mod obstacles;
mod page;
mod people;
mod ports;
mod rebalance;
mod redis;
mod release;
mod rollouts;
mod scaling;
mod security;
mod sidecar;
mod support;
mod telling;
mod template;
mod tokens;
mod turmoil;
mod upgrade;
