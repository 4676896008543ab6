//! History: what a client that joins is told of the time before, over real sockets.

mod plane;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, future::join_all};
use parking_lot::Mutex;
use plane::{Client, Node, PATIENCE, ok};
use prometheus_client::{encoding::text::encode, registry::Registry};
use serde_json::{Value, json};
use sluice_node::{
    cluster,
    hub::Reason,
    mesh::Mesh,
    pubsub::{Adapter, Broadcast, Kind, Local},
};
use sluice_node_api::config::{ChannelRule, HistoryRule, LiveConfig, PresenceRule, Socket};
use tokio::{net::TcpListener, time::timeout};

fn rule(topic: &str, history: HistoryRule) -> ChannelRule {
    ChannelRule { topic: topic.into(), history: Some(history), ..ChannelRule::room() }
}

fn sized(size: u32) -> HistoryRule {
    HistoryRule { size, ..HistoryRule::default() }
}

fn broadcast(topic: &str, event: &str, n: u64) -> Broadcast {
    let payload = json!({ "n": n }).to_string().into();
    Broadcast { topic: topic.into(), event: event.into(), kind: Kind::Json, payload }
}

/// Joins; the response.
async fn join(client: &mut Client, topic: &str) -> Value {
    client.send(json!(["1", "1", topic, "phx_join", {}])).await;
    loop {
        let mut reply = client.next().await;
        if reply[3] == "phx_reply" {
            assert_eq!((&reply[1], &reply[4]["status"]), (&json!("1"), &json!("ok")), "{reply}");
            return reply[4]["response"].take();
        }
    }
}

/// What a client that comes now is told of the time before.
async fn history(node: &Node, topic: &str) -> Value {
    join(&mut node.client().await, topic).await["history"].take()
}

fn entry(n: u64) -> Value {
    json!({"event": "n", "payload": {"n": n}})
}

#[tokio::test]
async fn who_joins_gets_the_last_broadcasts_in_order_and_then_what_comes() {
    let announced = ChannelRule { announce_node: true, ..rule("room:*", sized(3)) };
    let node = Node::with(Socket::default(), vec![announced, plain("*")]).await;
    for n in 0..5 {
        // Nobody has joined yet.
        node.hub.broadcast(broadcast("room:1", "n", n));
        node.hub.broadcast(broadcast("plain", "n", n));
    }
    let mut client = node.client().await;
    let response = join(&mut client, "room:1").await;
    assert_eq!(response, json!({"node": "chat-0", "history": [entry(2), entry(3), entry(4)]}));
    node.hub.broadcast(broadcast("room:1", "n", 5));
    assert_eq!(client.next().await, json!([null, null, "room:1", "n", {"n": 5}]));
    // P-BC-5: the broadcast precedes the reply.
    client.send(json!(["1", "2", "room:1", "n", {"n": 6}])).await;
    assert_eq!(client.next().await, json!([null, null, "room:1", "n", {"n": 6}]));
    assert_eq!(client.next().await, ok("1", "2", "room:1"));
    // P-JOIN-5: another join of the same channel.
    let again = join(&mut client, "room:1").await;
    assert_eq!(again["history"], json!([entry(4), entry(5), entry(6)]));
    assert_eq!(client.next().await[3], "phx_close");
    client.is_quiet().await;
    let bytes = Bytes::from_static(&[0, 255, 7]);
    let (topic, event) = ("room:1".into(), "blob".into());
    node.hub.broadcast(Broadcast { topic, event, kind: Kind::Binary, payload: bytes });
    let blob = json!({"event": "blob", "payloadBase64": "AP8H"});
    assert_eq!(history(&node, "room:1").await, json!([entry(5), entry(6), blob]));
    assert_eq!(history(&node, "room:2").await, json!([]));
    assert_eq!(join(&mut node.client().await, "plain").await, json!({}));
    drop(client);
    assert_eq!(history(&node, "room:1").await, json!([entry(5), entry(6), blob]), "all were gone");
}

fn plain(topic: &str) -> ChannelRule {
    ChannelRule { topic: topic.into(), ..ChannelRule::room() }
}

#[tokio::test]
async fn presence_and_disconnects_are_no_history() {
    let present = ChannelRule { presence: Some(PresenceRule::default()), ..rule("*", sized(9)) };
    let node = Node::with(Socket::default(), vec![present]).await;
    let mut client = node.client().await;
    join(&mut client, "room:1").await;
    assert_eq!(client.next().await[3], "presence_diff");
    node.hub.broadcast(broadcast("room:1", "n", 1));
    node.hub.broadcast(broadcast("users:anna", "disconnect", 0));
    assert_eq!(history(&node, "room:1").await, json!([entry(1)]));
    assert_eq!(node.hub.metrics().history_topics.get(), 1);
    assert!(node.hub.metrics().history_bytes.get() > 0);
}

/// The next number of each event.
#[derive(Default)]
struct Sequence(BTreeMap<String, u64>);

impl Sequence {
    fn take(&mut self, event: &Value, payload: &Value) {
        let event = event.as_str().expect("an event").to_owned();
        let n = payload["n"].as_u64().expect("a number");
        let next = self.0.entry(event).or_insert(n);
        assert_eq!(n, *next, "each broadcast once, and none is missing");
        *next += 1;
    }
}

/// Joins while others speak, and listens for a while.
async fn witness(node: &Node, topic: &str, size: usize) {
    let mut client = node.client().await;
    let mut sequence = Sequence::default();
    let response = join(&mut client, topic).await;
    let past = response["history"].as_array().expect("a list");
    assert!(past.len() <= size);
    past.iter().for_each(|one| sequence.take(&one["event"], &one["payload"]));
    for _ in 0..60 {
        let message = client.next().await;
        sequence.take(&message[3], &message[4]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broadcast_is_in_the_history_or_comes_after_it_never_both_never_neither() {
    let node = Arc::new(Node::with(Socket::default(), vec![rule("room:*", sized(20))]).await);
    let stop = Arc::new(AtomicBool::new(false));
    let mut speakers = Vec::new();
    // One from another thread, as the mesh and the publish API are; two are clients, on shards.
    let (hub, done) = (node.hub.clone(), stop.clone());
    speakers.push(tokio::spawn(async move {
        let mut n = 0;
        while !done.load(Ordering::Relaxed) {
            hub.deliver(broadcast("room:1", "hub", n));
            n += 1;
            if n % 8 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }));
    for event in ["anna", "bert"] {
        let (node, done) = (node.clone(), stop.clone());
        speakers.push(tokio::spawn(async move {
            let mut client = node.client().await;
            join(&mut client, "room:1").await;
            let mut n = 0;
            while !done.load(Ordering::Relaxed) {
                client.send(json!(["1", "r", "room:1", event, { "n": n }])).await;
                n += 1;
                while client.next().await[3] != "phx_reply" {}
            }
        }));
    }
    let all = join_all((0..6).map(|_| async {
        for _ in 0..20 {
            witness(&node, "room:1", 20).await;
        }
    }));
    timeout(PATIENCE * 6, all).await.expect("in time");
    stop.store(true, Ordering::Relaxed);
    for speaker in speakers {
        timeout(PATIENCE, speaker).await.expect("in time").expect("no fault");
    }
    let dropped = |reason| node.hub.metrics().dropped.get_or_create(&Reason { reason }).get();
    assert_eq!((dropped("inbox"), dropped("slow")), (0, 0));
}

#[tokio::test]
async fn rules_that_change_begin_and_end_history_under_live_sockets() {
    let node = Node::with(Socket::default(), vec![plain("room:*")]).await;
    let reload = |channels: Vec<ChannelRule>| {
        node.hub.set_live(Arc::new(LiveConfig { channels, ..LiveConfig::default() }));
    };
    let mut early = node.joined("room:1").await;
    let without_sender = ChannelRule { include_sender: false, ..rule("room:*", sized(9)) };
    reload(vec![without_sender]);
    let mut late = node.client().await;
    assert_eq!(join(&mut late, "room:1").await, json!({"history": []}), "it begins with a join");
    early.send(json!(["1", "2", "room:1", "n", {"n": 1}])).await;
    assert_eq!(early.next().await, ok("1", "2", "room:1"));
    assert_eq!(late.next().await, json!([null, null, "room:1", "n", {"n": 1}]));
    early.is_quiet().await;
    assert_eq!(history(&node, "room:1").await, json!([entry(1)]));
    reload(vec![plain("room:*")]);
    assert_eq!(node.hub.metrics().history_topics.get(), 0);
    assert_eq!(node.hub.metrics().history_bytes.get(), 0);
    assert_eq!(join(&mut node.client().await, "room:1").await, json!({}));
    node.hub.broadcast(broadcast("room:1", "n", 2));
    for client in [&mut early, &mut late] {
        assert_eq!(client.next().await[4], json!({"n": 2}));
    }
}

/// The topics that are subscribed.
#[derive(Default)]
struct Subscribed(Mutex<Vec<String>>);

impl Adapter for Subscribed {
    fn send(&self, _: &Broadcast) {}
    fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()> {
        self.0.lock().push(topic.to_string());
        std::future::ready(()).boxed()
    }
    fn unsubscribe(&self, topic: &Arc<str>) {
        self.0.lock().retain(|one| *one != **topic);
    }
}

#[tokio::test]
async fn a_topic_that_is_kept_is_subscribed_without_anybody_on_it() {
    let node = Node::with(Socket::default(), vec![rule("room:*", sized(9)), plain("*")]).await;
    let subscribed = Arc::new(Subscribed::default());
    node.hub.set_adapter(subscribed.clone());
    for topic in ["room:1", "other"] {
        let mut client = node.client().await;
        join(&mut client, topic).await;
        // One of which nothing is kept may be let go as soon as everybody has left it.
        node.hub.broadcast(broadcast(topic, "n", 6));
    }
    node.until("all gone", |hub| hub.counts() == Default::default()).await;
    node.until("only what is kept is left", |_| *subscribed.0.lock() == ["room:1"]).await;
    node.hub.deliver(broadcast("room:1", "n", 7));
    let told = history(&node, "room:1").await;
    assert_eq!(told, json!([entry(6), entry(7)]), "the latter came from another node");
    node.hub.set_live(Arc::new(LiveConfig { channels: vec![plain("*")], ..LiveConfig::default() }));
    node.until("nothing is kept", |_| subscribed.0.lock().is_empty()).await;
}

/// Links two nodes; ends when each knows what the other wants.
async fn link(nodes: [&Node; 2]) -> Vec<Mesh> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind().await.expect("a port"), bind().await.expect("a port")];
    let peers = [1, 0].map(|n: usize| listeners[n].local_addr().expect("bound"));
    let links = nodes.iter().zip(listeners).zip(peers);
    let join = |((node, listener), peer): ((&&Node, TcpListener), SocketAddr)| {
        cluster::join(&node.hub, listener, &[peer], "secret", peer.to_string()).expect("bound")
    };
    let links: Vec<Mesh> = links.map(join).collect();
    let routed = |mesh: &Mesh| {
        let (mut registry, mut text) = (Registry::default(), String::new());
        mesh.register(&mut registry);
        encode(&mut text, &registry).expect("text");
        text.contains("mesh_routed 1")
    };
    nodes[0].until("each knows what the other wants", |_| links.iter().all(routed)).await;
    links
}

#[tokio::test]
async fn over_the_mesh_a_node_keeps_what_is_sent_anywhere_and_gets_nothing_else() {
    let rules = || vec![rule("room:*", sized(9)), plain("*")];
    let nodes = [Node::with(Socket::default(), rules()), Node::with(Socket::default(), rules())];
    let [here, there] = join_all(nodes).await.try_into().unwrap_or_else(|_| panic!("two"));
    let _links = link([&here, &there]).await;
    let remote = |node: &Node| {
        node.hub.metrics().broadcasts.get_or_create(&Reason { reason: "remote" }).get()
    };
    // Nobody has joined any of these.
    for topic in ["other", "room:1"] {
        there.hub.broadcast(broadcast(topic, "n", 1));
    }
    here.until("kept", |hub| hub.metrics().history_topics.get() == 1).await;
    assert_eq!(history(&here, "room:1").await, json!([entry(1)]));
    assert_eq!(remote(&here), 1, "nothing of the other topic");
    let reload = |channels| {
        here.hub.set_live(Arc::new(LiveConfig { channels, ..LiveConfig::default() }));
    };
    reload(vec![plain("*")]);
    reload(rules());
    // Whoever joins from now on finds the rule in force on all nodes.
    join(&mut here.client().await, "room:2").await;
    there.hub.broadcast(broadcast("room:3", "n", 3));
    here.until("kept", |hub| hub.metrics().history_topics.get() == 2).await;
    assert_eq!(history(&here, "room:3").await, json!([entry(3)]));
    reload(vec![plain("*")]);
    let mut client = here.client().await;
    join(&mut client, "other").await;
    for topic in ["room:4", "other"] {
        there.hub.broadcast(broadcast(topic, "n", 4));
    }
    assert_eq!(client.next().await, json!([null, null, "other", "n", {"n": 4}]));
    assert_eq!(remote(&here), 3, "nothing of the topic that is kept no more");
}

#[tokio::test]
async fn a_node_holds_so_many_topics_and_no_more() {
    let node = Node::with(Socket::default(), vec![rule("room:*", sized(9))]).await;
    for n in 0..12_000 {
        node.hub.broadcast(broadcast(&format!("room:{n}"), "n", n));
    }
    let kept = node.hub.metrics().history_topics.get();
    let let_go = node.hub.metrics().dropped.get_or_create(&Reason { reason: "history" }).get();
    assert_eq!((kept + i64::try_from(let_go).expect("few")), 12_000);
    assert!((8_000..=10_240).contains(&kept), "{kept}");
    assert_eq!(history(&node, "room:11999").await, json!([entry(11_999)]));
}
