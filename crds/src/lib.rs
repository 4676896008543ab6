//! The `ChannelCluster` API, group `sluice.dev`, version `v1alpha1`: types, schema, validation and
//! the names that everything made for a cluster goes by.
//!
//! [`schema::crd`] is the CustomResourceDefinition as it is published; `crdgen` writes it, and the
//! API reference, to their files. This crate talks to no API server.

mod auth;
mod cluster;
mod drain;
pub mod names;
pub mod node_files;
mod pod_template;
mod redis;
pub mod reference;
pub mod schema;
mod socket;
mod spec;
mod status;
mod url;
mod webhooks;

pub use auth::*;
pub use cluster::{ChannelCluster, ChannelClusterSpec};
pub use drain::*;
pub use pod_template::*;
pub use redis::*;
pub use sluice_node_api::{
    admin::DrainMode,
    config::{Adapter, ChannelRule, Routing},
};
pub use socket::Socket;
pub use spec::*;
pub use status::*;
pub use webhooks::*;
