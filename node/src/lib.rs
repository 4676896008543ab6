//! A Phoenix-Channels-compatible realtime node.

mod accept;
mod handshake;
mod interest;
mod plane;
mod shard;
pub mod admin;
pub mod api;
pub mod backoff;
pub mod config;
pub mod discovery;
pub mod drain;
pub mod frame;
pub mod hub;
pub mod links;
pub mod mesh;
pub mod message;
pub mod process;
pub mod protocol;
pub mod publish;
pub mod pubsub;
pub mod queue;
pub mod redis_adapter;
pub mod relay;
pub mod run;
pub mod serializer;
pub mod server;
pub mod telemetry;
