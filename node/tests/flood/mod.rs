//! Numbered broadcasts of some size, and a client that accounts for each.
#![allow(dead_code, reason = "each test binary uses a part")]

use serde_json::{Value, json};
use sluice_node::{
    hub::Reason,
    pubsub::{Broadcast, Kind},
};
use sluice_node_api::config::{ChannelRule, SlowConsumer};

use crate::plane::{Client, Node};

/// The bytes of one broadcast's payload.
pub const SIZE: usize = 50_000;

pub fn rule(topic: &str, slow_consumer: SlowConsumer) -> ChannelRule {
    let include_sender = false;
    ChannelRule { topic: topic.into(), slow_consumer, include_sender, ..ChannelRule::room() }
}

pub fn dropped(node: &Node, reason: &'static str) -> u64 {
    node.hub.metrics().dropped.get_or_create(&Reason { reason }).get()
}

/// Broadcasts so many; the number of the first is `from`.
pub fn broadcast(node: &Node, topic: &str, from: u64, count: u64) {
    for n in from..from + count {
        let payload = json!({"n": n, "fill": "z".repeat(SIZE)}).to_string().into();
        let (topic, event, kind) = (topic.into(), "n".into(), Kind::Json);
        node.hub.broadcast(Broadcast { topic, event, kind, payload });
    }
}

/// Reads to the broadcast `last`: how many came up to it, and how many are said to be dropped. The replies
/// are kept in `others`.
pub async fn read(client: &mut Client, last: u64, others: &mut Vec<Value>) -> (u64, u64) {
    let (mut came, mut gone, mut next) = (0, 0, 0);
    while next <= last {
        let message = client.next().await;
        match message[3].as_str().expect("an event") {
            "n" => {
                let n = message[4]["n"].as_u64().expect("a number");
                assert_eq!(n, next, "in order, and nothing missing that is not told");
                next += 1;
                came += 1;
            }
            "sluice:dropped" => {
                assert_eq!((&message[0], &message[1]), (&Value::Null, &Value::Null));
                let count = message[4]["count"].as_u64().expect("a number");
                gone += count;
                next += count;
            }
            _ => others.push(message),
        }
    }
    (came, gone)
}
