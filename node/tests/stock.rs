//! The stock node's rules that the relay can't keep, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod plane;

use std::sync::Arc;

use plane::{Client, Node, ok};
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use sluice_node::pubsub::{Broadcast, Kind};
use sluice_node_api::config::{
    ChannelRule, HistoryRule, JoinRule, LiveConfig, PresenceRule, Socket,
};
use tokio_tungstenite::tungstenite::Message;

fn plain(topic: &str) -> ChannelRule {
    ChannelRule { topic: topic.into(), ..ChannelRule::room() }
}

fn present(topic: &str) -> ChannelRule {
    let presence = PresenceRule {
        key_param: Some("user".into()),
        meta_fields: vec!["status".into()],
        ..PresenceRule::default()
    };
    ChannelRule { presence: Some(presence), ..plain(topic) }
}

fn reload(node: &Node, channels: Vec<ChannelRule>) {
    node.hub.set_live(Arc::new(LiveConfig { channels, ..LiveConfig::default() }));
}

async fn user(node: &Node, name: &str) -> Client {
    Client::connect(&format!("{}&user={name}", node.url())).await.expect("let in")
}

/// The payload of the next message, which is `event`.
async fn event(client: &mut Client, event: &str) -> Value {
    let mut message = client.next().await;
    assert_eq!(message[3], event, "{message}");
    message[4].take()
}

/// Joins a topic with presence; the keys that are there.
async fn appear(client: &mut Client, topic: &str, payload: Value) -> Vec<String> {
    client.send(json!(["1", "1", topic, "phx_join", payload])).await;
    assert_eq!(client.next().await, ok("1", "1", topic));
    event(client, "presence_diff").await;
    let state = event(client, "presence_state").await;
    state.as_object().unwrap().keys().cloned().collect()
}

#[tokio::test]
async fn p_pres_1_to_7_a_rule_lists_who_is_there_beside_topics_that_are_relayed() {
    let node = Node::with(Socket::default(), vec![present("room:*"), plain("plain:*")]).await;
    let mut anna = user(&node, "anna").await;
    anna.join("plain:1").await;
    assert_eq!(appear(&mut anna, "room:1", json!({"status": "away", "x": 1})).await, ["anna"]);
    let mut bert = user(&node, "bert").await;
    assert_eq!(appear(&mut bert, "room:1", json!({})).await, ["anna", "bert"]);
    let joins = event(&mut anna, "presence_diff").await["joins"].take();
    assert!(joins["bert"]["metas"][0]["online_at"].is_i64(), "{joins}");
    let mut nobody = node.client().await;
    let keys = appear(&mut nobody, "room:1", json!({"status": "here"})).await;
    assert_eq!(keys.len(), 3, "a key is made up: {keys:?}");
    let joins = event(&mut anna, "presence_diff").await["joins"].take();
    let metas = joins.as_object().unwrap().values().next().unwrap();
    assert_eq!(metas["metas"][0]["status"], "here");
    event(&mut bert, "presence_diff").await;
    bert.send(json!(["1", "2", "room:1", "phx_leave", {}])).await;
    assert_eq!(bert.next().await, ok("1", "2", "room:1"));
    event(&mut bert, "phx_close").await;
    let left = event(&mut anna, "presence_diff").await;
    assert!(left["leaves"]["bert"].is_object() && left["joins"] == json!({}), "{left}");
    // The topic that is relayed still is.
    anna.send(json!(["1", "3", "plain:1", "news", {"n": 1}])).await;
    assert_eq!(anna.next().await, json!([null, null, "plain:1", "news", {"n": 1}]));
    assert_eq!(anna.next().await, ok("1", "3", "plain:1"));
    // P-BC-5 holds for the other too.
    anna.send(json!(["1", "4", "room:1", "news", {"n": 2}])).await;
    assert_eq!(anna.next().await, json!([null, null, "room:1", "news", {"n": 2}]));
    assert_eq!(anna.next().await, ok("1", "4", "room:1"));
}

#[tokio::test]
async fn p_pres_8_a_key_that_every_object_of_a_browser_has_is_replaced() {
    let node = Node::with(Socket::default(), vec![present("room:*")]).await;
    let mut anna = user(&node, "anna").await;
    appear(&mut anna, "room:1", json!({})).await;
    for name in ["__proto__", "constructor", "toString", "hasOwnProperty"] {
        let mut mallory = user(&node, name).await;
        let keys = appear(&mut mallory, "room:1", json!({})).await;
        assert!(keys.len() == 2 && !keys.iter().any(|key| key == name), "{keys:?}");
        let joins = event(&mut anna, "presence_diff").await["joins"].take();
        let joined: Vec<_> = joins.as_object().unwrap().keys().collect();
        assert!(joined.len() == 1 && keys.contains(joined[0]), "{joined:?} of {keys:?}");
        drop(mallory);
        event(&mut anna, "presence_diff").await;
    }
}

#[tokio::test]
async fn a_join_whose_payload_is_too_deep_for_presence_is_refused_and_told_so() {
    let node = Node::with(Socket::default(), vec![present("room:*")]).await;
    let mut anna = user(&node, "anna").await;
    let too_deep = "payload nested too deep, at most 96 levels";
    let deep = "presence meta nested too deep, at most 64 levels";
    for (levels, reason) in [(64, deep), (95, deep), (96, too_deep), (30_000, too_deep)] {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        let text = format!(r#"["1","1","room:1","phx_join",{{"status":{open}{close}}}]"#);
        anna.raw(Message::text(text)).await;
        let refused = anna.next().await;
        assert_eq!(refused[4], json!({"status": "error", "response": {"reason": reason}}));
    }
    // The protocol has no bound for an integer, other than its digits.
    let number = "9".repeat(400);
    anna.raw(Message::text(format!(r#"["1","1","room:1","phx_join",{{"status":{number}}}]"#)))
        .await;
    let reason = "payload can't be read: a number too large";
    assert_eq!(anna.next().await[4]["response"]["reason"], reason);
    let deepest = (0..63).fold(json!("here"), |inner, _| json!([inner]));
    assert_eq!(appear(&mut anna, "room:1", json!({"status": deepest})).await, ["anna"]);
}

#[tokio::test]
async fn a_topic_with_presence_keeps_to_its_rule_and_nobody_makes_others_up() {
    let present = present("room:*");
    let presence = present.presence.clone().map(|rule| PresenceRule { max_meta_bytes: 64, ..rule });
    let rule = ChannelRule {
        events: vec!["*".into()],
        include_sender: false,
        max_payload_bytes: 100,
        max_messages_per_second: Some(4),
        presence,
        ..present
    };
    let node = Node::with(Socket::default(), vec![rule]).await;
    let mut anna = user(&node, "anna").await;
    for (payload, reason) in [
        (json!({"status": "x".repeat(80)}), "presence meta too large, at most 64 bytes"),
        (json!({"unread": "x".repeat(100)}), "payload too large, at most 100 bytes"),
        (json!("x".repeat(100)), "payload too large, at most 100 bytes"),
    ] {
        anna.send(json!(["1", "1", "room:1", "phx_join", payload])).await;
        let refused = anna.next().await;
        assert_eq!(refused[4], json!({"status": "error", "response": {"reason": reason}}));
    }
    appear(&mut anna, "room:1", json!({})).await;
    let mut bert = user(&node, "bert").await;
    appear(&mut bert, "room:1", json!({})).await;
    event(&mut anna, "presence_diff").await;
    let long = "x".repeat(100);
    for (forged, payload, reason) in [
        ("presence_diff", json!({"joins": {}}), "event not allowed"),
        ("presence_state", json!({}), "event not allowed"),
        ("news", json!({ "long": long }), "payload too large, at most 100 bytes"),
    ] {
        bert.send(json!(["1", "2", "room:1", forged, payload])).await;
        assert_eq!(bert.next().await[4]["response"]["reason"], reason);
    }
    bert.send(json!(["1", "3", "room:1", "news", {"n": 1}])).await;
    assert_eq!(bert.next().await, ok("1", "3", "room:1"), "not to the sender");
    bert.send(json!(["1", "4", "room:1", "news", {"n": 2}])).await;
    assert_eq!(bert.next().await[4]["response"]["reason"], "too many messages, at most 4 a second");
    assert_eq!(event(&mut anna, "news").await, json!({"n": 1}));
    anna.is_quiet().await;
}

#[tokio::test]
async fn p_join_5_a_reload_counts_for_the_next_join_whichever_way_it_goes() {
    let node = Node::with(Socket { max_channels: 2, ..Socket::default() }, vec![plain("*")]).await;
    let mut anna = user(&node, "anna").await;
    anna.join("room:1").await;
    reload(&node, vec![present("room:*"), plain("*")]);
    anna.send(json!(["1", "2", "room:1", "news", {"n": 1}])).await;
    assert_eq!(event(&mut anna, "news").await, json!({"n": 1}), "it stays joined");
    assert_eq!(anna.next().await, ok("1", "2", "room:1"));
    anna.send(json!(["9", "9", "room:1", "phx_join", {}])).await;
    assert_eq!(anna.next().await, ok("9", "9", "room:1"), "the reply comes first");
    assert_eq!(anna.next().await, json!(["1", "1", "room:1", "phx_close", {}]));
    event(&mut anna, "presence_diff").await;
    let state = event(&mut anna, "presence_state").await;
    assert_eq!(state.as_object().unwrap().len(), 1, "{state}");
    // P-CON-11 counts what is relayed and what is not.
    anna.join("plain:1").await;
    for topic in ["plain:2", "room:2"] {
        anna.send(json!(["1", "1", topic, "phx_join", {}])).await;
        let reason = anna.next().await[4]["response"]["reason"].take();
        assert_eq!(reason, "too many channels joined");
    }
    reload(&node, vec![plain("*")]);
    anna.send(json!(["10", "10", "room:1", "phx_join", {}])).await;
    // Its presence ends with the channel before.
    let mut seen = Vec::new();
    for _ in 0..2 {
        seen.push(anna.next().await);
    }
    assert!(seen.contains(&ok("10", "10", "room:1")), "{seen:?}");
    anna.is_quiet().await;
    anna.send(json!(["10", "11", "room:1", "news", {"n": 2}])).await;
    assert_eq!(event(&mut anna, "news").await, json!({"n": 2}));
    assert_eq!(anna.next().await, ok("10", "11", "room:1"));
    node.until("two channels", |hub| hub.counts().channels == 2).await;
    drop(anna);
    node.until("none", |hub| hub.counts().channels == 0).await;
}

#[tokio::test]
async fn p_join_5_a_join_that_is_refused_ends_the_channel_before_it_relayed_or_not() {
    let history =
        |topic: &str| ChannelRule { history: Some(HistoryRule::default()), ..plain(topic) };
    let guarded = |rule: ChannelRule| {
        let join = JoinRule { claim: Some("rooms".into()), topics: Vec::new() };
        ChannelRule { join: Some(join), ..rule }
    };
    let rules = || vec![plain("plain:*"), history("kept:*")];
    let node = Node::with(Socket::default(), rules()).await;
    for topic in ["plain:1", "kept:1"] {
        for (later, reason, join_ref) in [
            (rules().into_iter().map(guarded).collect::<Vec<_>>(), "unauthorized", json!("2")),
            (vec![plain("other")], "unmatched topic", Value::Null),
        ] {
            reload(&node, rules());
            let mut anna = node.client().await;
            anna.send(json!(["1", "1", topic, "phx_join", {}])).await;
            assert_eq!(anna.next().await[4]["status"], "ok");
            let mut bert = node.client().await;
            bert.send(json!(["1", "1", topic, "phx_join", {}])).await;
            assert_eq!(bert.next().await[4]["status"], "ok");
            reload(&node, later);
            anna.send(json!(["2", "2", topic, "phx_join", {}])).await;
            let refused = anna.next().await;
            assert_eq!((&refused[0], &refused[1]), (&join_ref, &json!("2")), "{refused}");
            assert_eq!(refused[4]["response"], json!({ "reason": reason }));
            assert_eq!(anna.next().await, json!(["1", "1", topic, "phx_close", {}]));
            // It neither speaks there nor hears.
            anna.send(json!([null, "3", topic, "news", {"n": 1}])).await;
            assert_eq!(anna.next().await[4]["response"]["reason"], "unmatched topic");
            node.hub.broadcast(news(topic));
            assert_eq!(event(&mut bert, "news").await, json!({"n": 2}));
            anna.is_quiet().await;
            drop((anna, bert));
            node.until("none", |hub| hub.counts().channels == 0).await;
        }
    }
}

fn news(topic: &str) -> Broadcast {
    let payload = json!({"n": 2}).to_string().into();
    Broadcast { topic: topic.into(), event: "news".into(), kind: Kind::Json, payload }
}

/// Polls a session once.
async fn poll(url: &str) -> Value {
    let polled = reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await;
    polled.unwrap().json().await.unwrap()
}

#[tokio::test]
async fn p_lp_2_to_5_a_stock_node_serves_long_polls_by_the_same_rules_unless_told_not_to() {
    let node = Node::with(Socket::default(), vec![present("room:*"), plain("plain:*")]).await;
    let mut anna = user(&node, "anna").await;
    anna.join("plain:1").await;
    let url = format!("http://{}/socket/longpoll?vsn=2.0.0&user=bert", node.address);
    let token = poll(&url).await["token"].as_str().unwrap().to_owned();
    let session = format!("{url}&token={token}");
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let lines = [
        json!(["1", "1", "plain:1", "phx_join", {}]).to_string(),
        json!(["1", "2", "nowhere", "phx_join", {}]).to_string(),
        json!(["2", "3", "room:1", "phx_join", {}]).to_string(),
        json!(["1", "4", "plain:1", "news", {"n": 1}]).to_string(),
    ];
    let posted = http.post(&session).header(CONTENT_TYPE, "application/x-ndjson");
    let posted: Value = posted.body(lines.join("\n")).send().await.unwrap().json().await.unwrap();
    assert_eq!(posted["status"], 200);
    assert_eq!(event(&mut anna, "news").await, json!({"n": 1}));
    let mut said: Vec<Value> = Vec::new();
    while said.len() < 7 {
        let polled = poll(&session).await;
        let texts = polled["messages"].as_array().unwrap().iter();
        said.extend(texts.map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap()));
    }
    assert_eq!(said[0], ok("1", "1", "plain:1"));
    assert_eq!(said[1][4]["response"]["reason"], "unmatched topic");
    assert_eq!(said[2], ok("2", "3", "room:1"));
    let state = said.iter().find(|message| message[3] == "presence_state").unwrap();
    assert!(state[4]["bert"].is_object(), "{state}");
    assert!(said.contains(&ok("1", "4", "plain:1")));
    let off = Node::with(Socket { longpoll: false, ..Socket::default() }, vec![plain("*")]).await;
    let url = format!("http://{}/socket/longpoll?vsn=2.0.0", off.address);
    assert_eq!(http.get(url).send().await.unwrap().status(), 404);
}
