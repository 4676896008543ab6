//! Presence of nodes that are linked by Redis alone, against a real redis-server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_node::run::Node;
use support::program::Running;
use support::redis::Redis;
use support::{BOUND, Client, Dir, end, until};

const TOPIC: &str = "room:1";

/// A Redis that runs, and what nodes of it are told.
fn redis() -> (Redis, Dir, String) {
    let (mut redis, dir) = (Redis::new(), Dir::new());
    redis.start();
    let live = "channels: [{topic: 'room:*', presence: {metaFields: [name]}}]\n\
                drain: {initialDelaySeconds: 0, batchIntervalSeconds: 0.1}\n";
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    let url = redis.dir.join("url");
    let more = format!("pubsub: {{adapter: Redis, redis: {{urlFile: '{}'}}}}\n", url.display());
    (redis, dir, more)
}

async fn node(name: &str, dir: &Dir, more: &str) -> Node {
    let node = support::node(name, &dir.config(more)).await;
    connected(&node, true).await;
    node
}

async fn connected(node: &Node, yes: bool) {
    until("Redis", || node.admin.status().redis_connected == Some(yes)).await;
}

/// Waits until words of the node were dropped for their age.
async fn lost_words(node: &Node) {
    let url = format!("http://{}/metrics", node.addresses.admin);
    let lost = async {
        let line = "sluice_redis_dropped_total{reason=\"stale\"}";
        while !reqwest::get(&url).await.unwrap().text().await.unwrap().contains(line) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(2 * BOUND, lost).await.expect("words grow old");
}

/// The names in one side of a diff, or in a state.
fn names(of: &Value) -> BTreeSet<String> {
    let entries = of.as_object().unwrap().values();
    let metas = entries.flat_map(|entry| entry["metas"].as_array().unwrap());
    metas.map(|meta| meta["name"].as_str().unwrap().to_owned()).collect()
}

/// A client that follows who is there, as `Presence` of phoenix.js does.
struct Person {
    client: Client,
    seen: BTreeSet<String>,
    left: Vec<String>,
}

impl Person {
    async fn join(http: SocketAddr, name: &str) -> Self {
        let mut client = Client::join_with(http, TOPIC, json!({ "name": name })).await;
        let seen = names(&client.event("presence_state").await);
        Self { client, seen, left: Vec::new() }
    }

    async fn on(node: &Node, name: &str) -> Self {
        Self::join(node.addresses.http, name).await
    }

    /// Waits until these are there, and nobody else.
    async fn sees<const N: usize>(&mut self, all: [&str; N]) {
        let all: BTreeSet<String> = all.map(String::from).into();
        while self.seen != all {
            let diff = self.client.event("presence_diff").await;
            self.left.extend(names(&diff["leaves"]));
            for name in names(&diff["leaves"]) {
                self.seen.remove(&name);
            }
            self.seen.extend(names(&diff["joins"]));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_pres_7_who_joins_and_leaves_is_seen_on_all_nodes_of_a_redis() {
    let (_redis, dir, more) = redis();
    let (a, b) = (node("a", &dir, &more).await, node("b", &dir, &more).await);
    let mut anna = Person::on(&a, "anna").await;
    let mut bert = Person::on(&b, "bert").await;
    anna.sees(["anna", "bert"]).await;
    bert.sees(["anna", "bert"]).await;
    // A newcomer learns of those that joined before it was there.
    let c = node("c", &dir, &more).await;
    let mut carl = Person::on(&c, "carl").await;
    carl.sees(["anna", "bert", "carl"]).await;
    bert.sees(["anna", "bert", "carl"]).await;
    drop(anna);
    bert.sees(["bert", "carl"]).await;
    carl.sees(["bert", "carl"]).await;
    // A node that goes in good order takes its clients along at once.
    drop(bert);
    end(b).await;
    carl.sees(["carl"]).await;
    drop(carl);
    tokio::join!(end(a), end(c));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_pres_7_the_clients_of_a_node_that_is_killed_leave() {
    let (_redis, dir, more) = redis();
    let a = node("a", &dir, &more).await;
    let mut anna = Person::on(&a, "anna").await;
    let (mut killed, http) = Running::start(&dir, &more);
    let mut bert = Person::join(http, "bert").await;
    anna.sees(["anna", "bert"]).await;
    bert.sees(["anna", "bert"]).await;
    killed.process.kill();
    anna.sees(["anna"]).await;
    end(a).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_restarts_takes_nobody_away_and_what_was_missed_is_made_good() {
    let (mut redis, dir, more) = redis();
    let (a, b) = (node("a", &dir, &more).await, node("b", &dir, &more).await);
    let mut anna = Person::on(&a, "anna").await;
    let mut bert = Person::on(&b, "bert").await;
    bert.sees(["anna", "bert"]).await;
    anna.sees(["anna", "bert"]).await;
    redis.kill();
    tokio::join!(connected(&a, false), connected(&b, false));
    // Who joins meanwhile is seen on the same node at once.
    let carl = Person::on(&a, "carl").await;
    anna.sees(["anna", "bert", "carl"]).await;
    // That took longer than words wait, so that they are lost, and longer than a silence may last.
    lost_words(&a).await;
    redis.start();
    tokio::join!(connected(&a, true), connected(&b, true));
    bert.sees(["anna", "bert", "carl"]).await;
    let dora = Person::on(&b, "dora").await;
    anna.sees(["anna", "bert", "carl", "dora"]).await;
    assert_eq!((anna.left, bert.left), (vec![], vec![]), "nobody was away");
    drop((anna.client, bert.client, carl, dora));
    tokio::join!(end(a), end(b));
}
