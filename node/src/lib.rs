//! A Phoenix-Channels-compatible realtime node.

pub mod backoff;
pub mod frame;
pub mod hub;
pub mod message;
pub mod protocol;
pub mod mesh;
pub mod pubsub;
pub mod relay;
pub mod serializer;
pub mod server;
