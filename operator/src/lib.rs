//! The Sluice operator: it reconciles `ChannelCluster`s into StatefulSets of channel nodes and
//! moves clients off a node before it lets that node go.
//!
//! The way through it: `main` → [`run`] (all wiring, in order) → [`reconcile`] (observe → build →
//! plan → apply, execute → report). [`build`], `plan` and `status` never see a client or a clock;
//! only [`apply`], [`execute`] and the status step write, and only while [`leader`] says so.

pub mod backoff;
pub mod leader;
mod lease_store;
