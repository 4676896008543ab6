//! Broadcasts and joins at the same time, as the inboxes of the shards have them.

use std::{sync::Barrier, thread};

use bytes::Bytes;
use serde_json::{Value, json};
use sluice_node_api::config::{ChannelRule, LiveConfig, Socket};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    keys::Keys,
    pubsub::{Broadcast, Kind},
    shard::inbox::{Address, Said, Task},
};

/// Broadcasts of each speaker; all together are fewer than the history has.
const WORDS: usize = 150;

/// A node of two shards that do nothing.
fn plane() -> Plane {
    let history = HistoryRule { size: 1000, max_bytes: 1 << 20, ..HistoryRule::default() };
    let rule = ChannelRule { history: Some(history), ..ChannelRule::room() };
    let live = LiveConfig { channels: vec![rule], ..LiveConfig::default() };
    let (idle, stop) = (Duration::from_secs(60), CancellationToken::new());
    Plane::new("a".into(), &Socket::default(), &live, idle, Keys::new(Bytes::new()), 2, stop)
}

fn say(plane: &Plane, topic: &Arc<str>, n: usize) {
    let payload = json!({ "n": n }).to_string().into();
    let (topic, event) = (topic.clone(), "e".into());
    let broadcast = Broadcast { topic, event, kind: Kind::Json, payload };
    assert!(!plane.fan_out(&Arc::new(Fanout::new(broadcast)), None));
}

/// A join on a shard, as far as the inbox.
fn join(plane: &Plane, topic: &Arc<str>, shard: u16) {
    plane.interest.acquire(topic.clone(), shard);
    accept(plane, topic, Payload::empty(), |response| {
        let address = Address { shard, slot: 0, id: 0, key: 0 };
        assert!(
            plane.shards[usize::from(shard)]
                .inbox
                .push(Task::Said(address, Said::Joined(response)))
        );
    });
}

fn number(payload: &Value) -> u64 {
    payload["n"].as_u64().expect("a number")
}

fn parse(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).expect("JSON")
}

/// What the sockets hear that join on a shard: the history, then what comes after it. And all that
/// the shard was handed.
fn heard(plane: &Plane, shard: usize) -> (Vec<Vec<u64>>, Vec<u64>) {
    let mut tasks = Vec::new();
    plane.shards[shard].inbox.take(&mut tasks);
    let (mut joined, mut all): (Vec<Vec<u64>>, _) = (Vec::new(), Vec::new());
    for task in tasks {
        match task {
            Task::Fanout(fanout) => {
                let n = number(&parse(&fanout.broadcast().payload));
                joined.iter_mut().for_each(|heard| heard.push(n));
                all.push(n);
            }
            Task::Said(_, Said::Joined(response)) => {
                let response = parse(response.bytes());
                let past = response["history"].as_array().expect("a list");
                joined.push(past.iter().map(|one| number(&one["payload"])).collect());
            }
            _ => panic!("nothing else was handed over"),
        }
    }
    (joined, all)
}

#[test]
fn whoever_joins_while_others_speak_hears_all_in_order_and_once() {
    let plane = plane();
    for round in 0..300 {
        let topic: Arc<str> = format!("room:{round}").into();
        // It begins here; this one hears everything live.
        join(&plane, &topic, 0);
        let start = Barrier::new(4);
        thread::scope(|scope| {
            for speaker in 0..2 {
                let (plane, topic, start) = (&plane, &topic, &start);
                scope.spawn(move || {
                    start.wait();
                    (0..WORDS).for_each(|n| say(plane, topic, speaker * WORDS + n));
                });
            }
            for shard in 0..2 {
                let (plane, topic, start) = (&plane, &topic, &start);
                scope.spawn(move || {
                    start.wait();
                    // Not all at the same moment.
                    (0..round % 50).for_each(|_| thread::yield_now());
                    (0..3).for_each(|_| join(plane, topic, shard));
                });
            }
        });
        let (joined, all) = heard(&plane, 0);
        assert_eq!(all.len(), 2 * WORDS);
        let (others, _) = heard(&plane, 1);
        assert_eq!((joined.len(), others.len()), (4, 3));
        for heard in joined.into_iter().chain(others) {
            assert_eq!(heard, all, "round {round}");
        }
    }
    assert_eq!(plane.metrics.history_topics.get(), 300);
}

#[test]
fn the_list_joins_what_else_the_response_says() {
    let with = |text: &'static str| {
        let payload = with_history(Payload::json_text(text.into()), "[1]");
        String::from_utf8(payload.bytes().to_vec()).expect("text")
    };
    assert_eq!(with("{}"), r#"{"history":[1]}"#);
    assert_eq!(with(r#" {"node":"a"} "#), r#"{"node":"a","history":[1]}"#);
    assert_eq!(with("[]"), "[]", "no object");
    assert!(with_history(Payload::binary(vec![b'{', b'}']), "[1]").is_binary());
}
