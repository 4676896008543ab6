//! Long-poll sessions of nodes that are linked by Redis alone, against a real redis-server.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod conformance;
mod plane;
mod support;

use std::{sync::Arc, time::Duration};

use conformance::joined;
use plane::{
    Node, PATIENCE, ok,
    session::{Session, answer},
};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use sluice_node::redis_adapter::{RedisAdapter, RedisConfig};
use sluice_node_api::admin::{DrainMode, DrainRequest};
use support::{Dir, end, program::Running, redis::Redis, until};
use tokio::time::timeout;

const TOPIC: &str = "quiet:a";

/// A node with the conformance app, and its way to Redis.
struct Linked {
    node: Node,
    adapter: RedisAdapter,
}

impl Linked {
    async fn to(redis: &Redis) -> Self {
        let node = conformance::node().await;
        let config = RedisConfig {
            url_file: redis.dir.join("url"),
            cluster: "c".into(),
            instance: node.hub.instance(),
            buffer: 32 << 20,
        };
        let adapter = RedisAdapter::start(config, Arc::new(node.hub.clone()));
        node.hub.set_adapter(Arc::new(adapter.clone()));
        Self { node, adapter }
    }

    async fn connected(&self, yes: bool) {
        until("Redis", || self.adapter.connected() == yes).await;
    }

    /// Words of other nodes so far.
    fn heard(&self) -> u64 {
        let (mut registry, mut text) = (Registry::default(), String::new());
        self.adapter.register(&mut registry);
        encode(&mut text, &registry).expect("text");
        let line = text.lines().find_map(|line| line.strip_prefix("redis_received_total "));
        line.map_or(0, |n| n.parse().expect("a number"))
    }

    fn session(&self, of: &Session, path: &str) -> Session {
        of.at(self.node.address, path)
    }
}

/// A Redis that runs, and two nodes of it.
async fn pair() -> (Redis, [Linked; 2]) {
    let mut redis = Redis::new();
    redis.start();
    let pair = [Linked::to(&redis).await, Linked::to(&redis).await];
    for one in &pair {
        one.connected(true).await;
    }
    (redis, pair)
}

fn push(reference: &str, event: &str, payload: Value) -> [String; 1] {
    [json!(["1", reference, TOPIC, event, payload]).to_string()]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_lp_7_any_node_of_a_redis_serves_a_session() {
    let (_redis, [one, two]) = pair().await;
    let here = Session::open(one.node.address, "/socket").await;
    let there = two.session(&here, "/socket");
    there.join(TOPIC).await;
    let mut near = joined(&one.node, TOPIC).await;
    let mut far = joined(&two.node, TOPIC).await;
    // What is pushed through the other node comes from the session's own.
    assert_eq!(there.post(&push("2", "broadcast_from", json!({"n": 1}))).await, 200);
    let shout = |n: u64| json!([null, null, TOPIC, "shout", {"n": n}]);
    assert_eq!((near.next().await, far.next().await), (shout(1), shout(1)));
    assert_eq!(there.messages(1).await, [ok("1", "2", TOPIC)]);
    assert_eq!(here.post(&push("3", "ack", json!({}))).await, 200);
    assert_eq!(there.messages(1).await, [ok("1", "3", TOPIC)]);
    for (n, client) in [(2, &mut near), (3, &mut far)] {
        client.send(json!(["1", "4", TOPIC, "broadcast_from", {"n": n}])).await;
        assert_eq!(there.messages(1).await, [shout(n)]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_lp_8_the_other_nodes_of_a_redis_notice_that_a_session_is_gone() {
    let (mut redis, dir) = (Redis::new(), Dir::new());
    redis.start();
    let url = redis.dir.join("url");
    let more = format!("pubsub: {{adapter: Redis, redis: {{urlFile: '{}'}}}}\n", url.display());
    let node = support::node("a", &dir.config(&more)).await;
    until("Redis", || node.admin.status().redis_connected == Some(true)).await;
    let (mut killed, address) = Running::start(&dir, &more);
    let join = [json!(["1", "1", "room:1", "phx_join", {}]).to_string()];
    let session = Session::open(address, "/socket").await.at(node.addresses.http, "/socket");
    assert_eq!(session.post(&join).await, 200);
    assert_eq!(session.messages(1).await[0][3], "phx_reply");
    killed.process.kill();
    assert_eq!(session.post(&join).await, 410);
    let (status, messages) = session.poll().await;
    assert_eq!((status, messages.len()), (410, 0), "another session");
    end(node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_lp_8_sessions_outlive_a_redis_that_was_away_and_nothing_comes_late() {
    let (mut redis, [one, two]) = pair().await;
    let here = Session::open(one.node.address, "/socket").await;
    let there = two.session(&here, "/socket");
    there.join(TOPIC).await;
    let quick = Session::open(one.node.address, "/quick").await;
    let far = two.session(&quick, "/quick");
    let mut watcher = joined(&one.node, TOPIC).await;
    redis.kill();
    tokio::join!(one.connected(false), two.connected(false));
    // On its own node a session needs no Redis.
    assert_eq!(here.post(&push("2", "ack", json!({}))).await, 200);
    assert_eq!(here.messages(1).await, [ok("1", "2", TOPIC)]);
    // Nobody knows whether it is dead; what can't be asked in time is never asked.
    assert_eq!(far.poll().await, (204, vec![]));
    let mut late = push("1", "phx_join", json!({})).to_vec();
    late.extend(push("3", "broadcast_from", json!({"n": 3})));
    assert_eq!(far.post(&late).await, 408, "P-LP-4");
    let back = async {
        redis.start();
        tokio::join!(one.connected(true), two.connected(true));
    };
    let held = push("4", "broadcast_from", json!({"n": 4}));
    let (taken, ()) = tokio::join!(there.post(&held), back);
    assert_eq!(taken, 200, "it waited for Redis");
    assert_eq!(there.messages(1).await, [ok("1", "4", TOPIC)]);
    assert_eq!(watcher.next().await, json!([null, null, TOPIC, "shout", {"n": 4}]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_drain_6_a_drain_releases_a_poll_that_waits_on_another_node_of_a_redis() {
    let (_redis, [one, two]) = pair().await;
    let session = Session::open(one.node.address, "/socket").await;
    let session = two.session(&session, "/socket");
    session.join(TOPIC).await;
    let before = one.heard();
    let drain = DrainRequest {
        mode: DrainMode::Immediate,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 1,
        batch_interval_seconds: 0.1,
        ttl_seconds: 60.0,
    };
    let drained = async {
        until("the poll waits", || one.heard() > before).await;
        one.node.hub.start_drain(drain);
    };
    // The poll would wait for ten seconds.
    let polled = async { timeout(PATIENCE * 3 / 4, session.poll()).await.expect("released") };
    let (polled, ()) = tokio::join!(polled, drained);
    // 410 if the drain was faster.
    assert!([204, 410].contains(&polled.0) && polled.1.is_empty(), "{polled:?}");
    assert_eq!(session.poll().await.0, 410, "another session");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p_drain_6_a_node_that_ends_answers_polls_of_sessions_elsewhere_and_they_live_on() {
    let (_redis, [one, two]) = pair().await;
    let here = Session::open(one.node.address, "/socket").await;
    here.join(TOPIC).await;
    let there = two.session(&here, "/socket");
    let before = one.heard();
    let ended = async {
        until("the poll waits", || one.heard() > before).await;
        two.node.shutdown.cancel();
        timeout(PATIENCE, two.node.hub.stopped()).await.expect("ends");
    };
    let request = there.http.get(format!("{}&token={}", there.url, there.token));
    let polled = async { timeout(PATIENCE * 3 / 4, answer(request)).await.expect("answered") };
    let (polled, ()) = tokio::join!(polled, ended);
    assert_eq!(polled["status"], 204);
    assert_eq!(here.post(&push("2", "ack", json!({}))).await, 200);
    assert_eq!(here.messages(1).await, [ok("1", "2", TOPIC)]);
    two.adapter.leave(Duration::ZERO).await;
}
