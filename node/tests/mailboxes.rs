//! What waits for the channels of a socket, and of a node, is bounded however many channels there are; those
//! of others are served meanwhile.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;

use std::{future::pending, sync::Arc};

use backend::{Backend, start, url};
use plane::{Client, Node, ok};
use serde_json::json;
use sluice_node::{
    channel::{self, Answer, Channel, Ctx, Handled, JoinError, Mount, Payload, Router},
    hub::Reason,
    server::Builder,
};
use sluice_node_api::config::{Limits, LiveConfig, NodeConfig};
use support::{Dir, end};
use tokio_util::sync::CancellationToken;

/// What may wait for the channels of a socket together, in bytes.
const OF_A_SOCKET: usize = 16 << 20;
/// Of one message.
const SIZE: usize = 32 << 10;
/// More of those than may wait for a socket, and fewer for each of its channels than for one.
const MANY: usize = 2 * OF_A_SOCKET / SIZE;
const CHANNELS: usize = 30;

/// Never is done with `stick`, answers everything else, and hears of `news` itself.
struct Sticky;

impl Channel for Sticky {
    type Info = ();
    const INTERCEPT: &'static [&'static str] = &["news"];

    async fn join(_: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
        Ok((Self, Payload::empty()))
    }

    async fn handle_in(&mut self, message: channel::Message, ctx: &Ctx) -> Handled {
        match message.event.as_str() {
            "stick" => pending().await,
            "tell" => ctx.broadcast("news", message.payload)?,
            _ => {}
        }
        Ok(Answer::ok(()))
    }

    async fn handle_out(&mut self, _: &str, _: Payload, ctx: &Ctx) -> Handled {
        ctx.push("heard", ())?;
        Ok(Answer::None)
    }
}

async fn node() -> Node {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let mount = Mount::open("/socket").channels(Router::new().channel::<Sticky>("*"));
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(mount).shards(1);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    Node { hub, address, shutdown }
}

/// Has all mailboxes take no more than half of this.
fn limit(node: &Node, bytes: u64) {
    let limits = Limits { max_buffered_bytes: Some(bytes), ..Limits::default() };
    node.hub.set_live(Arc::new(LiveConfig { limits, ..LiveConfig::default() }));
}

fn refused(node: &Node) -> usize {
    let count = node.hub.metrics().dropped.get_or_create(&Reason { reason: "mailbox" }).get();
    usize::try_from(count).expect("few")
}

/// A client with many channels, each of them stuck, named after `prefix`.
async fn stuck(node: &Node, prefix: &str) -> Client {
    let mut client = node.client().await;
    let topics = || (0..CHANNELS).map(|n| format!("{prefix}:{n}"));
    for topic in topics() {
        client.join(&topic).await;
    }
    for topic in topics() {
        client.send(json!(["1", "2", topic, "stick", {}])).await;
    }
    client.is_quiet().await;
    client
}

/// Sends `count` large messages to its channels in turn; how many are refused.
async fn flood(client: &mut Client, prefix: &str, count: usize) -> usize {
    let load = "x".repeat(SIZE);
    let mut refused = 0;
    for n in 0..count {
        let topic = format!("{prefix}:{}", n % CHANNELS);
        client.send(json!(["1", "3", topic, "more", {"load": load}])).await;
        if n % 32 != 31 && n + 1 < count {
            continue;
        }
        // What is refused is told at once, and what waits not at all.
        client.send(json!([null, "hb", "phoenix", "heartbeat", {}])).await;
        loop {
            let came = client.next().await;
            if came[1] == "hb" {
                assert_eq!(came[4]["status"], "ok");
                break;
            }
            assert_eq!(came[4]["response"]["reason"], "too many messages wait", "{came}");
            refused += 1;
        }
    }
    refused
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_channels_of_a_socket_together_hold_no_more_than_one_may() {
    let node = node().await;
    let mut other = node.joined("other").await;
    let mut client = stuck(&node, "stuck").await;
    client.join("free").await;
    let many = flood(&mut client, "stuck", MANY).await;
    assert!((MANY - many) * SIZE <= OF_A_SOCKET, "{many} of {MANY} are refused");
    assert!(many < MANY * 6 / 10, "and no more than must be: {many} of {MANY}");
    assert_eq!(refused(&node), many);
    other.send(json!(["1", "2", "other", "more", {"load": "x".repeat(SIZE)}])).await;
    assert_eq!(other.next().await, ok("1", "2", "other"), "another socket goes on");
    client.send(json!(["1", "4", "free", "more", {"load": "x".repeat(SIZE)}])).await;
    let told = client.next().await;
    assert_eq!(told[4]["response"]["reason"], "too many messages wait", "its other channels wait");
    client.send(json!(["1", "5", "free", "phx_leave", {}])).await;
    assert_eq!(client.next().await, ok("1", "5", "free"), "but may be left");
    assert_eq!(client.next().await[3], "phx_close");
    // A channel that ends leaves its room to the others.
    client.send(json!(["1", "6", "stuck:0", "phx_join", {}])).await;
    assert_eq!(client.next().await, ok("1", "6", "stuck:0"));
    assert_eq!(client.next().await[3], "phx_close");
    client.send(json!(["1", "7", "stuck:0", "more", {"load": "x".repeat(SIZE)}])).await;
    assert_eq!(client.next().await, ok("1", "7", "stuck:0"));
}

fn waiting(node: &Node) -> usize {
    usize::try_from(node.hub.metrics().mailed.get()).expect("never less than nothing")
}

/// Joins each of its channels anew, which ends those that are stuck.
async fn unstick(client: &mut Client, prefix: &str) {
    for n in 0..CHANNELS {
        let topic = format!("{prefix}:{n}");
        client.send(json!(["1", "8", topic, "phx_join", {}])).await;
        assert_eq!(client.next().await, ok("1", "8", &topic));
        assert_eq!(client.next().await[3], "phx_close");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_channels_of_all_sockets_hold_no_more_than_half_of_what_may_wait_and_others_are_served()
{
    const BOUND: usize = 4 << 20;
    let node = node().await;
    limit(&node, 2 * BOUND as u64);
    let mut other = node.joined("other").await;
    let mut clients = Vec::new();
    for prefix in ["a", "b", "c", "d"] {
        let mut client = stuck(&node, prefix).await;
        assert!(flood(&mut client, prefix, BOUND / SIZE).await > 0, "{prefix}");
        assert!(waiting(&node) <= BOUND, "{}", waiting(&node));
        clients.push((client, prefix));
    }
    assert!(waiting(&node) > BOUND * 3 / 4, "it is made use of: {}", waiting(&node));
    for _ in 0..10 {
        other.send(json!(["1", "2", "other", "more", {"load": "x".repeat(SIZE)}])).await;
        assert_eq!(other.next().await, ok("1", "2", "other"));
    }
    for (client, prefix) in &mut clients {
        unstick(client, prefix).await;
    }
    node.until("nothing waits", |_| waiting(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_that_waits_for_many_channels_counts_once() {
    const BROADCASTS: usize = 20;
    let node = node().await;
    limit(&node, 4 << 20);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = node.joined("all").await;
        client.send(json!(["1", "2", "all", "stick", {}])).await;
        client.is_quiet().await;
        clients.push(client);
    }
    let mut other = node.joined("all").await;
    for _ in 0..BROADCASTS {
        other.send(json!(["1", "3", "all", "tell", {"load": "x".repeat(SIZE)}])).await;
        assert_eq!(other.next().await, ok("1", "3", "all"));
        assert_eq!(other.next().await[3], "heard");
    }
    let waits = waiting(&node);
    assert!((BROADCASTS * SIZE..2 * BROADCASTS * SIZE).contains(&waits), "{waits}");
    assert_eq!(refused(&node), 0, "all of them would be {}", 20 * BROADCASTS * SIZE);
    for client in &mut clients {
        client.send(json!(["1", "4", "all", "phx_join", {}])).await;
        assert_eq!(client.next().await, ok("1", "4", "all"));
    }
    node.until("nothing waits", |_| waiting(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_wait_for_a_backend_are_bounded_for_a_socket_and_relays_go_on() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let rules = "channels: [{topic: 'asked:*', webhooks: {events: ['*']}}, {topic: 'plain:*'}]\n\
                 drain: {initialDelaySeconds: 0}\n";
    std::fs::write(dir.0.join("live.yaml"), rules).expect("written");
    let gate = backend.hold("event");
    let node = start(&dir, &backend.url, "  timeoutMilliseconds: 8000\n").await;
    let mut other = Client::connect(&url(&node, "")).await.expect("let in");
    other.join("plain:1").await;
    let mut client = Client::connect(&url(&node, "")).await.expect("let in");
    for n in 0..CHANNELS {
        client.join(&format!("asked:{n}")).await;
    }
    let refused = flood(&mut client, "asked", MANY).await;
    assert!(refused > MANY / 3, "{refused} of {MANY} are refused");
    let address = format!("http://{}/metrics", node.addresses.admin);
    let metrics = reqwest::get(address).await.expect("up").text().await.expect("text");
    let waits = metrics.lines().find_map(|line| line.strip_prefix("sluice_mailbox_bytes "));
    let waits: usize = waits.expect("shown").parse().expect("a number");
    assert!((OF_A_SOCKET / 2..=OF_A_SOCKET).contains(&waits), "{waits}");
    other.send(json!(["1", "2", "plain:1", "hi", {}])).await;
    assert_eq!(other.next().await[3], "hi");
    assert_eq!(other.next().await, ok("1", "2", "plain:1"));
    drop((client, other));
    gate.add_permits(MANY);
    end(node).await;
}
