//! A stock node and a backend that decides on joins and events and is told of leaves, over real HTTP.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;

use backend::{Backend, counted, start, url};
use plane::{Client, ok};
use serde_json::{Value, json};
use sluice_node::run::Node;
use support::{Dir, end, until};
use tokio_tungstenite::tungstenite::Message;

/// A node whose topics have these rules, and its backend.
async fn with(rules: &str, more: &str) -> (Dir, Backend, Node) {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let live = format!("channels: {rules}\ndrain: {{initialDelaySeconds: 0}}\n");
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    let node = start(&dir, &backend.url, more).await;
    (dir, backend, node)
}

async fn client(node: &Node, params: &str) -> Client {
    Client::connect(&url(node, params)).await.expect("let in")
}

/// Joins, and gives the reply's payload.
async fn join(client: &mut Client, reference: &str, topic: &str, payload: Value) -> Value {
    client.send(json!([reference, reference, topic, "phx_join", payload])).await;
    client.next().await[4].take()
}

/// Sends an event on a channel that was joined as `1`.
async fn push(client: &mut Client, reference: &str, topic: &str, event: &str, payload: Value) {
    client.send(json!(["1", reference, topic, event, payload])).await;
}

const ALL: &str = "[{topic: 'room:*', webhooks: {join: true, events: ['*'], leave: true}}]";

#[tokio::test]
async fn a_join_is_asked_about_and_the_client_has_the_backends_response_or_its_reason() {
    let rules = "[{topic: 'user:*', join: {topics: ['user:{sub}']}, webhooks: {join: true}}, \
                 {topic: 'room:*', announceNode: true, webhooks: {join: true, leave: true}}]";
    let (_dir, backend, node) = with(rules, "  connect: true\n").await;
    let anna = json!({"allow": true, "id": "users:anna", "claims": {"sub": "anna"}});
    backend.answer("connect", 200, anna);
    let mut anna = client(&node, "&name=anna").await;
    let joined = join(&mut anna, "1", "room:1", json!({"from": 7})).await;
    assert_eq!(joined, json!({"status": "ok", "response": {"node": "a"}}), "as the rule says");
    let connect = backend.data("connect").remove(0);
    let asked = backend.data("join").remove(0);
    assert_eq!(asked["socket"]["ref"], connect["socket"]["ref"]);
    assert_eq!(asked["socket"]["id"], "users:anna");
    assert_eq!(asked["socket"]["claims"], json!({"sub": "anna"}));
    assert_eq!((&asked["topic"], &asked["node"]), (&"room:1".into(), &"a".into()));
    assert_eq!(asked["payload"], json!({"from": 7}));
    backend.answer("join", 200, json!({"allow": true, "response": {"last": [1, 2]}}));
    let joined = join(&mut anna, "2", "room:2", json!({})).await;
    assert_eq!(joined, json!({"status": "ok", "response": {"last": [1, 2]}}));
    for (status, answer, reason) in [
        (200, r#"{"allow": false, "reason": "full"}"#, "full"),
        (200, r#"{"allow": false}"#, "unauthorized"),
        (403, "", "unauthorized"),
    ] {
        backend.answer("join", status, answer);
        let refused = join(&mut anna, "3", "room:3", json!({})).await;
        assert_eq!(refused, json!({"status": "error", "response": {"reason": reason}}));
    }
    // A payload that the rule does not take, and whom its own `join` does not let in, are not asked about.
    let before = backend.told("join").len();
    let refused = join(&mut anna, "4", "room:3", json!({"long": "x".repeat(65_536)})).await;
    assert_eq!(refused["response"]["reason"], "payload too large, at most 65536 bytes");
    let refused = join(&mut anna, "4", "user:bert", json!({})).await;
    assert_eq!(refused["response"]["reason"], "unauthorized");
    assert_eq!(backend.told("join").len(), before);
    backend.answer("join", 200, json!({ "allow": true }));
    assert_eq!(join(&mut anna, "5", "user:anna", json!({})).await["status"], "ok");
    assert!(counted(&node, "join", "allowed").await && counted(&node, "join", "denied").await);
    assert!(backend.told("leave").is_empty(), "who was refused has not left");
    end(node).await;
}

#[tokio::test]
async fn an_event_is_broadcast_changed_kept_or_refused_and_answered_as_the_backend_says() {
    let rules = "[{topic: 'room:*', events: [say], webhooks: {events: [say, buy]}}]";
    let (_dir, backend, node) = with(rules, "").await;
    let (mut anna, mut bert) = (client(&node, "").await, client(&node, "").await);
    anna.join("room:1").await;
    bert.join("room:1").await;
    // Allowed, and no more said: what the rule does.
    push(&mut anna, "2", "room:1", "say", json!({"n": 1})).await;
    let said = json!([null, null, "room:1", "say", {"n": 1}]);
    assert_eq!(anna.next().await, said);
    assert_eq!(anna.next().await, ok("1", "2", "room:1"), "P-BC-5: after the broadcast");
    assert_eq!(bert.next().await, said);
    let asked = backend.data("event").remove(0);
    assert_eq!(asked["event"], "say");
    assert_eq!((&asked["topic"], &asked["payload"]), (&"room:1".into(), &json!({"n": 1})));
    // One that the rule does not broadcast is not, and has the backend's answer.
    let bought = json!({"allow": true, "reply": {"response": {"left": 3}}});
    backend.answer("event", 200, bought);
    push(&mut anna, "3", "room:1", "buy", json!({"what": "tea"})).await;
    assert_eq!(anna.next().await[4], json!({"status": "ok", "response": {"left": 3}}));
    bert.is_quiet().await;
    // Changed, under another name, and not to its sender, who is told nothing.
    let changed = json!({"allow": true, "reply": false,
        "broadcast": {"event": "said", "payload": {"by": "anna"}, "includeSender": false}});
    backend.answer("event", 200, changed);
    push(&mut anna, "4", "room:1", "say", json!({"n": 2})).await;
    assert_eq!(bert.next().await, json!([null, null, "room:1", "said", {"by": "anna"}]));
    anna.is_quiet().await;
    // Kept, and an error.
    let kept = json!({"allow": true, "broadcast": false,
        "reply": {"status": "error", "response": {"reason": "later"}}});
    backend.answer("event", 200, kept);
    push(&mut anna, "5", "room:1", "say", json!({})).await;
    assert_eq!(anna.next().await[4], json!({"status": "error", "response": {"reason": "later"}}));
    for (answer, reason) in [
        (json!({"allow": false, "reason": "rude"}), "rude"),
        (json!({"allow": false}), "event not allowed"),
    ] {
        backend.answer("event", 200, answer);
        push(&mut anna, "6", "room:1", "say", json!({})).await;
        assert_eq!(anna.next().await[4]["response"]["reason"], reason);
    }
    // What the backend is not asked about is as without it.
    let before = backend.told("event").len();
    for event in ["sing", "phx_error"] {
        push(&mut anna, "7", "room:1", event, json!({})).await;
        assert_eq!(anna.next().await[4]["response"]["reason"], "event not allowed", "{event}");
    }
    push(&mut anna, "8", "room:1", "say", json!(["no object"])).await;
    assert_eq!(anna.next().await[4]["response"]["reason"], "payload must be an object");
    assert_eq!(backend.told("event").len(), before);
    bert.is_quiet().await;
    end(node).await;
}

#[tokio::test]
async fn p_bin_1_p_bin_4_bytes_travel_to_the_backend_and_from_it_in_base64() {
    let (_dir, backend, node) = with(ALL, "").await;
    let mut anna = client(&node, "").await;
    anna.join("room:1").await;
    let mut frame = vec![0, 1, 1, 6, 3];
    frame.extend_from_slice(b"12room:1say\x00\xff");
    backend.answer("event", 200, json!({"allow": true, "broadcast": {"payloadBase64": "/wA="}}));
    anna.raw(Message::binary(frame)).await;
    let Message::Binary(got) = anna.message().await else { panic!("no bytes") };
    assert_eq!(&got[..], b"\x02\x06\x03room:1say\xff\x00");
    let asked = backend.data("event").remove(0);
    assert_eq!((&asked["payloadBase64"], &asked["payload"]), (&"AP8=".into(), &Value::Null));
    end(node).await;
}

#[tokio::test]
async fn events_of_a_channel_keep_their_order_and_no_other_channel_waits_for_them() {
    let (_dir, backend, node) = with(ALL, "").await;
    let mut anna = client(&node, "").await;
    for topic in ["room:1", "room:2"] {
        anna.send(json!(["1", "1", topic, "phx_join", {}])).await;
        assert_eq!(anna.next().await, ok("1", "1", topic));
    }
    let gate = backend.hold("event");
    for n in 1..=20 {
        push(&mut anna, &format!("r{n}"), "room:1", "say", json!({ "n": n })).await;
    }
    push(&mut anna, "other", "room:2", "say", json!({})).await;
    until("both channels ask", || backend.told("event").len() == 2).await;
    anna.is_quiet().await;
    assert_eq!(backend.told("event").len(), 2, "one question a channel at a time");
    gate.add_permits(100);
    let mut said = Vec::new();
    while said.len() < 21 {
        let message = anna.next().await;
        if message[3] == "say" && message[2] == "room:1" {
            said.push(message[4]["n"].clone());
        } else if message[3] == "phx_reply" && message[2] == "room:2" {
            said.push("other".into());
        }
    }
    said.retain(|n| n != "other");
    assert_eq!(said, (1..=20).map(Value::from).collect::<Vec<_>>());
    end(node).await;
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_for_the_policy() {
    let rules = "[{topic: 'room:*', events: [say], announceNode: true, \
                 webhooks: {join: true, events: ['*'], leave: true}}]";
    for (policy, joined) in [("Deny", false), ("Allow", true)] {
        let (_dir, backend, node) = with(rules, &format!("  onFailure: {policy}\n")).await;
        let mut anna = client(&node, "").await;
        anna.send(json!(["1", "1", "room:1", "phx_join", {}])).await;
        assert_eq!(anna.next().await[4]["status"], "ok");
        backend.say(500, "");
        let reply = join(&mut anna, "2", "room:2", json!({})).await;
        push(&mut anna, "3", "room:1", "say", json!({"n": 1})).await;
        if joined {
            assert_eq!(reply, json!({"status": "ok", "response": {"node": "a"}}));
            assert_eq!(anna.next().await[3], "say", "as if nobody had been asked");
            assert_eq!(anna.next().await, ok("1", "3", "room:1"));
            push(&mut anna, "4", "room:1", "buy", json!({})).await;
            assert_eq!(anna.next().await[4]["response"]["reason"], "event not allowed");
        } else {
            let refused = json!({"status": "error", "response": {"reason": "unavailable"}});
            assert_eq!(reply, refused);
            assert_eq!(anna.next().await[4], refused);
            // The backend may have let it in.
            until("it is told", || {
                backend.data("leave").iter().any(|told| told["reason"] == "aborted")
            })
            .await;
        }
        assert!(counted(&node, "join", "status").await && counted(&node, "event", "status").await);
        backend.say(200, json!({ "allow": true }));
        end(node).await;
    }
}

#[tokio::test]
async fn a_join_and_an_event_wait_for_an_answer_so_long_and_the_client_is_told() {
    let rules = "[{topic: 'room:*', webhooks: {join: true}}, \
                 {topic: 'shop:*', webhooks: {events: [buy]}}]";
    let (_dir, backend, node) = with(rules, "  timeoutMilliseconds: 50\n").await;
    backend.say_nothing("*");
    let mut anna = client(&node, "").await;
    let unavailable = json!({"status": "error", "response": {"reason": "unavailable"}});
    anna.join("shop:1").await;
    assert_eq!(join(&mut anna, "2", "room:1", json!({})).await, unavailable);
    push(&mut anna, "3", "shop:1", "buy", json!({})).await;
    assert_eq!(anna.next().await[4], unavailable);
    assert!(counted(&node, "join", "timeout").await && counted(&node, "event", "timeout").await);
    drop(anna);
    end(node).await;
}

#[tokio::test]
async fn every_end_of_a_channel_is_told_with_its_reason() {
    let (_dir, backend, node) = with(ALL, "").await;
    let mut anna = client(&node, "").await;
    anna.join("room:1").await;
    anna.send(json!(["9", "9", "room:1", "phx_join", {}])).await;
    assert_eq!(anna.next().await[4]["status"], "ok");
    assert_eq!(anna.next().await[3], "phx_close", "P-JOIN-5");
    anna.send(json!(["9", "10", "room:1", "phx_leave", {}])).await;
    assert_eq!(anna.next().await[4]["status"], "ok");
    assert_eq!(anna.next().await[3], "phx_close", "P-LEAVE-1");
    assert_eq!(join(&mut anna, "1", "room:2", json!({})).await["status"], "ok");
    backend.say_nothing("join");
    anna.send(json!(["1", "11", "room:3", "phx_join", {}])).await;
    until("it asks", || backend.told("join").len() == 4).await;
    drop(anna);
    until("all is told", || backend.taken.lock().len() == 7).await;
    let joins = backend.data("join");
    let told = |at: usize| {
        let (topic, number) = (&joins[at]["topic"], &joins[at]["join"]);
        let mut leaves = backend.data("leave").into_iter();
        leaves.find(|leave| leave["topic"] == *topic && leave["join"] == *number).unwrap()
    };
    for (at, reason) in [(0, "replaced"), (1, "left"), (2, "closed"), (3, "aborted")] {
        assert_eq!(told(at)["reason"], reason);
        assert_eq!(told(at)["socket"], joins[at]["socket"]);
    }
    assert!(joins[0]["join"].as_u64() < joins[1]["join"].as_u64());
    end(node).await;
}

#[tokio::test]
async fn a_shutdown_waits_for_no_question_and_tells_of_every_channel() {
    let (_dir, backend, node) = with(ALL, "  timeoutMilliseconds: 8000\n").await;
    let (mut anna, mut bert) = (client(&node, "").await, client(&node, "").await);
    anna.join("room:1").await;
    backend.say_nothing("event");
    backend.say_nothing("join");
    push(&mut anna, "2", "room:1", "say", json!({})).await;
    bert.send(json!(["1", "1", "room:1", "phx_join", {}])).await;
    until("both wait", || backend.told("event").len() == 1 && backend.told("join").len() == 2)
        .await;
    let (codes, ()) = futures::future::join(
        futures::future::join(anna.close_code(), bert.close_code()),
        end(node),
    )
    .await;
    assert_eq!(codes, (Some(1012), Some(1012)));
    let mut reasons: Vec<_> =
        backend.data("leave").iter().map(|told| told["reason"].to_string()).collect();
    reasons.sort();
    assert_eq!(reasons, ["\"aborted\"", "\"closed\""]);
}

#[tokio::test]
async fn a_reload_that_has_the_backend_asked_sends_relayed_channels_to_join_again() {
    let (dir, backend, node) = with("[{topic: 'room:*'}]", "").await;
    let mut anna = client(&node, "").await;
    anna.join("room:1").await;
    push(&mut anna, "2", "room:1", "say", json!({})).await;
    assert_eq!(anna.next().await[3], "say", "relayed");
    assert_eq!(anna.next().await, ok("1", "2", "room:1"));
    let live = format!("channels: {ALL}\ndrain: {{initialDelaySeconds: 0}}\n");
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    let mut reply = json!({});
    for _ in 0..200 {
        push(&mut anna, "3", "room:1", "say", json!({})).await;
        reply = anna.next().await;
        if reply[3] == "phx_reply" {
            break;
        }
        assert_eq!(anna.next().await, ok("1", "3", "room:1"));
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(reply[4]["response"]["reason"], "the rules have changed: join again");
    assert_eq!(anna.next().await[3], "phx_error", "P-ERR-1");
    assert!(backend.calls.lock().is_empty());
    assert_eq!(join(&mut anna, "4", "room:1", json!({})).await["status"], "ok");
    anna.send(json!(["4", "5", "room:1", "say", {}])).await;
    assert_eq!(anna.next().await[3], "say");
    assert_eq!((backend.told("join").len(), backend.told("event").len()), (1, 1));
    assert_eq!(anna.next().await, ok("4", "5", "room:1"));
    end(node).await;
}

#[tokio::test]
async fn p_lp_2_a_long_poll_is_asked_about_as_well() {
    let (_dir, backend, node) = with(ALL, "  connect: true\n").await;
    let url = format!("http://{}/socket/longpoll?vsn=2.0.0", node.addresses.http);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let poll = async |url: &str| http.get(url).send().await.unwrap().json::<Value>().await.unwrap();
    let token = poll(&url).await["token"].as_str().unwrap().to_owned();
    let session = format!("{url}&token={token}");
    backend.answer("join", 200, json!({"allow": true, "response": {"hello": 1}}));
    backend.answer("event", 200, json!({"allow": true, "broadcast": false}));
    let lines = [
        json!(["1", "1", "room:1", "phx_join", {"from": 3}]).to_string(),
        json!(["1", "2", "room:1", "say", {"n": 1}]).to_string(),
    ];
    let post = http.post(&session).header("content-type", "application/x-ndjson");
    post.body(lines.join("\n")).send().await.unwrap();
    let mut said: Vec<Value> = Vec::new();
    while said.len() < 2 {
        let polled = poll(&session).await;
        let texts = polled["messages"].as_array().unwrap().iter();
        said.extend(texts.map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap()));
    }
    assert_eq!(said[0][4]["response"], json!({"hello": 1}));
    assert_eq!(said[1], ok("1", "2", "room:1"));
    let (asked, told) = (backend.data("connect").remove(0), backend.data("event").remove(0));
    assert_eq!(told["socket"]["ref"], asked["socket"]["ref"]);
    assert_eq!(backend.data("join").remove(0)["payload"], json!({"from": 3}));
    end(node).await;
}
