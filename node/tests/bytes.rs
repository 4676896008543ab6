//! Binary messages over a real socket: `P-BIN-1` to `P-BIN-8`.

mod plane;

use plane::{Client, Node, ok};
use serde_json::json;
use sluice_node::hub::Reason;
use sluice_node_api::config::{ChannelRule, Socket};
use tokio_tungstenite::tungstenite::Message;

/// A push as `P-BIN-1` has it.
fn push(join_ref: &str, reference: &str, topic: &str, event: &str, payload: &[u8]) -> Message {
    let fields = [join_ref, reference, topic, event];
    let mut frame = vec![0];
    frame.extend(fields.iter().map(|field| u8::try_from(field.len()).expect("short")));
    fields.iter().for_each(|field| frame.extend_from_slice(field.as_bytes()));
    frame.extend_from_slice(payload);
    Message::binary(frame)
}

const BYTES: &[u8] = &[0xff, 0, b'{', 0x80];
const BROADCAST: &[u8] = b"\x02\x06\x02room:1hi\xff\x00{\x80";

#[tokio::test]
async fn p_bin_1_a_push_is_broadcast_as_p_bin_4_and_answered_as_p_bin_8() {
    let node = Node::start().await;
    let mut sender = node.joined("room:1").await;
    let mut receiver = node.joined("room:1").await;
    sender.raw(push("1", "2", "room:1", "hi", BYTES)).await;
    assert_eq!(sender.message().await, Message::binary(BROADCAST));
    assert_eq!(sender.next().await, ok("1", "2", "room:1"), "a JSON reply");
    assert_eq!(receiver.message().await, Message::binary(BROADCAST));
    sender.send(json!(["1", "3", "room:1", "hi", {"json": true}])).await;
    assert_eq!(receiver.next().await, json!([null, null, "room:1", "hi", {"json": true}]));
    sender.raw(push("1", "4", "room:1", "hi", &[])).await;
    assert_eq!(receiver.message().await, Message::binary(&BROADCAST[..11]), "no bytes are bytes");
}

#[tokio::test]
async fn p_v1_3_a_v1_subscriber_gets_no_binary_and_it_is_counted() {
    let node = Node::start().await;
    let mut sender = node.joined("room:1").await;
    let url = node.url().replace("2.0.0", "1.0.0");
    let mut old = Client::connect(&url).await.expect("accepted");
    old.send(json!({"topic": "room:1", "event": "phx_join", "payload": {}, "ref": "1"})).await;
    assert_eq!(old.next().await["event"], "phx_reply");
    sender.raw(push("1", "2", "room:1", "hi", BYTES)).await;
    sender.send(json!(["1", "3", "room:1", "hi", {}])).await;
    let next = json!({"topic": "room:1", "event": "hi", "payload": {}, "ref": null});
    assert_eq!(old.next().await, next);
    let dropped = &node.hub.metrics().dropped;
    assert_eq!(dropped.get_or_create(&Reason { reason: "binary_v1" }).get(), 1);
}

#[tokio::test]
async fn p_bin_6_an_empty_join_ref_is_stale() {
    let node = Node::start().await;
    let mut client = node.joined("room:1").await;
    client.raw(push("", "2", "room:1", "hi", BYTES)).await;
    client.is_quiet().await;
}

#[tokio::test]
async fn p_bin_7_another_kind_ends_the_socket() {
    let node = Node::start().await;
    for bytes in [&b"\x01\0\0\0\0"[..], b"\x02\x01\x01te", b"", b"\0\x09"] {
        let mut client = node.joined("room:1").await;
        client.raw(Message::binary(bytes.to_vec())).await;
        assert_eq!(client.close_code().await, Some(1011), "{bytes:?}");
    }
}

#[tokio::test]
async fn a_rule_limits_bytes_and_events_as_for_json() {
    let rule = ChannelRule {
        max_payload_bytes: 4,
        events: vec!["hi".into()],
        include_sender: false,
        ..ChannelRule::room()
    };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let mut client = node.joined("room:1").await;
    client.raw(push("1", "2", "room:1", "hi", BYTES)).await;
    assert_eq!(client.next().await, ok("1", "2", "room:1"));
    for (event, payload) in [("hi", &[0; 5][..]), ("ho", &[0]), ("phx_close", &[])] {
        client.raw(push("1", "3", "room:1", event, payload)).await;
        assert_eq!(client.next().await[4]["status"], "error", "{event}");
    }
}
