//! What waits for all clients of a node together is bounded: the slowest go first, and nobody else notices.

mod flood;
mod plane;

use std::sync::Arc;

use flood::{SIZE, broadcast, dropped, read, rule};
use plane::{Client, Node, PATIENCE};
use serde_json::{Value, json};
use sluice_node::hub::Code;
use sluice_node_api::config::{Limits, LiveConfig, SlowConsumer, Socket};
use tokio::time::timeout;

/// The memory that may be taken.
const BOUND: u64 = 2 << 20;
/// What a turn of each shard may add before it looks.
const TURNS: u64 = 2 * (SIZE as u64 + (64 << 10));

async fn node() -> Node {
    let node = Node::with(Socket::default(), Vec::new()).await;
    limit(&node, BOUND);
    node
}

fn limit(node: &Node, bytes: u64) {
    let channels =
        vec![rule("lossy:*", SlowConsumer::DropOldest), rule("*", SlowConsumer::Disconnect)];
    let limits = Limits { max_buffered_bytes: Some(bytes), ..Limits::default() };
    node.hub.set_live(Arc::new(LiveConfig { channels, limits, ..LiveConfig::default() }));
}

fn buffered(node: &Node) -> u64 {
    u64::try_from(node.hub.metrics().buffered.get()).expect("never less than nothing")
}

/// Clients on topics of their own, so that what waits for one waits for no other.
async fn clients(node: &Node, prefix: &str, count: usize) -> Vec<Client> {
    let mut clients = Vec::new();
    for n in 0..count {
        clients.push(node.joined(&format!("{prefix}:{n}")).await);
    }
    clients
}

/// Broadcasts to each of such topics, and to clients that read, until `enough`; how many times. Those who
/// read have each before the next is sent.
async fn flood(
    node: &Node,
    (prefix, count): (&str, usize),
    readers: &mut [Client],
    from: u64,
    enough: impl Fn() -> bool,
) -> u64 {
    let mut sent = from;
    let more = async {
        while !enough() {
            for n in 0..count {
                broadcast(node, &format!("{prefix}:{n}"), sent, 1);
            }
            broadcast(node, "all", sent, 1);
            for reader in &mut *readers {
                assert_eq!(reader.next().await[4]["n"], sent);
            }
            assert!(buffered(node) <= BOUND + TURNS, "{}", buffered(node));
            sent += 1;
        }
    };
    timeout(PATIENCE, more).await.expect("it is enough in the end");
    sent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_slowest_are_closed_and_who_is_less_slow_or_reads_misses_nothing() {
    let node = node().await;
    let (loud, quiet) = (clients(&node, "loud", 12).await, clients(&node, "quiet", 12).await);
    let mut readers = vec![node.joined("all").await, node.joined("all").await];
    // The kernels of both ends are full, and something waits for each.
    let some = || buffered(&node) > 12 * 20_000;
    let before = flood(&node, ("quiet", 12), &mut readers, 0, some).await;
    flood(&node, ("loud", 12), &mut readers, before, || dropped(&node, "memory") >= 20).await;
    node.until("below it", |_| buffered(&node) <= BOUND).await;
    for mut client in quiet {
        assert_eq!(read(&mut client, before - 1, &mut Vec::new()).await, (before, 0));
        client.is_quiet().await;
    }
    assert_eq!((dropped(&node, "slow"), dropped(&node, "inbox")), (0, 0));
    drop(readers);
    // Those that were let go of are told so once they read; the others are there until the node ends.
    node.shutdown.cancel();
    let mut codes = Vec::new();
    for mut client in loud {
        codes.push(client.close_code().await);
    }
    assert!(codes.contains(&Some(1008)), "{codes:?}");
    node.until("all gone", |hub| hub.counts().connections == 0).await;
    let closed = |code| node.hub.metrics().closes.get_or_create(&Code { code }).get();
    assert!((1..=12).contains(&closed(1008)), "{} of {codes:?}", closed(1008));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_rule_says_so_the_slowest_miss_broadcasts_are_told_how_many_and_stay() {
    let node = node().await;
    let mut slow = clients(&node, "lossy", 24).await;
    let mut readers = vec![node.joined("all").await, node.joined("all").await];
    let enough = || dropped(&node, "memory") >= 100;
    let sent = flood(&node, ("lossy", 24), &mut readers, 0, enough).await;
    node.until("below it", |_| buffered(&node) <= BOUND).await;
    let mut missed = 0;
    for (n, client) in slow.iter_mut().enumerate() {
        // Once it reads, all that comes is for it again.
        let topic = format!("lossy:{n}");
        client.send(json!(["1", "7", topic, "hi", {}])).await;
        let mut others = Vec::new();
        broadcast(&node, &topic, sent, 1);
        let (came, gone) = read(client, sent, &mut others).await;
        assert_eq!(came + gone, sent + 1);
        missed += gone;
    }
    assert_eq!(missed, dropped(&node, "memory") + dropped(&node, "oldest"), "all was told");
    assert_eq!(node.hub.counts().connections, 26);
    node.until("nothing waits", |_| buffered(&node) == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_that_many_wait_for_counts_about_once() {
    let node = node().await;
    let mut slow = Vec::new();
    for _ in 0..40 {
        slow.push(node.joined("all").await);
    }
    let mut readers = vec![node.joined("all").await, node.joined("all").await];
    // For each of them as much waits as for those who are let go of elsewhere.
    let some = || buffered(&node) > 2 * 150_000;
    let sent = flood(&node, ("", 0), &mut readers, 0, some).await;
    assert!(buffered(&node) < BOUND / 2, "{}", buffered(&node));
    for client in &mut slow {
        assert_eq!(read(client, sent - 1, &mut Vec::new()).await, (sent, 0));
    }
    assert_eq!((dropped(&node, "memory"), node.hub.counts().connections), (0, 42));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lower_bound_counts_at_once_also_when_nothing_is_said_any_more() {
    let node = node().await;
    let clients = clients(&node, "own", 12).await;
    let some = || buffered(&node) > BOUND / 2;
    flood(&node, ("own", 12), &mut [], 0, some).await;
    assert_eq!(dropped(&node, "memory"), 0);
    limit(&node, BOUND / 4);
    node.until("below it", |_| buffered(&node) <= BOUND / 4).await;
    assert!(dropped(&node, "memory") > 0);
    assert_eq!(node.hub.metrics().buffered_limit.get(), BOUND as i64 / 4);
    drop(clients);
    node.until("nothing waits", |_| buffered(&node) == 0).await;
}

/// A long-poll session that has joined a topic and never polls again: where it polls.
async fn session(http: &reqwest::Client, node: &Node, topic: &str) -> String {
    let url = format!("http://{}/socket/longpoll?vsn=2.0.0", node.address);
    let get = async |url: &str| {
        let answer = http.get(url).timeout(PATIENCE).send().await.expect("an answer");
        answer.json::<Value>().await.expect("JSON")
    };
    let token = get(&url).await["token"].as_str().expect("a token").to_owned();
    let url = format!("{url}&token={token}");
    let join = json!(["1", "1", topic, "phx_join", {}]).to_string();
    let posted = http.post(&url).header("content-type", "application/x-ndjson").body(join);
    posted.timeout(PATIENCE).send().await.expect("an answer");
    assert_eq!(get(&url).await["status"], 200, "the reply to the join");
    url
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn long_poll_sessions_that_nobody_polls_count_as_well() {
    let node = node().await;
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let mut sessions = Vec::new();
    for n in 0..24 {
        sessions.push(session(&http, &node, &format!("own:{n}")).await);
    }
    let mut readers = vec![node.joined("all").await, node.joined("all").await];
    let enough = || dropped(&node, "memory") > 0;
    flood(&node, ("own", 24), &mut readers, 0, enough).await;
    node.until("below it", |_| buffered(&node) <= BOUND).await;
    let open = node.hub.counts().connections;
    assert!(open < 26, "some are gone");
    let mut gone = 0;
    for url in sessions {
        let answer = http.get(url).timeout(PATIENCE).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        gone += u64::from(answer["status"] == 410);
    }
    assert_eq!(gone, 26 - open);
}
