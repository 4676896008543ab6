//! A Phoenix-Channels-compatible realtime node.
//!
//! Two halves meet at a [`Hub`](hub::Hub) and an [`Adapter`](pubsub::Adapter):
//!
//! - the data plane holds the clients' sockets. [`server::Builder`] starts it; a connection goes
//!   through the HTTP handshake to a shard and stays there. [`frame`], [`serializer`], [`protocol`]
//!   and [`drain`] are its rules, without I/O; [`channel`] is what a program adds to it;
//! - the rest holds no client's socket: [`mesh`] and [`redis_adapter`] carry broadcasts between
//!   nodes, [`admin`] and [`publish`] are the APIs, [`run`] is the whole program.

mod accept;
pub mod admin;
pub mod api;
mod arrivals;
pub mod auth;
pub mod backoff;
pub mod channel;
pub mod cluster;
pub mod config;
pub mod discovery;
pub mod drain;
mod files;
pub mod frame;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod handshake;
mod history;
mod https;
pub mod hub;
mod interest;
pub mod keys;
pub mod links;
pub mod listen;
mod longpoll;
mod memory;
pub mod mesh;
pub mod message;
mod nesting;
mod origin;
mod pace;
mod paces;
pub mod places;
mod plane;
mod presence;
pub mod process;
pub mod protocol;
pub mod publish;
pub mod pubsub;
pub mod queue;
mod readable;
pub mod redis_adapter;
pub mod relay;
pub mod run;
pub mod serializer;
pub mod server;
mod shard;
mod stock;
mod subprotocol;
pub mod telemetry;
pub mod webhook;

/// Has the compiler read the program that the docs show.
#[cfg(doctest)]
#[doc = include_str!("../../docs/library.md")]
struct Library;
