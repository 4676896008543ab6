//! Many sockets that join, leave, push and go away in any order, on several shards at once: nobody
//! is closed by a fault, and nothing is left behind.

mod plane;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt, future::BoxFuture, future::join_all};
use parking_lot::Mutex;
use plane::{Node, PATIENCE};
use serde_json::json;
use sluice_node::{
    hub::Reason,
    pubsub::{Adapter, Broadcast, Kind, Local},
};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

/// Counts subscriptions by topic; every other one takes a moment.
#[derive(Default)]
struct Counting(Mutex<BTreeMap<String, (i64, u64)>>);

impl Adapter for Counting {
    fn send(&self, _: &Broadcast) {}
    fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()> {
        let mut counts = self.0.lock();
        let (open, ever) = counts.entry(topic.to_string()).or_default();
        *open += 1;
        *ever += 1;
        assert_eq!(*open, 1, "a topic is subscribed once");
        let moment = Duration::from_millis(*ever % 2);
        async move { tokio::time::sleep(moment).await }.boxed()
    }
    fn unsubscribe(&self, topic: &Arc<str>) {
        let mut counts = self.0.lock();
        let (open, _) = counts.entry(topic.to_string()).or_default();
        *open -= 1;
        assert_eq!(*open, 0, "a topic is unsubscribed once");
    }
}

/// A number that looks random and is the same in every run.
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// One client's life; gives the replies that it got.
async fn life(node: &Node, seed: u64) -> usize {
    let mut state = seed;
    let mut client = node.client().await;
    let mut expected = 0;
    for reference in 0..150 {
        let topic = format!("room:{}", next(&mut state) % 5);
        let event = ["phx_join", "phx_leave", "hi", "hi", "hi"][next(&mut state) as usize % 5];
        let join_ref = if event == "phx_join" { json!(reference.to_string()) } else { json!(null) };
        client.send(json!([join_ref, reference, topic, event, {"n": reference}])).await;
        expected += 1;
        if next(&mut state).is_multiple_of(97) {
            return 0;
        }
    }
    client.send(json!([null, "end", "phoenix", "heartbeat", {}])).await;
    let mut replies = 0;
    loop {
        let message = timeout(PATIENCE, client.0.next()).await.expect("a message in time");
        match message.expect("open").expect("valid") {
            Message::Text(text) if text.contains(r#""end","phoenix""#) => break,
            Message::Text(text) => replies += usize::from(text.contains("phx_reply")),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(replies, expected, "every message is answered");
    replies
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_leaves_nothing_behind() {
    let node = Node::start().await;
    let counting = Arc::new(Counting::default());
    node.hub.set_adapter(counting.clone());
    let hub = node.hub.clone();
    let remote = tokio::spawn(async move {
        loop {
            let (topic, event) = ("room:1".into(), "remote".into());
            let payload = Bytes::from_static(b"{}");
            hub.deliver(Broadcast { topic, event, kind: Kind::Json, payload });
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    let lives = join_all((0..40).map(|seed| life(&node, seed * 7919 + 1)));
    let replies: usize = timeout(PATIENCE * 3, lives).await.expect("in time").iter().sum();
    remote.abort();
    assert!(replies > 1000, "{replies}");
    node.until("all gone", |hub| hub.counts() == Default::default()).await;
    let counts = counting.0.lock().clone();
    assert!(counts.values().all(|(open, ever)| *open == 0 && *ever > 0), "{counts:?}");
    let faults = node.hub.metrics().closes.get_or_create(&sluice_node::hub::Code { code: 1011 });
    assert_eq!(faults.get(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_that_is_not_taken_at_once_is_heard_whole_and_in_order() {
    const BURST: usize = 1000;
    let node = Node::start().await;
    // So many that the burst is more deliveries than a thread makes at a stretch.
    let mut hearers = Vec::new();
    for _ in 0..400 {
        hearers.push(node.joined("room:hot").await);
    }
    let mut pusher = node.joined("room:hot").await;
    for n in 0..BURST {
        let push = json!(["1", n.to_string(), "room:hot", "n", {"n": n}]);
        pusher.0.feed(Message::text(push.to_string())).await.expect("room");
    }
    pusher.0.feed(Message::Close(None)).await.expect("room");
    pusher.0.flush().await.expect("open");
    for hearer in hearers.iter_mut().step_by(50) {
        for n in 0..BURST {
            assert_eq!(hearer.next().await, json!([null, null, "room:hot", "n", {"n": n}]));
        }
        hearer.is_quiet().await;
    }
    let (mut heard, mut replies) = (0, 0);
    while let Message::Text(text) = pusher.message().await {
        let message: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        match message[3].as_str() {
            Some("n") => heard += 1,
            _ => {
                assert_eq!(message, plane::ok("1", &replies.to_string(), "room:hot"));
                replies += 1;
                assert_eq!(heard, replies, "its own broadcast comes before each reply");
            }
        }
    }
    assert_eq!(replies, BURST, "all that came before the close is answered");
    assert_eq!(node.hub.metrics().dropped.get_or_create(&Reason { reason: "inbox" }).get(), 0);
}
