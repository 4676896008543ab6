//! What the live clients tell of what happened to them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// What happened to a group, in figures.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub clients: usize,
    pub joined: usize,
    pub by_node: BTreeMap<String, usize>,
    pub moves: Moves,
    pub close_codes: BTreeMap<String, usize>,
    pub away: Away,
    pub deliveries: Deliveries,
    /// Messages that clients have from the history of a join alone.
    pub caught_up: usize,
    pub peak_over_mean: Peak,
    /// When clients were back, in milliseconds since the epoch, in order.
    pub rejoins: Vec<u64>,
    /// When clients left, by the name of their pod, in milliseconds since the epoch.
    pub closes_by_node: BTreeMap<String, Vec<f64>>,
    pub errors: BTreeMap<String, usize>,
    pub samples: Value,
}

impl Report {
    /// The most clients that were back within one second, wherever that begins.
    pub fn busiest_second(&self) -> usize {
        let windows = self.rejoins.iter().enumerate();
        let within = |(i, first): (usize, &u64)| {
            self.rejoins[i..].iter().take_while(|at| **at < first + 1000).count()
        };
        windows.map(within).max().unwrap_or(0)
    }

    /// The longest that one pod took from the first client that it closed to the last, in seconds.
    pub fn longest_drain(&self) -> f64 {
        let spans = self.closes_by_node.values().map(|closes| {
            let (first, last) = closes
                .iter()
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), at| (a.min(*at), b.max(*at)));
            (last - first) / 1e3
        });
        spans.fold(0.0, f64::max)
    }
}

/// How often clients were moved.
#[derive(Debug, Clone, Deserialize)]
pub struct Moves {
    pub mean: f64,
    /// Clients by number of moves.
    pub counts: BTreeMap<String, usize>,
}

/// Milliseconds between a close and the join after it.
#[derive(Debug, Clone, Deserialize)]
pub struct Away {
    pub p50: u64,
    pub p99: u64,
    pub max: u64,
}

/// What became of the publishers' messages.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Deliveries {
    pub expected: usize,
    pub missed_while_joined: usize,
    pub missed_while_moving: usize,
    pub duplicates: usize,
    /// Missed while joined, by the pods that took and that should have delivered them, with the time of the first and last.
    pub paths: Value,
    pub examples: Value,
}

/// The most clients on one pod, over clients by replicas.
#[derive(Debug, Clone, Deserialize)]
pub struct Peak {
    pub start: f64,
    pub during: f64,
}
