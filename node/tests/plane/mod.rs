//! A node on a port of its own, and a client that speaks V2. Every wait is bounded.
#![allow(dead_code, reason = "each test binary uses a part")]

pub mod session;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use sluice_node::{hub::Hub, server};
use sluice_node_api::config::{ChannelRule, LiveConfig, NodeConfig, Socket};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream,
    tungstenite::{Error, Message},
};
use tokio_util::sync::CancellationToken;

/// The longest that anything may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// A running data plane; it stops when dropped.
pub struct Node {
    pub hub: Hub,
    pub address: SocketAddr,
    pub shutdown: CancellationToken,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Node {
    pub async fn start() -> Self {
        Self::with(Socket::default(), vec![ChannelRule::room()]).await
    }

    pub async fn with(socket: Socket, channels: Vec<ChannelRule>) -> Self {
        Self::sharded(2, socket, channels).await
    }

    pub async fn sharded(shards: usize, socket: Socket, channels: Vec<ChannelRule>) -> Self {
        let mut config = NodeConfig { socket, ..NodeConfig::default() };
        config.listen.http = "127.0.0.1:0".into();
        let live = Arc::new(LiveConfig { channels, ..LiveConfig::default() });
        let shutdown = CancellationToken::new();
        let (hub, address) =
            server::start(&config, "chat-0".into(), live, shards, shutdown.clone())
                .await
                .expect("a free port");
        Self { hub, address, shutdown }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/socket/websocket?vsn=2.0.0", self.address)
    }

    pub async fn client(&self) -> Client {
        Client::connect(&self.url()).await.expect("accepted")
    }

    /// A client that has joined `topic` with `join_ref` `"1"`.
    pub async fn joined(&self, topic: &str) -> Client {
        let mut client = self.client().await;
        client.join(topic).await;
        client
    }

    pub async fn until(&self, what: &str, holds: impl Fn(&Hub) -> bool) {
        let wait = async {
            while !holds(&self.hub) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }
}

pub struct Client(pub WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Client {
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let connect = tokio_tungstenite::connect_async(url);
        Ok(Self(timeout(PATIENCE, connect).await.expect("an answer")?.0))
    }

    pub async fn send(&mut self, message: Value) {
        self.raw(Message::text(message.to_string())).await;
    }

    pub async fn raw(&mut self, message: Message) {
        timeout(PATIENCE, self.0.send(message)).await.expect("room").expect("open");
    }

    pub async fn message(&mut self) -> Message {
        let next = timeout(PATIENCE, self.0.next()).await.expect("a message in time");
        next.expect("open").expect("valid")
    }

    pub async fn next(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).expect("JSON"),
            other => panic!("no text: {other:?}"),
        }
    }

    /// Reads to the end, which answers a close frame; gives its code.
    pub async fn close_code(&mut self) -> Option<u16> {
        let mut code = None;
        while let Some(Ok(message)) =
            timeout(PATIENCE, self.0.next()).await.expect("an end in time")
        {
            if let Message::Close(frame) = message {
                code = frame.map(|frame| frame.code.into());
            }
        }
        code
    }

    pub async fn join(&mut self, topic: &str) {
        self.send(json!(["1", "1", topic, "phx_join", {}])).await;
        assert_eq!(self.next().await, ok("1", "1", topic));
    }

    /// Nothing but the reply to a heartbeat comes.
    pub async fn is_quiet(&mut self) {
        self.send(json!([null, "hb", "phoenix", "heartbeat", {}])).await;
        let reply = json!([null, "hb", "phoenix", "phx_reply", {"status": "ok", "response": {}}]);
        assert_eq!(self.next().await, reply);
    }
}

pub fn ok(join_ref: &str, reference: &str, topic: &str) -> Value {
    json!([join_ref, reference, topic, "phx_reply", {"status": "ok", "response": {}}])
}

/// The status and headers with which a handshake is refused.
pub fn refusal(result: Result<Client, Error>) -> (u16, Option<String>) {
    match result {
        Err(Error::Http(response)) => {
            let after = response.headers().get("retry-after");
            (response.status().as_u16(), after.map(|v| v.to_str().expect("ASCII").to_owned()))
        }
        Err(error) => panic!("no refusal: {error}"),
        Ok(_) => panic!("accepted"),
    }
}
