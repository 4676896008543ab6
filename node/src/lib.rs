//! A Phoenix-Channels-compatible realtime node.

pub mod hub;
pub mod pubsub;
pub mod server;
