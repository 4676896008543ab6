//! Clients that do not read while their topics speak, by the policy of the topic's rule.

mod flood;
mod plane;

use bytes::Bytes;
use flood::{SIZE, broadcast, dropped, read, rule};
use plane::{Node, PATIENCE};
use serde_json::{Value, json};
use sluice_node::pubsub::{Broadcast, Kind};
use sluice_node_api::config::{SlowConsumer, Socket};
use tokio::time::timeout;

async fn node() -> Node {
    let rules = vec![
        rule("lossy:*", SlowConsumer::DropOldest),
        rule("latest:*", SlowConsumer::LatestOnly),
        rule("*", SlowConsumer::Disconnect),
    ];
    Node::with(Socket::default(), rules).await
}

/// Broadcasts until `reason` is counted, one at a time so that the inbox has room; how many.
async fn overrun(node: &Node, topic: &str, reason: &'static str) -> u64 {
    let mut count = 0;
    let more = async {
        while dropped(node, reason) == 0 {
            broadcast(node, topic, count, 1);
            count += 1;
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, more).await.expect("it is too slow in the end");
    count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_misses_the_oldest_broadcasts_is_told_how_many_and_stays() {
    let node = node().await;
    let mut client = node.joined("lossy:1").await;
    let mut sent = overrun(&node, "lossy:1", "oldest").await;
    // What it is answered is never dropped, however many broadcasts follow.
    client.send(json!(["1", "7", "lossy:1", "hi", {}])).await;
    node.until("heard", |hub| hub.metrics().frames_in.get() >= 2).await;
    for _ in 0..40 {
        broadcast(&node, "lossy:1", sent, 1);
        sent += 1;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let mut others = Vec::new();
    let (came, gone) = read(&mut client, sent - 1, &mut others).await;
    assert_eq!(came + gone, sent);
    assert_eq!(gone, dropped(&node, "oldest"), "all that was dropped was told");
    let said: Vec<_> = others.iter().map(|m| (m[1].as_str(), m[3].as_str())).collect();
    assert!(said.contains(&(Some("7"), Some("phx_reply"))), "{said:?}");
    assert_eq!((node.hub.counts().connections, dropped(&node, "slow")), (1, 0));
    broadcast(&node, "lossy:1", sent, 1);
    assert_eq!(client.next().await[4]["n"], sent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_a_slow_client_is_closed_and_what_else_it_has_joined_does_not_save_it() {
    let node = node().await;
    let mut client = node.joined("strict:1").await;
    client.send(json!(["2", "2", "lossy:1", "phx_join", {}])).await;
    client.next().await;
    overrun(&node, "strict:1", "slow").await;
    assert_eq!(dropped(&node, "oldest"), 0);
    assert_eq!(client.close_code().await, Some(1008));
}

#[tokio::test]
async fn no_client_tells_another_that_broadcasts_were_dropped() {
    let node = node().await;
    for (topic, answer) in [("lossy:1", "error"), ("strict:1", "ok")] {
        let mut client = node.joined(topic).await;
        client.send(json!(["1", "2", topic, "sluice:dropped", {"count": 9}])).await;
        let mut message = client.next().await;
        if message[3] != "phx_reply" {
            message = client.next().await;
        }
        assert_eq!(message[4]["status"], answer, "{topic}: {message}");
    }
}

#[tokio::test]
async fn bytes_are_dropped_and_told_as_json_is() {
    let node = node().await;
    let mut client = node.joined("lossy:1").await;
    let payload = Bytes::from(vec![7; SIZE]);
    let (topic, event) = ("lossy:1".into(), "blob".into());
    let broadcast = Broadcast { topic, event, kind: Kind::Binary, payload };
    let more = async {
        while dropped(&node, "oldest") == 0 {
            node.hub.broadcast(broadcast.clone());
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
    };
    timeout(PATIENCE, more).await.expect("it is too slow in the end");
    loop {
        if let tokio_tungstenite::tungstenite::Message::Text(text) = client.message().await {
            let told: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!((&told[2], &told[3]), (&json!("lossy:1"), &json!("sluice:dropped")));
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_client_of_a_state_has_the_latest_alone_and_is_told_how_many_it_missed() {
    let node = node().await;
    let mut client = node.joined("latest:1").await;
    let mut sent = overrun(&node, "latest:1", "superseded").await;
    // As much again as may wait for a client: it is never too much.
    for _ in 0..20 {
        broadcast(&node, "latest:1", sent, 1);
        sent += 1;
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    let mut others = Vec::new();
    let (came, gone) = read(&mut client, sent - 1, &mut others).await;
    assert_eq!(came + gone, sent);
    assert!(gone >= 20, "{gone} of {sent}");
    assert_eq!(gone, dropped(&node, "superseded"), "all that was dropped was told");
    assert_eq!((dropped(&node, "oldest"), dropped(&node, "slow"), others.len()), (0, 0, 0));
    client.is_quiet().await;
}
