//! A node that may have few files open.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;

use serde_json::Value;
use support::{BOUND, Dir, program::Running};

/// More than any node here may hold.
const MANY: usize = 500;
const FILES: u32 = 160;

async fn metric(node: &Running, name: &str) -> usize {
    let text = reqwest::get(format!("http://{}/metrics", node.address("admin"))).await.unwrap();
    let text = text.text().await.unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.trim().parse().unwrap())
}

/// Opens long-poll sessions, all on one connection, until there are `most` or one is refused; how many
/// there are, and the status of what was refused.
async fn sessions(http: SocketAddr, most: usize) -> (usize, Option<u16>) {
    let client = reqwest::Client::builder().timeout(BOUND).no_proxy().build().unwrap();
    for open in 0..most {
        let url = format!("http://{http}/socket/longpoll?vsn=2.0.0");
        let answer = client.get(url).send().await.unwrap();
        let status = answer.status().as_u16();
        if status != 200 {
            assert!(answer.headers().contains_key("retry-after"), "{status}");
            return (open, Some(status));
        }
        let opened: Value = answer.json().await.unwrap();
        assert!(opened["token"].is_string(), "{opened}");
    }
    (most, None)
}

#[tokio::test]
async fn long_poll_sessions_are_no_more_than_the_node_holds() {
    let dir = Dir::new();
    let node = Running::start_with_files(&dir, FILES);
    let capacity = metric(&node, "sluice_capacity ").await;
    assert!((1..=FILES as usize).contains(&capacity), "{capacity}");
    assert_eq!(sessions(node.address("http"), MANY).await, (capacity, Some(503)));
    assert_eq!(metric(&node, "sluice_connections ").await, capacity);
    assert!(metric(&node, "sluice_refused_total{reason=\"full\"} ").await > 0);
}
