//! A Phoenix-Channels-compatible realtime node.

mod accept;
pub mod backoff;
pub mod config;
pub mod discovery;
pub mod drain;
pub mod frame;
mod handshake;
pub mod hub;
pub mod mesh;
mod interest;
pub mod message;
mod plane;
pub mod protocol;
pub mod pubsub;
pub mod queue;
pub mod redis_adapter;
pub mod relay;
pub mod serializer;
mod shard;
pub mod server;
