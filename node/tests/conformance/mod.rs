//! Nodes with the conformance app, and what is asked of them again and again.
#![allow(dead_code, reason = "each test binary uses a part")]

use serde_json::{Value, json};
use sluice_node::{cluster, mesh::Mesh, server::Builder};
use sluice_node_api::config::NodeConfig;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::plane::{Client, Node, PATIENCE};

#[path = "../../examples/conformance/app.rs"]
mod app;

/// A node alone.
pub async fn node() -> Node {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let shutdown = CancellationToken::new();
    let mut builder = Builder::new(&config).shards(2).secret("secret");
    for mount in app::mounts() {
        builder = builder.mount(mount);
    }
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    Node { hub, address, shutdown }
}

/// Two nodes, linked.
pub async fn pair() -> [(Node, Mesh); 2] {
    let pair = [node().await, node().await];
    let [one, two] = link([&pair[0], &pair[1]]).await;
    let [first, second] = pair;
    [(first, one), (second, two)]
}

/// Links two nodes.
pub async fn link(pair: [&Node; 2]) -> [Mesh; 2] {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind().await.expect("a port"), bind().await.expect("a port")];
    let peers = [0, 1].map(|n: usize| listeners[n].local_addr().expect("bound"));
    let mut links = Vec::new();
    for (n, listener) in listeners.into_iter().enumerate() {
        let (others, own) = ([peers[1 - n]], peers[n].to_string());
        let mesh = cluster::join(&pair[n].hub, listener, &others, "secret", own);
        links.push(mesh.expect("bound"));
    }
    for (n, mesh) in links.iter().enumerate() {
        cluster::linked(mesh, &[peers[1 - n]], PATIENCE).await;
        assert_eq!(mesh.linked(), 1);
    }
    links.try_into().unwrap_or_else(|_| panic!("two"))
}

/// A client on `topic` of `/socket`, joined with `join_ref` and `ref` `"1"`; what a `room:*` says
/// after the join is read.
pub async fn joined(node: &Node, topic: &str) -> Client {
    let mut client = node.client().await;
    join(&mut client, topic).await;
    client
}

pub async fn join(client: &mut Client, topic: &str) {
    client.join(topic).await;
    if topic.starts_with("room:") {
        assert_eq!(client.next().await[3], "user_entered");
        assert_eq!(
            client.next().await,
            json!(["1", null, topic, "joined", {"status": "connected"}])
        );
    }
}

/// A reply.
pub fn reply(
    join_ref: Value,
    reference: Value,
    topic: &str,
    status: &str,
    response: Value,
) -> Value {
    json!([join_ref, reference, topic, "phx_reply", {"status": status, "response": response}])
}

/// Sends and gives the next message.
pub async fn ask(client: &mut Client, message: Value) -> Value {
    client.send(message).await;
    client.next().await
}

/// A binary push of a client (`P-BIN-1`).
pub fn push(join_ref: &str, reference: &str, topic: &str, event: &str, payload: &[u8]) -> Vec<u8> {
    binary(&[0], &[join_ref, reference, topic, event], payload)
}

/// A binary message of kind `kind` (`P-BIN-1` to `P-BIN-4`).
pub fn binary(kind: &[u8], fields: &[&str], payload: &[u8]) -> Vec<u8> {
    let lens = fields.iter().map(|field| u8::try_from(field.len()).expect("short"));
    let mut out = kind.to_vec();
    out.extend(lens);
    fields.iter().for_each(|field| out.extend_from_slice(field.as_bytes()));
    out.extend_from_slice(payload);
    out
}
