//! What one socket may ask for in a second.

mod plane;

use plane::{Client, Node, PATIENCE};
use serde_json::{Value, json};
use sluice_node::hub::Reason;
use sluice_node_api::config::{ChannelRule, HistoryRule, Socket};
use tokio::time::timeout;

fn rejected(node: &Node, reason: &'static str) -> u64 {
    node.hub.metrics().rejected.get_or_create(&Reason { reason }).get()
}

/// Asks for `count` joins at once; the replies.
async fn join(client: &mut Client, prefix: &str, count: usize) -> Vec<Value> {
    for n in 0..count {
        let n = n.to_string();
        client.send(json!([n, n, format!("{prefix}{n}"), "phx_join", {}])).await;
    }
    let mut replies = Vec::new();
    for n in 0..count {
        let reply = client.next().await;
        assert_eq!((&reply[0], &reply[1]), (&json!(n.to_string()), &json!(n.to_string())));
        replies.push(reply[4].clone());
    }
    replies
}

#[tokio::test]
async fn joins_of_a_socket_are_bounded_a_second_and_it_can_join_again() {
    // A rule that is relayed, and one that needs a channel.
    let kept = ChannelRule {
        topic: "kept:*".into(),
        history: Some(HistoryRule::default()),
        ..ChannelRule::room()
    };
    let socket = Socket { max_joins_per_second: Some(2), ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room(), kept]).await;
    for prefix in ["room:", "kept:"] {
        let before = rejected(&node, "joins");
        let mut client = node.client().await;
        let replies = join(&mut client, prefix, 40).await;
        assert!(replies[..2].iter().all(|reply| reply["status"] == "ok"), "{replies:?}");
        let reason = json!({"reason": "too many joins, at most 2 a second"});
        let refused = replies.iter().filter(|reply| reply["status"] == "error");
        let refused = refused.inspect(|reply| assert_eq!(reply["response"], reason)).count();
        assert!(refused > 0, "forty joins take less than twenty seconds");
        assert_eq!(rejected(&node, "joins") - before, refused as u64);
        // Another socket has joins of its own.
        node.client().await.is_quiet().await;
        assert_eq!(join(&mut node.client().await, prefix, 1).await[0]["status"], "ok");
        let again = async {
            while join(&mut client, prefix, 1).await[0]["status"] != "ok" {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, again).await.expect("a second later at the latest");
    }
}

#[tokio::test]
async fn by_default_a_client_may_join_all_of_its_channels_at_once() {
    let node = Node::start().await;
    let mut client = node.client().await;
    let replies = join(&mut client, "room:", 100).await;
    assert!(replies.iter().all(|reply| reply["status"] == "ok"), "{replies:?}");
    assert_eq!(rejected(&node, "joins"), 0);
}

#[tokio::test]
async fn more_channels_than_a_socket_may_have_are_refused_and_counted() {
    let socket = Socket { max_channels: 1, max_joins_per_second: Some(9), ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    let replies = join(&mut node.client().await, "room:", 3).await;
    assert_eq!(replies[0]["status"], "ok");
    for reply in &replies[1..] {
        assert_eq!(reply["response"], json!({"reason": "too many channels joined"}));
    }
    assert_eq!(rejected(&node, "channels"), 2);
}
