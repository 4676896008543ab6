//! Configuration files, origins and publish calls.

use std::path::Path;

use sluice_node_api::config::Origin;

use crate::{config, publish, relay::Rules};

/// A node's configuration is read, or refused with a reason.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match config::parse_node(Path::new("config.yaml"), text) {
        Ok(config) => drop(config::check_node(&config)),
        Err(error) => assert!(error.0.iter().all(|problem| !problem.reason.is_empty())),
    }
}

/// Live settings are read, or refused with a reason.
pub fn live(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match config::parse_live(Path::new("live.yaml"), text, true) {
        Ok(live) => drop(Rules::new(&live, "n").find("room:1").map(|rule| rule.max_payload())),
        Err(error) => assert!(error.0.iter().all(|problem| !problem.reason.is_empty())),
    }
}

/// What a publish call broadcasts breaks no rule of the protocol.
pub fn publish(bytes: &[u8]) {
    for broadcast in publish::parse(bytes).into_iter().flatten() {
        assert!((1..=255).contains(&broadcast.topic.len()), "P-BIN-5");
        assert!((1..=255).contains(&broadcast.event.len()), "P-BIN-5");
        assert!(!broadcast.event.starts_with("phx_"));
    }
}

/// An origin is read, or refused.
pub fn origin(bytes: &[u8]) {
    let Some(origin) = std::str::from_utf8(bytes).ok().and_then(Origin::parse) else { return };
    assert!(!origin.host.is_empty());
}
