//! Meshes alone, over loopback, by links that can be cut. Every wait is bounded.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use sluice_node::keys::Keys;
use sluice_node::mesh::handshake::Identity;
use sluice_node::mesh::transport::{BoxStream, Tcp, Transport};
use sluice_node::mesh::{Mesh, MeshConfig, Timing};
use sluice_node::pubsub::{Adapter, Broadcast, Kind, Local};
use sluice_node_api::config::Routing;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

pub const BOUND: Duration = Duration::from_secs(10);

/// Keeps the payloads of what was delivered.
#[derive(Default)]
pub struct Kept(Mutex<(Vec<Bytes>, HashSet<Bytes>)>);

impl Local for Kept {
    fn deliver(&self, b: Broadcast) {
        let mut kept = self.0.lock();
        kept.0.push(b.payload.clone());
        kept.1.insert(b.payload);
    }
}

/// TCP whose connections can all be cut at once.
#[derive(Default)]
pub struct Cuttable(Mutex<CancellationToken>);

impl Cuttable {
    pub fn cut(&self) {
        std::mem::take(&mut *self.0.lock()).cancel();
    }
}

impl Transport for Cuttable {
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<BoxStream>> {
        let cut = self.0.lock().clone();
        Box::pin(async move {
            let inner = Tcp.connect(addr).await?;
            let cut = Box::pin(cut.cancelled_owned());
            Ok(Box::new(Cut { inner, cut }) as BoxStream)
        })
    }
}

struct Cut {
    inner: BoxStream,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl AsyncRead for Cut {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.cut.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Cut {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

pub struct Node {
    pub mesh: Mesh,
    pub addr: SocketAddr,
    pub kept: Arc<Kept>,
    pub links: Arc<Cuttable>,
    pub keys: Keys,
}

pub async fn node(name: &str, cluster: &str, token: &'static str) -> Node {
    node_with(name, cluster, token, 1 << 20).await
}

pub async fn node_with(name: &str, cluster: &str, token: &'static str, buffer: usize) -> Node {
    let config = config((name, cluster), token, buffer, Routing::default());
    start(config).await
}

/// A node that has said what patterns it wants, linked to others of its like.
pub async fn routed<const N: usize>(routing: [Routing; N]) -> [Node; N] {
    let start = |(n, routing): (usize, Routing)| async move {
        let name = format!("node-{n}");
        let node = start(config((&name, "c"), "token", 8 << 20, routing)).await;
        node.mesh.set_patterns(&[]);
        node
    };
    let nodes = join_all(routing.into_iter().enumerate().map(start)).await;
    let all: Vec<&Node> = nodes.iter().collect();
    nodes.iter().for_each(|node| node.see(&all));
    until("all linked", || nodes.iter().all(|node| node.mesh.linked() == N - 1)).await;
    nodes.try_into().unwrap_or_else(|_| panic!("as many"))
}

fn config(
    (name, cluster): (&str, &str),
    token: &'static str,
    peer_buffer: usize,
    routing: Routing,
) -> MeshConfig {
    MeshConfig {
        identity: Identity {
            cluster: cluster.into(),
            name: name.into(),
            instance: rand::random(),
            ip: None,
            port: 0,
        },
        keys: Keys::new(Bytes::from_static(token.as_bytes())),
        peer_buffer,
        routing,
        timing: Timing {
            heartbeat: Duration::from_millis(100),
            silence: Duration::from_secs(1),
            retry_min: Duration::from_millis(20),
            retry_max: Duration::from_millis(200),
            ..Timing::default()
        },
    }
}

async fn start(mut config: MeshConfig) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    config.identity.port = addr.port();
    let (kept, links, keys) = (Arc::default(), Arc::<Cuttable>::default(), config.keys.clone());
    let local: Arc<Kept> = Arc::clone(&kept);
    let mesh = Mesh::start(config, listener, links.clone(), local);
    Node { mesh, addr, kept, links, keys }
}

impl Node {
    pub fn see(&self, others: &[&Node]) {
        self.mesh.set_discovered(&others.iter().map(|n| n.addr).collect());
    }

    pub fn say(&self, text: &str) {
        self.say_on("room:1", "msg", text);
    }

    pub fn say_on(&self, topic: &str, event: &str, text: &str) {
        self.mesh.send(&Broadcast {
            topic: topic.into(),
            event: event.into(),
            kind: Kind::Json,
            payload: Bytes::copy_from_slice(text.as_bytes()),
        });
    }

    pub fn heard(&self) -> Vec<String> {
        let all = self.kept.0.lock();
        all.0.iter().map(|text| String::from_utf8(text.to_vec()).unwrap()).collect()
    }

    pub fn has_heard(&self, text: &str) -> bool {
        self.kept.0.lock().1.contains(text.as_bytes())
    }

    /// Joins, as the first of this node on the topic; ends with the join's reply.
    pub async fn join(&self, topic: &str) {
        self.mesh.subscribe(&topic.into()).await;
    }

    pub fn leave(&self, topic: &str) {
        self.mesh.unsubscribe(&topic.into());
    }
}

pub async fn until(what: &str, mut ok: impl FnMut() -> bool) {
    let end = Instant::now() + BOUND;
    while !ok() {
        assert!(Instant::now() < end, "not within {BOUND:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn metric(node: &Node, line: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::default();
    node.mesh.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let found = text.lines().find_map(|l| l.strip_prefix(line));
    found.map_or(0, |n| n.trim().parse().unwrap())
}
