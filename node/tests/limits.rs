//! What one socket may ask for in a second.

mod plane;

use std::time::Instant;

use plane::{Client, Node, PATIENCE, ok};
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

#[tokio::test]
async fn messages_of_a_socket_are_bounded_a_second_and_its_heartbeats_go_on() {
    let kept = ChannelRule {
        topic: "kept:*".into(),
        history: Some(HistoryRule::default()),
        ..ChannelRule::room()
    };
    let socket = Socket { max_messages_per_second: Some(3), ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room(), kept]).await;
    let reason = json!({"reason": "too many messages of this socket, at most 3 a second"});
    for topic in ["room:1", "kept:1"] {
        let before = rejected(&node, "messages");
        let mut client = node.client().await;
        client.send(json!(["1", "1", topic, "phx_join", {}])).await;
        assert_eq!(client.next().await[4]["status"], "ok");
        // Wherever they are for.
        for n in 0..40 {
            let to = if n % 2 == 0 { topic } else { "nowhere" };
            client.send(json!(["1", "2", to, "say", {}])).await;
        }
        let (mut refused, mut replies) = (0, 0);
        while replies < 40 {
            let reply = client.next().await;
            if reply[3] == "say" {
                continue;
            }
            replies += 1;
            if reply[4]["response"] == reason {
                assert_eq!((&reply[0], &reply[1]), (&json!("1"), &json!("2")), "{reply}");
                refused += 1;
            }
        }
        assert!(refused > 0, "forty messages take less than twelve seconds");
        assert_eq!(rejected(&node, "messages") - before, refused);
        // It is over its limit, and not dead.
        client.is_quiet().await;
        // Another socket has messages of its own.
        assert_eq!(join(&mut node.client().await, topic, 1).await[0]["status"], "ok");
        let again = async {
            loop {
                client.send(json!(["1", "3", topic, "say", {}])).await;
                let heard = client.next().await;
                if heard[3] == "say" {
                    return client.next().await;
                }
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        let said = timeout(PATIENCE, again).await.expect("two seconds later at the latest");
        assert_eq!(said, ok("1", "3", topic));
    }
}

/// Sends a message and gives what it is answered with; what comes before that is passed over.
async fn ask(client: &mut Client, join_ref: usize, reference: &str, to: (&str, &str)) -> Value {
    client.send(json!([join_ref, reference, to.0, to.1, {}])).await;
    loop {
        let mut heard = client.next().await;
        if heard[3] == "phx_reply" {
            assert_eq!(heard[1], reference, "{heard}");
            return heard[4].take();
        }
    }
}

/// Joins, pushes until it is refused, and ends the channel by a leave or by the next join; this often
/// over. How many pushes were taken in all.
async fn pushed(client: &mut Client, topic: &str, rounds: usize, leaves: bool) -> u64 {
    let mut taken = 0;
    for round in 0..rounds {
        assert_eq!(ask(client, round, "join", (topic, "phx_join")).await["status"], "ok");
        loop {
            let reply = ask(client, round, "push", (topic, "say")).await;
            if reply["status"] == "error" {
                let reason = "too many messages, at most 2 a second";
                assert_eq!(reply["response"], json!({ "reason": reason }));
                break;
            }
            taken += 1;
        }
        if leaves {
            assert_eq!(ask(client, round, "leave", (topic, "phx_leave")).await["status"], "ok");
        }
    }
    taken
}

#[tokio::test]
async fn who_leaves_and_joins_again_or_joins_twice_may_push_no_more_for_it() {
    let rule = |topic: &str, history| ChannelRule {
        topic: topic.into(),
        max_messages_per_second: Some(2),
        history,
        ..ChannelRule::room()
    };
    // One that is relayed, and one that needs a channel.
    let rules = vec![rule("room:*", None), rule("kept:*", Some(HistoryRule::default()))];
    let node = Node::with(Socket::default(), rules).await;
    for (topic, leaves) in
        [("room:1", true), ("room:2", false), ("kept:1", true), ("kept:2", false)]
    {
        let began = Instant::now();
        let taken = pushed(&mut node.client().await, topic, 20, leaves).await;
        // Two at once, and what has come since, however slowly this went.
        let most = 2 + 2 * (began.elapsed().as_secs() + 1);
        assert!((2..=most).contains(&taken), "{topic}, leaves: {leaves}: {taken} of {most}");
    }
}

#[tokio::test]
async fn heartbeats_are_refused_when_there_is_no_hope() {
    let socket = Socket { max_messages_per_second: Some(1), ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    let mut client = node.joined("room:1").await;
    for _ in 0..40 {
        client.send(json!([null, "1", "phoenix", "heartbeat", {}])).await;
    }
    let mut statuses = Vec::new();
    for _ in 0..40 {
        statuses.push(client.next().await[4]["status"].take());
    }
    assert_eq!(statuses[0], "ok", "beside the join");
    let refused = statuses.iter().filter(|status| *status == "error").count();
    assert!(refused > 0, "forty heartbeats take less than forty seconds");
    assert_eq!(rejected(&node, "messages"), refused as u64);
}

#[tokio::test]
async fn by_default_a_client_may_flush_thousands_of_messages_at_once() {
    let rule = ChannelRule { include_sender: false, ..ChannelRule::room() };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let mut client = node.joined("room:1").await;
    for batch in 0..20 {
        for n in 0..250 {
            client.send(json!(["1", (batch * 250 + n).to_string(), "room:1", "say", {}])).await;
        }
        for _ in 0..250 {
            assert_eq!(client.next().await[4]["status"], "ok");
        }
    }
    assert_eq!(rejected(&node, "messages"), 0);
}
