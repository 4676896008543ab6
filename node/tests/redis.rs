//! The Redis adapter against a real redis-server, which each test starts for itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_node::pubsub::{Adapter, Broadcast, Instance, Kind, Local, Signal};
use sluice_node::redis_adapter::{RedisAdapter, RedisConfig};
use sluice_node_api::admin::RedisFailure;
use support::redis::Redis;
use support::{BOUND, Client, Dir, end, until};

#[derive(Default)]
struct Kept(Mutex<Vec<Broadcast>>, Mutex<Vec<(Instance, Signal)>>);

impl Local for Kept {
    fn deliver(&self, b: Broadcast) {
        self.0.lock().push(b);
    }

    fn signal(&self, from: Instance, signal: Signal) {
        self.1.lock().push((from, signal));
    }
}

struct Node {
    instance: Instance,
    adapter: RedisAdapter,
    kept: Arc<Kept>,
}

impl Node {
    fn say(&self, topic: &str, text: &str) {
        self.adapter.send(&Broadcast {
            topic: topic.into(),
            event: "msg".into(),
            kind: Kind::Json,
            payload: Bytes::copy_from_slice(text.as_bytes()),
        });
    }

    fn heard(&self) -> Vec<String> {
        let all = self.kept.0.lock();
        all.iter().map(|b| format!("{} {}", b.topic, String::from_utf8_lossy(&b.payload))).collect()
    }

    /// Connections lost so far.
    fn lost(&self) -> u64 {
        self.metric("redis_lost_connections_total ")
    }

    fn metric(&self, name: &str) -> u64 {
        let mut registry = prometheus_client::registry::Registry::default();
        self.adapter.register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|l| l.strip_prefix(name));
        line.map_or(0, |n| n.parse().unwrap())
    }

    async fn connected(&self) {
        until("connected", || self.adapter.connected()).await;
    }
}

fn node(redis: &Redis, cluster: &str) -> Node {
    let kept = Arc::new(Kept::default());
    let instance = rand::random();
    let config = RedisConfig {
        url_file: redis.dir.join("url"),
        cluster: cluster.into(),
        instance,
        buffer: 1 << 20,
    };
    Node { instance, adapter: RedisAdapter::start(config, kept.clone()), kept }
}

#[tokio::test]
async fn a_topic_reaches_the_nodes_that_subscribed_it_and_no_other() {
    let mut redis = Redis::new();
    redis.start();
    let (a, b, other) = (node(&redis, "c"), node(&redis, "c"), node(&redis, "d"));
    for n in [&a, &b, &other] {
        n.connected().await;
        n.adapter.subscribe(&"room:1".into()).await;
    }
    a.adapter.subscribe(&"room:2".into()).await;
    // No pause: `subscribe` ended, so Redis has confirmed.
    for i in 0..200 {
        a.say("room:1", &i.to_string());
    }
    a.say("room:2", "nobody there");
    b.say("room:2", "for a");
    let want: Vec<String> = (0..200).map(|i| format!("room:1 {i}")).collect();
    until("in order", || b.heard() == want).await;
    until("the other topic", || a.heard() == ["room:2 for a"]).await;
    assert!(other.heard().is_empty(), "another cluster heard: {:?}", other.heard());
    b.adapter.unsubscribe(&"room:1".into());
    b.adapter.subscribe(&"room:3".into()).await;
    a.say("room:1", "late");
    a.say("room:3", "last");
    until("heard the last", || b.heard().last().is_some_and(|t| t == "room:3 last")).await;
    assert_eq!(b.heard().len(), 201, "an unsubscribed topic came");
}

#[tokio::test]
async fn p_con_10_a_disconnect_reaches_nodes_that_have_not_subscribed_the_id_yet() {
    let mut redis = Redis::new();
    redis.start();
    let (a, b, other) = (node(&redis, "c"), node(&redis, "c"), node(&redis, "d"));
    for n in [&a, &b, &other] {
        n.connected().await;
    }
    b.adapter.subscribe(&"users:bert".into()).await;
    for id in ["users:anna", "users:bert"] {
        let payload = Bytes::from_static(b"{}");
        let event = "disconnect".into();
        a.adapter.send(&Broadcast { topic: id.into(), event, kind: Kind::Json, payload });
    }
    until("both, once", || b.heard() == ["users:anna {}", "users:bert {}"]).await;
    assert!(a.heard().is_empty() && other.heard().is_empty(), "{:?}", other.heard());
}

#[tokio::test]
async fn a_letter_reaches_its_node_alone_in_time_or_never_and_its_sender_is_not_missed() {
    let mut redis = Redis::new();
    redis.start();
    let (a, b, c) = (node(&redis, "c"), node(&redis, "c"), node(&redis, "c"));
    for n in [&a, &b, &c] {
        n.connected().await;
    }
    let letter = |text: &'static str| Signal::Poll(Bytes::from_static(text.as_bytes()));
    let say = |text, until| a.adapter.signal(Some(b.instance), &letter(text), until);
    let soon = Instant::now() + BOUND;
    say("late", Some(Instant::now()));
    say("in time", Some(soon));
    a.adapter.signal(None, &Signal::Presence(Bytes::from_static(b"to all")), None);
    let heard = |n: &Node| n.kept.1.lock().clone();
    until("c heard", || heard(&c).len() == 1).await;
    until("b heard", || heard(&b).len() == 2).await;
    assert_eq!(heard(&b)[0], (a.instance, letter("in time")));
    assert_eq!(a.metric("redis_dropped_total{reason=\"stale\"} "), 1);
    // Who says something of presence is missed when it falls silent; who asks is not.
    b.adapter.signal(Some(a.instance), &letter("answer"), Some(soon));
    until("a heard", || heard(&a) == [(b.instance, letter("answer"))]).await;
    assert_eq!((a.metric("redis_nodes "), b.metric("redis_nodes ")), (0, 1));
}

#[tokio::test]
async fn a_topic_wanted_again_at_once_stays_subscribed() {
    let mut redis = Redis::new();
    redis.start();
    let (a, b) = (node(&redis, "c"), node(&redis, "c"));
    a.connected().await;
    b.connected().await;
    let topic: Arc<str> = "room:1".into();
    for i in 0..50 {
        b.adapter.subscribe(&topic).await;
        a.say("room:1", &i.to_string());
        until("heard", || b.heard().len() == i + 1).await;
        b.adapter.unsubscribe(&topic);
    }
}

#[tokio::test]
async fn redis_killed_delays_no_join_and_heals_when_it_is_back() {
    let mut redis = Redis::new();
    redis.start();
    let (a, b) = (node(&redis, "c"), node(&redis, "c"));
    a.connected().await;
    b.connected().await;
    b.adapter.subscribe(&"room:1".into()).await;
    redis.kill();
    until("both connections noticed", || a.lost() == 2 && b.lost() == 2).await;
    assert!(!a.adapter.connected() && !b.adapter.connected());
    let begun = Instant::now();
    b.adapter.subscribe(&"room:2".into()).await;
    assert!(begun.elapsed() < Duration::from_millis(500), "a join waited for a dead Redis");
    redis.start();
    a.connected().await;
    b.connected().await;
    a.say("room:1", "one");
    a.say("room:2", "two");
    until("healed", || b.heard() == ["room:1 one", "room:2 two"]).await;
}

#[tokio::test]
async fn why_redis_is_not_reached_is_told_in_a_word() {
    let mut redis = Redis::new();
    let a = node(&redis, "c");
    let fails = async |word: RedisFailure| {
        until(&format!("{word:?}"), || a.adapter.failure() == Some(word)).await;
    };
    fails(RedisFailure::Refused).await;
    redis.start();
    a.connected().await;
    assert_eq!(a.adapter.failure(), None);
    redis.kill();
    let wrong = [
        ("redis://:wrong@127.0.0.1:{port}", RedisFailure::Authentication),
        ("redis://127.0.0.1:{port}", RedisFailure::Authentication),
        ("rediss://127.0.0.1:{port}", RedisFailure::Tls),
        ("http://127.0.0.1:{port}", RedisFailure::Url),
    ];
    redis.start();
    for (url, word) in wrong {
        redis.url(url);
        redis.kill();
        redis.start();
        fails(word).await;
    }
    a.adapter.leave(BOUND).await;
}

#[tokio::test]
async fn starts_without_redis_and_leaves_without_it() {
    let redis = Redis::new();
    let a = node(&redis, "c");
    a.adapter.subscribe(&"room:1".into()).await;
    a.say("room:1", "x");
    assert!(!a.adapter.connected());
    let begun = Instant::now();
    a.adapter.leave(BOUND).await;
    assert!(begun.elapsed() < BOUND / 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chat_crosses_nodes_and_goes_on_locally_while_redis_is_dead() {
    let mut redis = Redis::new();
    redis.start();
    let dir = Dir::new();
    let url = redis.dir.join("url");
    let more = format!("pubsub: {{adapter: Redis, redis: {{urlFile: '{}'}}}}\n", url.display());
    let a = support::node("a", &dir.config(&more)).await;
    let b = support::node("b", &dir.config(&more)).await;
    let connected = |yes: bool| {
        let (a, b) = (a.admin.clone(), b.admin.clone());
        move || [&a, &b].iter().all(|n| n.status().redis_connected == Some(yes))
    };
    until("connected", connected(true)).await;
    let mut one = Client::join(&a, "room:1").await;
    let mut near = Client::join(&a, "room:1").await;
    let mut far = Client::join(&b, "room:1").await;
    one.send("msg", serde_json::json!({"n": 1})).await;
    assert_eq!(near.event("msg").await["n"], 1);
    assert_eq!(far.event("msg").await["n"], 1);

    redis.kill();
    until("noticed", connected(false)).await;
    one.send("msg", serde_json::json!({"n": 2})).await;
    assert_eq!(near.event("msg").await["n"], 2);
    let mut late = Client::join(&a, "room:2").await;
    late.send("msg", serde_json::json!({"n": 3})).await;
    assert_eq!(late.event("msg").await["n"], 3);

    redis.start();
    until("connected again", connected(true)).await;
    late.send("msg", serde_json::json!({"n": 4})).await;
    assert_eq!(late.event("msg").await["n"], 4);
    // At most once: the second message may be lost to the other node, the next may not.
    let far_hears = async {
        let mut n = 10;
        loop {
            one.send("msg", serde_json::json!({"n": n})).await;
            let heard = tokio::time::timeout(Duration::from_millis(500), far.event("msg")).await;
            if heard.is_ok_and(|m| m["n"].as_i64() >= Some(10)) {
                return;
            }
            n += 1;
        }
    };
    tokio::time::timeout(BOUND, far_hears).await.expect("healed");
    drop((one, near, far, late));
    tokio::join!(end(a), end(b));
}
