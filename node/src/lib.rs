//! A Phoenix-Channels-compatible realtime node.

pub mod pubsub;
