//! Events with long names. A binary frame has one byte for the length of a name (`P-BIN-5`), so what is longer
//! is refused with a reason or relayed whole, as text; no client is ever sent a part of it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod conformance;
mod plane;
mod support;

use backend::{Backend, counted, start, url};
use conformance::{binary, push};
use plane::{Client, ok};
use serde_json::{Value, json};
use sluice_node::hub::Reason;
use sluice_node::pubsub::{Broadcast, Kind};
use sluice_node::run::Node;
use support::{Dir, end, node, publish, until};
use tokio_tungstenite::tungstenite::Message;

const TOPIC: &str = "room:1";

/// One that fits, to the last byte.
fn longest() -> String {
    "e".repeat(255)
}

/// Names that don't: of many bytes, of one more than fits, and of fewer letters than bytes.
fn too_long() -> [String; 3] {
    ["e".repeat(300), "e".repeat(256), "é".repeat(128)]
}

/// A client that has joined the topic, by this version of the protocol.
async fn joined(node: &Node, vsn: &str) -> Client {
    let url = url(node, "").replace("2.0.0", vsn);
    let mut client = Client::connect(&url).await.expect("let in");
    if vsn == "2.0.0" {
        client.join(TOPIC).await;
    } else {
        client.send(json!({"topic": TOPIC, "event": "phx_join", "payload": {}, "ref": "1"})).await;
        assert_eq!(client.next().await["payload"]["status"], "ok");
    }
    client
}

fn refused(reference: &str, reason: &str) -> Value {
    let payload = json!({"status": "error", "response": {"reason": reason}});
    json!(["1", reference, TOPIC, "phx_reply", payload])
}

/// An event as a client of version 2 is told of it.
fn told(event: &str) -> Value {
    json!([null, null, TOPIC, event, {"n": 1}])
}

#[tokio::test]
async fn p_bin_5_a_client_is_refused_a_name_that_no_binary_frame_can_have() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("live.yaml"), "channels: [{topic: 'room:*'}]\n").unwrap();
    let node = node("a", &dir.config("")).await;
    let (mut anna, mut bert) = (joined(&node, "2.0.0").await, joined(&node, "2.0.0").await);
    let mut old = joined(&node, "1.0.0").await;
    for name in too_long() {
        anna.send(json!(["1", "2", TOPIC, name, {"n": 1}])).await;
        assert_eq!(anna.next().await, refused("2", "event not allowed"), "{}", name.len());
    }
    assert_eq!(node.hub.metrics().rejected.get_or_create(&Reason { reason: "event" }).get(), 3);
    // What comes next is the first that any other client hears of.
    let longest = longest();
    anna.send(json!(["1", "3", TOPIC, longest, {"n": 1}])).await;
    anna.raw(Message::binary(push("1", "4", TOPIC, &longest, b"\xff"))).await;
    let bytes = Message::binary(binary(&[2], &[TOPIC, &longest], b"\xff"));
    assert_eq!(anna.next().await, told(&longest));
    assert_eq!(anna.next().await, ok("1", "3", TOPIC));
    assert_eq!(anna.message().await, bytes);
    assert_eq!(bert.next().await, told(&longest));
    assert_eq!(bert.message().await, bytes);
    let heard = json!({"topic": TOPIC, "event": longest, "payload": {"n": 1}, "ref": null});
    assert_eq!(old.next().await, heard);
    drop((anna, bert, old));
    end(node).await;
}

#[tokio::test]
async fn p_bin_5_a_publisher_is_told_that_a_name_is_too_long() {
    let dir = Dir::new();
    let node = node("a", &dir.config("")).await;
    let mut anna = Client::connect(&url(&node, "")).await.expect("let in");
    anna.send(json!(["1", "1", TOPIC, "phx_join", {}])).await;
    assert_eq!(anna.next().await[4]["status"], "ok");
    let call = |event: &str, payload: (&str, Value)| {
        json!({"topic": TOPIC, "event": event, payload.0: payload.1}).to_string()
    };
    let (text, bytes) = (("payload", json!({"n": 1})), ("payloadBase64", json!("/w==")));
    for name in too_long() {
        for payload in [&text, &bytes] {
            let (status, error) = publish(&node, call(&name, payload.clone())).await;
            assert_eq!(status, 422, "{} bytes, {}", name.len(), payload.0);
            assert!(error.to_string().contains("topic and event have 1 to 255 bytes"), "{error}");
        }
    }
    let longest = longest();
    for payload in [&text, &bytes] {
        assert_eq!(publish(&node, call(&longest, payload.clone())).await.0, 202);
    }
    assert_eq!(anna.next().await, told(&longest));
    let frame = binary(&[2], &[TOPIC, &longest], b"\xff");
    assert_eq!(anna.message().await, Message::binary(frame));
    drop(anna);
    end(node).await;
}

#[tokio::test]
async fn p_bin_5_a_backend_that_names_an_event_too_long_has_said_nothing() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let live = "channels: [{topic: 'room:*', webhooks: {events: ['*']}}]\n";
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    let node = start(&dir, &backend.url, "").await;
    let (mut anna, mut bert) = (joined(&node, "2.0.0").await, joined(&node, "2.0.0").await);
    let say = |name: &str| {
        let answer = json!({"allow": true, "broadcast": {"event": name}});
        backend.answer("event", 200, answer);
    };
    for name in too_long() {
        say(&name);
        anna.send(json!(["1", "2", TOPIC, "say", {"n": 1}])).await;
        assert_eq!(anna.next().await, refused("2", "unavailable"), "{}", name.len());
        // It is not even asked about one of a client's.
        let asked = backend.told("event").len();
        anna.send(json!(["1", "3", TOPIC, name, {"n": 1}])).await;
        assert_eq!(anna.next().await, refused("3", "event not allowed"), "{}", name.len());
        assert_eq!(backend.told("event").len(), asked);
    }
    assert!(counted(&node, "event", "garbage").await);
    let longest = longest();
    say(&longest);
    anna.send(json!(["1", "4", TOPIC, "say", {"n": 1}])).await;
    assert_eq!(bert.next().await, told(&longest));
    anna.raw(Message::binary(push("1", "5", TOPIC, "say", b"\xff"))).await;
    let frame = binary(&[2], &[TOPIC, &longest], b"\xff");
    assert_eq!(bert.message().await, Message::binary(frame));
    drop((anna, bert));
    end(node).await;
}

#[tokio::test]
async fn p_bin_5_a_program_may_name_events_as_it_likes_but_not_of_bytes() {
    let node = conformance::node().await;
    let topic = "quiet:a";
    let (mut anna, mut bert) =
        (conformance::joined(&node, topic).await, conformance::joined(&node, topic).await);
    let long = "e".repeat(300);
    let asked = json!({"topic": topic, "event": long, "payload": {"n": 1}});
    anna.send(json!(["1", "2", topic, "publish", asked])).await;
    let whole = json!([null, null, topic, long, {"n": 1}]);
    assert_eq!(anna.next().await, whole);
    assert_eq!(anna.next().await, ok("1", "2", topic));
    assert_eq!(bert.next().await, whole);
    // No frame has room for it: it is counted, and no client hears of it.
    let broadcast = |event: &str, payload: &'static [u8]| Broadcast {
        topic: topic.into(),
        event: event.into(),
        kind: Kind::Binary,
        payload: payload.into(),
    };
    node.hub.broadcast(broadcast(&long, b"\xff"));
    node.hub.broadcast(broadcast("e", b"\x00"));
    let next = Message::binary(binary(&[2], &[topic, "e"], b"\x00"));
    assert_eq!(bert.message().await, next);
    assert_eq!(anna.message().await, next);
    let dropped = &node.hub.metrics().dropped;
    until("each is counted", || dropped.get_or_create(&Reason { reason: "too_long" }).get() == 2)
        .await;
}
