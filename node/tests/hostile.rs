//! Clients that mean harm, over real sockets: each is refused or served within its bounds, and the
//! node serves the others as before.

mod conformance;
mod plane;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use plane::{Client, Node, PATIENCE, ok};
use serde_json::json;
use sluice_node::{
    channel::{self, Answer, Channel, Ctx, Handled, JoinError, Mount, Payload, Router},
    hub::Reason,
    server::Builder,
};
use sluice_node_api::config::{ChannelRule, HistoryRule, NodeConfig, Socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

/// Sends `bytes` as far as they are taken, and reads to the end.
async fn exchange(node: &Node, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(node.address).await.expect("taken");
    let mut said = Vec::new();
    let talk = async {
        let (mut read, mut write) = stream.split();
        // A node that has heard enough stops reading, and may end before all is sent.
        let send = async { _ = write.write_all(bytes).await };
        tokio::join!(send, async { _ = read.read_to_end(&mut said).await });
    };
    timeout(PATIENCE, talk).await.expect("an end");
    String::from_utf8_lossy(&said).into_owned()
}

/// A socket is served as if nothing had been.
async fn serves(node: &Node) {
    node.joined("room:after").await.is_quiet().await;
}

#[tokio::test]
async fn a_head_of_a_megabyte_is_never_held() {
    let node = Node::start().await;
    let long = "x".repeat(1 << 20);
    for head in [format!("GET /{long}"), format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}")] {
        let said = exchange(&node, head.as_bytes()).await;
        let refused = ["HTTP/1.1 431 ", "HTTP/1.1 414 "].iter().any(|line| said.starts_with(line));
        // What was not read may take the answer with it.
        assert!(refused || said.is_empty(), "{said}");
    }
    serves(&node).await;
}

#[tokio::test]
async fn more_than_a_hundred_headers_are_refused() {
    let node = Node::start().await;
    let head = format!("GET / HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(200));
    assert!(exchange(&node, head.as_bytes()).await.starts_with("HTTP/1.1 431 "));
    serves(&node).await;
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    const LARGEST: usize = 64 << 10;
    let node = Node::start().await;
    let head = |bytes: usize| {
        let head = "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\nx: ";
        let end = "\r\n\r\n";
        format!("{head}{}{end}", "y".repeat(bytes - head.len() - end.len()))
    };
    assert!(exchange(&node, head(LARGEST).as_bytes()).await.starts_with("HTTP/1.1 404 "));
    // However much of it comes at once.
    for bytes in [LARGEST + 1, 100 << 10, 120 << 10, 200 << 10] {
        // The end may overtake the answer: not all was read.
        let said = exchange(&node, head(bytes).as_bytes()).await;
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 431 "), "{bytes}: {said}");
    }
    serves(&node).await;
}

#[tokio::test]
async fn more_parameters_than_a_socket_may_bring_are_refused() {
    let node = Node::start().await;
    let get = |path: &str, count| {
        let names: String = (0..count).map(|i| format!("&{i}=")).collect();
        format!("GET {path}?vsn=2.0.0{names} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    };
    let opened = exchange(&node, get("/socket/longpoll", 100).as_bytes()).await;
    assert!(opened.starts_with("HTTP/1.1 200 ") && opened.contains("410"), "{opened}");
    let refused = exchange(&node, get("/socket/longpoll", 200).as_bytes()).await;
    assert!(refused.contains("400") && !refused.contains("410"), "{refused}");
    let refused = exchange(&node, get("/socket/websocket", 200).as_bytes()).await;
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    serves(&node).await;
}

#[tokio::test]
async fn pipelined_requests_are_each_answered_in_turn() {
    let node = Node::start().await;
    let mut all = "GET /nothing HTTP/1.1\r\nhost: a\r\n\r\n".repeat(500);
    all.push_str("GET /nothing HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    let said = exchange(&node, all.as_bytes()).await;
    assert_eq!(said.matches("HTTP/1.1 404 ").count(), 501);
    serves(&node).await;
}

#[tokio::test]
async fn frames_that_come_with_the_handshake_are_heard() {
    let node = Node::start().await;
    let text = br#"[null,"1","phoenix","heartbeat",{}]"#;
    let mut bytes = b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: a\r\n\
        connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        .to_vec();
    bytes.extend([0x81, 0x80 | u8::try_from(text.len()).expect("short"), 0, 0, 0, 0]);
    bytes.extend(text);
    // A close, so that the node ends it.
    bytes.extend([0x88, 0x80, 0, 0, 0, 0]);
    let said = exchange(&node, &bytes).await;
    assert!(said.starts_with("HTTP/1.1 101 ") && said.contains("phx_reply"), "{said}");
}

#[tokio::test]
async fn a_long_poll_body_is_read_for_a_session_only_and_up_to_a_frame() {
    let node = conformance::node().await;
    let head = |token: &str| {
        let length = "content-length: 100000000\r\nconnection: close\r\n\r\n";
        format!("POST /socket/longpoll?token={token} HTTP/1.1\r\nhost: a\r\n{length}")
    };
    let said = exchange(&node, head("x").as_bytes()).await;
    assert!(said.contains(r#"{"status":410}"#), "{said}");

    let opened = reqwest::get(format!("http://{}/socket/longpoll?vsn=2.0.0", node.address)).await;
    let opened: serde_json::Value = opened.expect("an answer").json().await.expect("JSON");
    let token = opened["token"].as_str().expect("a token");
    let mut body = head(token).into_bytes();
    body.resize(body.len() + 8_000_001, b' ');
    assert!(exchange(&node, &body).await.starts_with("HTTP/1.1 413 "));
    conformance::joined(&node, "quiet:a").await.is_quiet().await;
}

#[tokio::test]
async fn a_session_that_posts_garbage_ends_alone() {
    let node = conformance::node().await;
    let url = format!("http://{}/socket/longpoll", node.address);
    let http = reqwest::Client::new();
    let garbage = STANDARD.encode([0xff; 64]);
    for body in ["[]", "[1", &garbage] {
        let opened = http.get(format!("{url}?vsn=2.0.0")).send().await.expect("an answer");
        let opened: serde_json::Value = opened.json().await.expect("JSON");
        let post = http.post(format!("{url}?token={}", opened["token"].as_str().expect("one")));
        let post = post.header("content-type", "application/x-ndjson").body(body.to_owned());
        let said: serde_json::Value =
            post.send().await.expect("an answer").json().await.expect("JSON");
        assert!(said == json!({"status": 200}) || said == json!({"status": 410}), "{said}");
    }
    node.until("the sessions are gone", |hub| hub.counts().connections == 0).await;
}

/// An object with arrays in arrays, `levels` of them.
fn nested(levels: usize) -> String {
    format!(r#"{{"a":{}{}}}"#, "[".repeat(levels), "]".repeat(levels))
}

/// Sends an event with the payload of [`nested`], in the join `"1"` of `topic`.
async fn push_nested(client: &mut Client, topic: &str, event: &str, levels: usize) {
    let text = format!(r#"["1","2","{topic}","{event}",{}]"#, nested(levels));
    client.raw(Message::text(text)).await;
}

#[tokio::test]
async fn json_is_relayed_as_it_came_up_to_a_depth_and_refused_past_it() {
    let kept = ChannelRule {
        topic: "kept:*".into(),
        history: Some(HistoryRule::default()),
        ..ChannelRule::room()
    };
    let node = Node::with(Socket::default(), vec![ChannelRule::room(), kept]).await;
    for topic in ["room:deep", "kept:deep"] {
        let mut clients = Vec::new();
        for _ in 0..2 {
            let mut client = node.client().await;
            client.send(json!(["1", "1", topic, "phx_join", {}])).await;
            assert_eq!(client.next().await[4]["status"], "ok");
            clients.push(client);
        }
        let [client, other] = &mut clients[..] else { unreachable!() };
        // With the object around them 96.
        push_nested(client, topic, "say", 95).await;
        let said = Message::text(format!(r#"[null,null,"{topic}","say",{}]"#, nested(95)));
        assert!(client.message().await == said, "another broadcast");
        assert_eq!(client.next().await, ok("1", "2", topic));
        assert!(other.message().await == said, "another broadcast");
        let reason = "payload nested too deep, at most 96 levels";
        for levels in [96, 3_000, 30_000] {
            push_nested(client, topic, "say", levels).await;
            let response = json!({ "reason": reason });
            let refused = conformance::reply("1".into(), "2".into(), topic, "error", response);
            assert_eq!(client.next().await, refused);
        }
        let list = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
        client.raw(Message::text(format!(r#"["1","3","{topic}","say",{list}]"#))).await;
        let reason = json!({"reason": "payload must be an object"});
        let refused = conformance::reply("1".into(), "3".into(), topic, "error", reason);
        assert_eq!(client.next().await, refused, "P-V2-3");
        other.is_quiet().await;
    }
    let count =
        node.hub.metrics().rejected.get_or_create(&Reason { reason: "payload_depth" }).get();
    assert_eq!(count, 6);
    serves(&node).await;
}

/// Reads what it is sent, and broadcasts it.
struct Reader;

impl Channel for Reader {
    type Info = ();

    async fn join(payload: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
        payload.value()?;
        Ok((Self, Payload::empty()))
    }

    async fn handle_in(&mut self, message: channel::Message, ctx: &Ctx) -> Handled {
        ctx.broadcast("said", message.payload.value()?)?;
        Ok(Answer::ok(()))
    }
}

#[tokio::test]
async fn json_that_is_too_deep_to_be_read_ends_one_channel_and_none_is_broadcast() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let mount = Mount::open("/socket").channels(Router::new().channel::<Reader>("*"));
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(mount).shards(1);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub, address, shutdown };
    let mut other = conformance::joined(&node, "quiet:a").await;
    let mut client = conformance::joined(&node, "quiet:b").await;
    for levels in [128, 1_000_000] {
        conformance::join(&mut client, "quiet:a").await;
        push_nested(&mut client, "quiet:a", "say", levels).await;
        let reason = json!({"reason": "channel_crash"});
        assert_eq!(client.next().await, json!(["1", "1", "quiet:a", "phx_error", reason]));
        push_nested(&mut client, "quiet:a", "phx_join", levels).await;
        let reason = json!({"reason": "join crashed"});
        let refused = conformance::reply("1".into(), "2".into(), "quiet:a", "error", reason);
        assert_eq!(client.next().await, refused);
    }
    client.send(json!(["1", "3", "quiet:b", "say", {}])).await;
    assert_eq!(client.next().await, json!([null, null, "quiet:b", "said", {}]));
    assert_eq!(client.next().await, ok("1", "3", "quiet:b"));
    other.is_quiet().await;
}

#[tokio::test]
async fn hundreds_of_half_open_connections_leave_room_for_a_socket() {
    let node = Node::start().await;
    let mut held = Vec::new();
    for n in 0..400 {
        let mut stream = TcpStream::connect(node.address).await.expect("taken");
        if n % 2 == 0 {
            stream.write_all(b"GET /socket/websocket HTTP/1.1\r\nx-slow: ").await.expect("taken");
        }
        held.push(stream);
    }
    serves(&node).await;
}

/// Longer than the node gives a client to begin a request, or to end a connection.
const TOO_LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn who_opens_a_connection_and_says_nothing_is_cut() {
    let node = Node::start().await;
    for said in ["", "GET /socket/websocket HTTP/1.1\r\nx-slow: "] {
        let mut stream = TcpStream::connect(node.address).await.expect("taken");
        stream.write_all(said.as_bytes()).await.expect("taken");
        let mut said = Vec::new();
        let end = timeout(TOO_LONG, stream.read_to_end(&mut said));
        end.await.expect("an end in time").expect("an end");
    }
}

#[tokio::test]
async fn who_does_not_answer_a_close_is_cut() {
    let node = Node::start().await;
    let mut stream = TcpStream::connect(node.address).await.expect("taken");
    let head = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
        upgrade: websocket\r\nsec-websocket-version: 13\r\n\
        sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    // P-ERR-4: the node closes, and waits for the client to close too.
    let garbage = [0x81, 0x81, 0, 0, 0, 0, b'x'];
    stream.write_all(&[head.as_bytes(), &garbage].concat()).await.expect("taken");
    let mut said = Vec::new();
    let end = timeout(TOO_LONG, stream.read_to_end(&mut said));
    end.await.expect("an end in time").expect("an end");
    assert!(said.ends_with(&[0x88, 2, 0x03, 0xf3]), "1011: {said:?}");
    assert_eq!(node.hub.counts().connections, 0);
}
