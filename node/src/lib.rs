//! A Phoenix-Channels-compatible realtime node.

pub mod backoff;
pub mod frame;
pub mod hub;
pub mod mesh;
pub mod pubsub;
pub mod server;
