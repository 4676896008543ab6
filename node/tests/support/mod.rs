//! Whole nodes on free ports, and clients of theirs.
#![allow(dead_code, reason = "each test binary uses a part of this")]

pub mod process;
pub mod program;
pub mod redis;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sluice_node::config::{self, Env};
use sluice_node::run::{self, Cause, Node};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// No wait of a test is longer.
pub const BOUND: Duration = Duration::from_secs(15);
/// The tokens of every node here.
pub const MESH_TOKEN: &str = "mesh-token-of-the-tests";
pub const ADMIN_TOKEN: &str = "admin-token-of-the-tests";
pub const PUBLISH_TOKEN: &str = "publish-token-of-the-tests";

/// A folder that goes with the test.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("sluice-node-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&dir).unwrap();
        for (name, token) in
            [("mesh", MESH_TOKEN), ("admin", ADMIN_TOKEN), ("publish", PUBLISH_TOKEN)]
        {
            std::fs::write(dir.join(name), token).unwrap();
        }
        std::fs::write(dir.join("live.yaml"), LIVE).unwrap();
        Self(dir)
    }

    /// Writes a configuration with free ports, the tokens, and `more`.
    pub fn config(&self, more: &str) -> PathBuf {
        let at = self.0.display();
        let text = format!(
            "listen: {{http: '127.0.0.1:0', mesh: '127.0.0.1:0', admin: '127.0.0.1:0', publish: '127.0.0.1:0'}}\n\
             tokens: {{meshFile: '{at}/mesh', adminFile: '{at}/admin', publishFile: '{at}/publish'}}\n\
             liveFile: '{at}/live.yaml'\n{more}"
        );
        let path = self.0.join(format!("config-{:08x}.yaml", rand::random::<u32>()));
        std::fs::write(&path, text).unwrap();
        path
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub const LIVE: &str = "\
channels: [{topic: 'room:*', announceNode: true}]
drain: {initialDelaySeconds: 0, batchSize: 10, batchIntervalSeconds: 0.1}
";

/// A node of this name with this configuration.
pub async fn node(name: &str, config: &Path) -> Node {
    let env = Env { node: name.into(), pod_uid: format!("uid-{name}"), ..Env::default() };
    run::start(config::load(Some(config), env).unwrap(), 1).await.unwrap()
}

/// Two nodes in mesh.
pub async fn pair(dir: &Dir) -> (Node, Node) {
    let a = node("a", &dir.config("")).await;
    let peer = a.addresses.mesh.unwrap();
    let b = node("b", &dir.config(&format!("discovery: {{peers: ['{peer}']}}\n"))).await;
    until("linked both ways", || {
        [&a, &b].iter().all(|n| n.admin.status().peers.iter().any(|p| p.inbound && p.outbound))
    })
    .await;
    (a, b)
}

/// Ends a node at once.
pub async fn end(node: Node) {
    tokio::time::timeout(BOUND, node.shut_down(Cause::Terminate)).await.expect("ends in time");
}

/// Waits until `ok`.
pub async fn until(what: &str, mut ok: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !ok() {
        assert!(Instant::now() < end, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A client of one socket that joined one topic.
pub struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    topic: String,
    next: u32,
}

impl Client {
    /// Connects and joins.
    pub async fn join(node: &Node, topic: &str) -> Self {
        Self::join_as(node, topic, "").await
    }

    /// Connects as this user and joins.
    pub async fn join_as(node: &Node, topic: &str, user: &str) -> Self {
        let at = node.addresses.http;
        let url = format!("ws://{at}/socket/websocket?vsn=2.0.0&user={user}");
        Self::join_at(&url, topic, json!({})).await
    }

    /// Connects and joins with a payload.
    pub async fn join_with(http: SocketAddr, topic: &str, payload: Value) -> Self {
        let url = format!("ws://{http}/socket/websocket?vsn=2.0.0");
        Self::join_at(&url, topic, payload).await
    }

    async fn join_at(url: &str, topic: &str, payload: Value) -> Self {
        let (socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        let mut client = Self { socket, topic: topic.into(), next: 1 };
        client.send("phx_join", payload).await;
        let reply = client.event("phx_reply").await;
        assert_eq!(reply["status"], "ok", "{reply}");
        client
    }

    /// Pushes an event.
    pub async fn send(&mut self, event: &str, payload: Value) {
        let frame = json!(["1", self.next.to_string(), self.topic, event, payload]);
        self.next += 1;
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// Pushes bytes (`P-BIN-1`).
    pub async fn send_binary(&mut self, event: &str, payload: &[u8]) {
        let reference = self.next.to_string();
        self.next += 1;
        let fields = ["1", &reference, &self.topic, event];
        let mut frame = vec![0];
        frame.extend(fields.iter().map(|field| u8::try_from(field.len()).unwrap()));
        fields.iter().for_each(|field| frame.extend_from_slice(field.as_bytes()));
        frame.extend_from_slice(payload);
        self.socket.send(Message::binary(frame)).await.unwrap();
    }

    /// The next binary message; others are passed over.
    pub async fn binary(&mut self) -> Vec<u8> {
        let next = async {
            loop {
                match self.socket.next().await.expect("still open").unwrap() {
                    Message::Binary(bytes) => return bytes.to_vec(),
                    Message::Close(frame) => panic!("closed: {frame:?}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.expect("a binary message")
    }

    /// The payload of the next `event`; others are passed over.
    pub async fn event(&mut self, event: &str) -> Value {
        let next = async {
            loop {
                match self.socket.next().await.expect("still open").unwrap() {
                    Message::Text(text) => {
                        let mut frame: Value = serde_json::from_str(&text).unwrap();
                        if frame[3] == event {
                            return frame[4].take();
                        }
                    }
                    Message::Close(frame) => panic!("closed: {frame:?}"),
                    _ => {}
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.unwrap_or_else(|_| panic!("no {event} came"))
    }

    /// The code of the close that comes next.
    pub async fn closed(&mut self) -> u16 {
        let next = async {
            loop {
                match self.socket.next().await {
                    Some(Ok(Message::Close(Some(frame)))) => return u16::from(frame.code),
                    Some(Ok(_)) => {}
                    other => panic!("ended without a close frame: {other:?}"),
                }
            }
        };
        tokio::time::timeout(BOUND, next).await.expect("a close frame")
    }
}

/// Calls `path` of the admin API.
pub async fn admin(node: &Node, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
    let url = format!("http://{}{path}", node.addresses.admin);
    call(method, &url, Some(ADMIN_TOKEN), body.map(|b| b.to_string())).await
}

/// Publishes over HTTP.
pub async fn publish(node: &Node, body: String) -> (u16, Value) {
    let url = format!("http://{}/api/publish", node.addresses.publish);
    once_started(async || call("POST", &url, Some(PUBLISH_TOKEN), Some(body.clone())).await).await
}

/// The answer of a node that may have just started, and not know its peers yet: it is asked again, as by
/// everybody who uses the publish API.
pub async fn once_started(ask: impl AsyncFn() -> (u16, Value)) -> (u16, Value) {
    let end = Instant::now() + BOUND;
    loop {
        let answer = ask().await;
        if answer.0 != 503 || Instant::now() > end {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Any call; status and JSON, or null.
pub async fn call(
    method: &str,
    url: &str,
    token: Option<&str>,
    body: Option<String>,
) -> (u16, Value) {
    let client = reqwest::Client::builder().timeout(BOUND).no_proxy().build().unwrap();
    let mut request = client.request(method.parse().unwrap(), url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    if let Some(body) = body {
        request = request.body(body);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}
