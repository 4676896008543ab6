//! The Sluice operator: it reconciles `ChannelCluster`s into StatefulSets of channel nodes and
//! moves clients off a node before it lets that node go.
//!
//! The way through it: `main` → [`run`] (all wiring, in order) → [`reconcile`] (observe → build →
//! plan → apply, execute → report). [`build`], `plan` and `status` never see a client or a clock;
//! only [`apply`], [`execute`] and the status step write, and only while [`leader`] says so.

pub mod apply;
pub mod args;
pub mod backoff;
pub mod build;
pub mod diff;
pub mod events;
pub mod execute;
pub mod farewell;
pub mod foreign;
pub mod heal;
pub mod health;
pub mod hints;
pub mod leader;
mod lease_store;
mod leftover;
mod listen;
pub mod metrics;
pub mod model;
pub mod node_client;
pub mod observe;
pub mod plan;
pub mod reconcile;
mod redis_pod;
pub mod report;
pub mod run;
pub mod secrets;
pub mod settings;
pub mod sight;
pub mod status;
pub mod stores;
pub mod telemetry;
mod template;
pub mod tokens;
mod trouble;
pub mod webhook;
