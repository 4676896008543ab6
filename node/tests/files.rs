//! A node that may have few files open.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use support::{BOUND, Dir, program::Running};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::tungstenite::Error;

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

#[tokio::test]
async fn a_node_at_its_limit_of_files_refuses_sockets_and_stays_within_reach() {
    let dir = Dir::new();
    let node = Running::start_with_files(&dir, FILES);
    let url = format!("ws://{}/socket/websocket?vsn=2.0.0", node.address("http"));
    let connect = async || {
        let connect = tokio_tungstenite::connect_async(&url);
        timeout(BOUND, connect).await.expect("an answer")
    };
    let mut open = Vec::new();
    let refused = loop {
        match connect().await {
            Ok((socket, _)) => open.push(socket),
            Err(Error::Http(answer)) => break answer,
            Err(error) => panic!("no answer to the {}th: {error}", open.len() + 1),
        }
    };
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(metric(&node, "sluice_capacity ").await, open.len());
    assert_eq!(metric(&node, "sluice_connections ").await, open.len());
    drop(open.pop());
    // Whom it has refused may still be going.
    let room = async {
        while connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, room).await.expect("room again");
}

#[tokio::test]
async fn connections_that_ask_nothing_take_no_file_from_others() {
    let dir = Dir::new();
    let node = Running::start_with_files(&dir, FILES);
    let connects = (0..FILES + 40).map(|_| TcpStream::connect(node.address("http")));
    let open: Vec<_> = futures::stream::iter(connects).buffered(8).collect().await;
    assert!(open.iter().all(Result::is_ok), "the kernel takes them");
    let refused = async {
        while metric(&node, "sluice_refused_total{reason=\"files\"} ").await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BOUND, refused).await.expect("counted");
    assert_eq!(metric(&node, "sluice_refused_total{reason=\"accept\"} ").await, 0);
}
