//! One node, real sockets: the channel protocol over WebSocket V2 and V1.

mod plane;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use plane::{Client, Node, ok, refusal};
use serde_json::json;
use sluice_node::pubsub::{Adapter, Broadcast, Kind, Local};
use sluice_node_api::config::{ChannelRule, LiveConfig, Socket};
use tokio::{io::AsyncWriteExt, sync::Notify};
use tokio_tungstenite::{
    MaybeTlsStream,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

fn broadcast(topic: &str, event: &str, payload: &'static str) -> Broadcast {
    Broadcast {
        topic: topic.into(),
        event: event.into(),
        kind: Kind::Json,
        payload: Bytes::from_static(payload.as_bytes()),
    }
}

#[tokio::test]
async fn p_bc_1_a_push_reaches_every_subscriber_and_p_bc_5_the_sender_before_its_reply() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(node.joined("room:1").await);
    }
    let mut other = node.joined("room:2").await;
    clients[0].send(json!(["1", "2", "room:1", "hi", {"text": "ä"}])).await;
    for client in &mut clients {
        assert_eq!(client.next().await, json!([null, null, "room:1", "hi", {"text": "ä"}]));
    }
    assert_eq!(clients[0].next().await, ok("1", "2", "room:1"));
    other.is_quiet().await;
    assert_eq!(node.hub.counts().connections, 6);
    assert_eq!(node.hub.counts().channels, 6);
}

#[tokio::test]
async fn p_bc_2_a_rule_may_leave_the_sender_out() {
    let rule = ChannelRule { include_sender: false, ..ChannelRule::room() };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let mut sender = node.joined("room:1").await;
    let mut receiver = node.joined("room:1").await;
    sender.send(json!(["1", "2", "room:1", "hi", {}])).await;
    assert_eq!(sender.next().await, ok("1", "2", "room:1"));
    assert_eq!(receiver.next().await, json!([null, null, "room:1", "hi", {}]));
    sender.is_quiet().await;
}

#[tokio::test]
async fn p_leave_1_nothing_comes_after_a_leave() {
    let node = Node::start().await;
    let mut client = node.joined("room:1").await;
    client.send(json!(["1", "2", "room:1", "phx_leave", {}])).await;
    assert_eq!(client.next().await, ok("1", "2", "room:1"));
    assert_eq!(client.next().await, json!(["1", "1", "room:1", "phx_close", {}]));
    node.hub.broadcast(broadcast("room:1", "late", "{}"));
    client.is_quiet().await;
    assert_eq!(node.hub.counts().channels, 0);
}

#[tokio::test]
async fn p_v1_2_and_p_bc_3_clients_of_both_versions_share_a_topic() {
    let node = Node::start().await;
    let url = format!("ws://{}/socket/websocket", node.address);
    let mut old = Client::connect(&url).await.expect("P-CON-2: the default is V1");
    old.send(json!({"topic": "room:1", "event": "phx_join", "payload": {}, "ref": "1"})).await;
    let payload = json!({"status": "ok", "response": {}});
    let reply = json!({"topic": "room:1", "event": "phx_reply", "payload": payload, "ref": "1"});
    assert_eq!(old.next().await, reply);
    let mut new = node.joined("room:1").await;
    new.send(json!(["1", "2", "room:1", "hi", {"a": 1}])).await;
    let hi = json!({"topic": "room:1", "event": "hi", "payload": {"a": 1}, "ref": null});
    assert_eq!(old.next().await, hi);
    let push = json!({"topic": "room:1", "event": "yo", "payload": {}, "ref": "2"});
    old.raw(Message::binary(push.to_string().into_bytes())).await;
    assert_eq!(new.next().await, json!([null, null, "room:1", "hi", {"a": 1}]));
    assert_eq!(new.next().await, ok("1", "2", "room:1"));
    assert_eq!(new.next().await, json!([null, null, "room:1", "yo", {}]), "P-V1-3");
}

#[tokio::test]
async fn p_con_2_other_versions_are_refused() {
    let node = Node::start().await;
    for vsn in ["2", "2.1.0", "9.0.0", ""] {
        let url = format!("ws://{}/socket/websocket?vsn={vsn}", node.address);
        assert_eq!(refusal(Client::connect(&url).await).0, 403, "{vsn}");
    }
    let url = format!("ws://{}/socket/websocket?vsn[]=2.0.0", node.address);
    assert_eq!(refusal(Client::connect(&url).await).0, 403);
    let url = format!("ws://{}/socket/websocket/?token=x%20y&vsn=2.0.0", node.address);
    Client::connect(&url).await.expect("P-CON-1: a trailing slash also matches");
}

#[tokio::test]
async fn p_con_1_bad_upgrades_and_methods_are_400() {
    let node = Node::start().await;
    let url = format!("http://{}/socket/websocket?vsn=2.0.0", node.address);
    let http = reqwest::Client::new();
    let response = http.get(&url).send().await.expect("an answer");
    assert_eq!(response.status(), 400);
    assert!(!response.text().await.expect("a text").is_empty());
    assert_eq!(http.post(&url).send().await.expect("an answer").status(), 400);
    let url = format!("http://{}/elsewhere", node.address);
    assert_eq!(http.get(&url).send().await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn p_err_4_an_undecodable_message_ends_the_connection_with_1011() {
    let node = Node::start().await;
    let push = |json: &str| Message::text(format!(r#"["1","2","room:1","say",{{"a":{json}}}]"#));
    for bad in [
        Message::text("{}"),
        Message::text("x"),
        Message::binary(vec![1, 0, 0, 0, 0]),
        // Well-formed JSON that no Phoenix reads.
        push(r#""\ud800""#),
        push("1e999999"),
        push(&"9".repeat(1025)),
    ] {
        let mut client = node.joined("room:1").await;
        client.raw(bad).await;
        assert_eq!(client.close_code().await, Some(1011));
    }
    node.until("all gone", |hub| hub.counts() == Default::default()).await;
}

#[tokio::test]
async fn p_con_12_a_message_over_the_limit_ends_the_connection_with_1009() {
    let socket = Socket { max_frame_bytes: 1000, ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    let mut client = node.client().await;
    client.raw(Message::text("x".repeat(1001))).await;
    assert_eq!(client.close_code().await, Some(1009));
}

#[tokio::test]
async fn p_con_12_compression_is_not_agreed_on_and_a_compressed_frame_is_an_error() {
    let node = Node::start().await;
    let mut request = node.url().into_client_request().expect("a URL");
    let offer = HeaderValue::from_static("permessage-deflate; client_max_window_bits");
    request.headers_mut().insert("sec-websocket-extensions", offer);
    let (socket, answer) = tokio_tungstenite::connect_async(request).await.expect("let in");
    assert!(!answer.headers().contains_key("sec-websocket-extensions"));
    let mut client = Client(socket);
    client.join("room:1").await;
    let text = "a".repeat(10_000);
    client.send(json!(["1", "2", "room:1", "hi", {"text": text}])).await;
    assert_eq!(client.next().await[4]["text"], text, "as it is");
    assert_eq!(client.next().await, ok("1", "2", "room:1"));
    // A text frame, masked by zeros, with the bit that says that it is compressed.
    let frame = [0xc1, 0x82, 0, 0, 0, 0, b'[', b']'];
    let MaybeTlsStream::Plain(stream) = client.0.get_mut() else { panic!("no TLS here") };
    stream.write_all(&frame).await.expect("open");
    assert_eq!(client.close_code().await, Some(1002));
}

#[tokio::test]
async fn a_large_message_arrives_whole() {
    let rule = ChannelRule { max_payload_bytes: 8_000_000, ..ChannelRule::room() };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let mut sender = node.joined("room:1").await;
    let mut receiver = node.joined("room:1").await;
    let text = "y".repeat(3_000_000);
    sender.send(json!(["1", "2", "room:1", "hi", {"text": text}])).await;
    assert_eq!(receiver.next().await[4]["text"], text);
    assert_eq!(sender.next().await[4]["text"], text);
    assert_eq!(sender.next().await, ok("1", "2", "room:1"));
}

#[tokio::test]
async fn p_hb_2_a_silent_socket_is_closed_and_not_with_1000() {
    let socket = Socket { idle_timeout_seconds: 1, ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    let mut silent = node.joined("room:1").await;
    let mut pinging = node.joined("room:1").await;
    let started = tokio::time::Instant::now();
    let ping = async {
        for _ in 0..30 {
            pinging.raw(Message::Ping(Bytes::new())).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        pinging
    };
    let outbound = async {
        for _ in 0..15 {
            node.hub.broadcast(broadcast("room:1", "tick", "{}"));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let (code, mut pinging, ()) = tokio::join!(silent.close_code(), ping, outbound);
    assert_eq!(code, Some(1002), "P-HB-3; what is sent does not count");
    assert!(started.elapsed() >= Duration::from_secs(1));
    pinging.send(json!([null, "9", "phoenix", "heartbeat", {}])).await;
    while pinging.message().await
        != Message::text(r#"[null,"9","phoenix","phx_reply",{"status":"ok","response":{}}]"#)
    {}
}

#[tokio::test]
async fn a_client_that_closes_is_answered_with_its_code() {
    let node = Node::start().await;
    let mut client = node.joined("room:1").await;
    client.0.close(None).await.expect("open");
    client.close_code().await;
    node.until("gone", |hub| hub.counts() == Default::default()).await;
    let dropped = node.joined("room:1").await;
    drop(dropped);
    node.until("gone", |hub| hub.counts() == Default::default()).await;
}

#[tokio::test]
async fn topic_rules_are_live() {
    let node = Node::start().await;
    let mut client = node.joined("room:1").await;
    client.send(json!(["2", "2", "lobby", "phx_join", {}])).await;
    assert_eq!(client.next().await[4]["response"]["reason"], "unmatched topic");
    let lobby = ChannelRule { topic: "lobby".into(), announce_node: true, ..ChannelRule::room() };
    let live = LiveConfig { channels: vec![lobby], ..LiveConfig::default() };
    node.hub.set_live(Arc::new(live));
    client.send(json!(["3", "3", "lobby", "phx_join", {}])).await;
    assert_eq!(client.next().await[4], json!({"status": "ok", "response": {"node": "chat-0"}}));
}

/// An adapter whose `subscribe` waits to be released, and that remembers what it was told.
#[derive(Default)]
struct Gate {
    open: Arc<Notify>,
    log: Mutex<Vec<String>>,
}

impl Adapter for Gate {
    fn send(&self, broadcast: &Broadcast) {
        self.log.lock().push(format!("send {}", broadcast.event));
    }
    fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()> {
        self.log.lock().push(format!("subscribe {topic}"));
        let open = self.open.clone();
        async move { open.notified().await }.boxed()
    }
    fn unsubscribe(&self, topic: &Arc<str>) {
        self.log.lock().push(format!("unsubscribe {topic}"));
    }
}

#[tokio::test]
async fn p_join_2_the_reply_waits_for_the_other_nodes_and_nothing_precedes_it() {
    let node = Node::start().await;
    let gate = Arc::new(Gate::default());
    node.hub.set_adapter(gate.clone());
    let mut client = node.client().await;
    client.send(json!(["1", "1", "room:1", "phx_join", {}])).await;
    client.send(json!(["1", "2", "room:1", "hi", {}])).await;
    while gate.log.lock().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    node.hub.deliver(broadcast("room:1", "early", "{}"));
    gate.open.notify_one();
    let first = client.next().await;
    assert_eq!(first, ok("1", "1", "room:1"), "the reply comes first");
    let mut next = client.next().await;
    if next[3] == "early" {
        next = client.next().await;
    }
    assert_eq!(next, json!([null, null, "room:1", "hi", {}]));
    assert_eq!(client.next().await, ok("1", "2", "room:1"));
    let second = node.joined("room:1").await;
    drop((client, second));
    node.until("gone", |hub| hub.counts() == Default::default()).await;
    let log = gate.log.lock().clone();
    assert_eq!(log, ["subscribe room:1", "send hi", "unsubscribe room:1"]);
}

#[tokio::test]
async fn a_socket_that_ends_during_its_join_leaves_nothing_behind() {
    let node = Node::start().await;
    let gate = Arc::new(Gate::default());
    node.hub.set_adapter(gate.clone());
    let mut client = node.client().await;
    client.send(json!(["1", "1", "room:1", "phx_join", {}])).await;
    node.until("subscribing", |_| !gate.log.lock().is_empty()).await;
    drop(client);
    gate.open.notify_one();
    node.until("gone", |hub| hub.counts() == Default::default()).await;
    assert_eq!(*gate.log.lock(), ["subscribe room:1", "unsubscribe room:1"]);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up_and_the_others_are_served() {
    let rule = ChannelRule { max_payload_bytes: 1_000_000, ..ChannelRule::room() };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let stalled = node.joined("room:1").await;
    let mut reader = node.joined("room:1").await;
    let payload: &'static str = json!({"fill": "z".repeat(50_000)}).to_string().leak();
    let mut sent = 0;
    while node.hub.counts().connections == 2 {
        assert!(sent < 2000, "the stalled client is never given up");
        node.hub.broadcast(broadcast("room:1", "fill", payload));
        assert_eq!(reader.next().await[3], "fill");
        sent += 1;
        if node.hub.metrics().dropped.get_or_create(&slow()).get() > 0 {
            break;
        }
    }
    node.hub.broadcast(broadcast("room:1", "last", "{}"));
    assert_eq!(reader.next().await[3], "last");
    drop(stalled);
}

#[tokio::test]
async fn what_waits_too_long_is_given_up_however_little() {
    let rule = ChannelRule { max_payload_bytes: 8_000_000, ..ChannelRule::room() };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let mut stalled = node.joined("room:1").await;
    let payload: &'static str = json!({"fill": "z".repeat(7_000_000)}).to_string().leak();
    node.hub.broadcast(broadcast("room:1", "fill", payload));
    node.hub.broadcast(broadcast("room:1", "next", "{}"));
    let dropped = || node.hub.metrics().dropped.get_or_create(&slow()).get();
    for second in 0..20 {
        if dropped() > 0 {
            assert!(second >= 9, "given up after {second} s");
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(dropped(), 1, "the frame that was not begun");
    assert_eq!(stalled.next().await[3], "fill", "a frame that was begun is ended");
    assert_eq!(stalled.close_code().await, Some(1008));
}

/// An adapter that fails.
struct Broken;

impl Adapter for Broken {
    fn send(&self, broadcast: &Broadcast) {
        assert_ne!(&*broadcast.event, "boom", "a fault of the node, made by a test");
    }
    fn subscribe(&self, _: &Arc<str>) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
    fn unsubscribe(&self, _: &Arc<str>) {}
}

#[tokio::test]
async fn p_code_4_a_fault_ends_one_connection_with_1011_and_no_other() {
    let node = Node::start().await;
    node.hub.set_adapter(Arc::new(Broken));
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(node.joined("room:1").await);
    }
    for _ in 0..3 {
        let mut client = node.joined("room:1").await;
        client.send(json!(["1", "2", "room:1", "boom", {}])).await;
        assert_eq!(client.close_code().await, Some(1011));
    }
    node.until("gone", |hub| hub.counts().connections == 4).await;
    assert_eq!(node.hub.counts().channels, 4);
    others[0].send(json!(["1", "2", "room:1", "hi", {}])).await;
    for other in &mut others {
        assert_eq!(other.next().await[3], "hi");
    }
}

fn slow() -> sluice_node::hub::Reason {
    sluice_node::hub::Reason { reason: "slow" }
}
