//! Joins that a backend is being asked about, over real HTTP, when the client does not wait for the
//! answer. The backend says nothing, so whatever comes here comes without it; that the time for an
//! answer did not run out instead is told by the count of outcomes.
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

const RULES: &str = "[{topic: 'room:*', webhooks: {join: true, events: [say], leave: true}}, \
                     {topic: 'quiet:*', webhooks: {join: true}}, {topic: 'plain:*'}]";

/// A node that asks one question at a time, and a backend that does not answer joins.
async fn silent() -> (Dir, Backend, Node) {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let live = format!("channels: {RULES}\ndrain: {{initialDelaySeconds: 0}}\n");
    std::fs::write(dir.0.join("live.yaml"), live).unwrap();
    backend.say_nothing("join");
    let more = "  timeoutMilliseconds: 8000\n  maxConcurrent: 1\n";
    let node = start(&dir, &backend.url, more).await;
    (dir, backend, node)
}

async fn client(node: &Node) -> Client {
    Client::connect(&url(node, "")).await.expect("let in")
}

/// Asks to join, until the backend has heard of it as the `nth`.
async fn ask(client: &mut Client, reference: &str, topic: &str, backend: &Backend, nth: usize) {
    client.send(json!([reference, reference, topic, "phx_join", {}])).await;
    until("the backend is asked", || backend.told("join").len() == nth).await;
}

fn aborted(reference: &str, topic: &str) -> Value {
    let payload = json!({"status": "error", "response": {"reason": "aborted"}});
    json!([reference, reference, topic, "phx_reply", payload])
}

/// The backend is told so of every join that it was asked about.
async fn told_of_each(node: &Node, backend: &Backend, number: usize) {
    let of = |kind: &str| -> Vec<Value> {
        let mut joins: Vec<_> = backend.data(kind).iter().map(|one| one["join"].clone()).collect();
        joins.sort_by_key(Value::as_u64);
        joins
    };
    until("it is told", || backend.data("leave").len() == number).await;
    assert!(backend.data("leave").iter().all(|leave| leave["reason"] == "aborted"));
    assert_eq!(of("leave")[..number], of("join")[..number]);
    assert!(counted(node, "join", "aborted").await);
    assert!(!counted(node, "join", "timeout").await, "nobody waited");
}

#[tokio::test]
async fn p_err_5_a_client_that_is_gone_makes_room_for_the_next_at_once() {
    let (_dir, backend, node) = silent().await;
    // More than the failures in a row after which a backend is left alone: none of these is one. Nor is
    // it told of their end, an answer to which would count for it.
    for n in 1..=7 {
        let mut gone = client(&node).await;
        ask(&mut gone, "1", &format!("quiet:{n}"), &backend, n).await;
        match n % 2 {
            0 => drop(gone),
            _ => {
                gone.raw(Message::Close(None)).await;
                assert_eq!(gone.close_code().await, None, "the close is answered at once");
            }
        }
    }
    backend.answer("join", 200, json!({ "allow": true }));
    client(&node).await.join("quiet:1").await;
    assert!(counted(&node, "join", "aborted").await);
    end(node).await;
}

#[tokio::test]
async fn p_leave_2_a_client_that_leaves_before_the_answer_is_told_so_at_once() {
    let (_dir, backend, node) = silent().await;
    let mut anna = client(&node).await;
    ask(&mut anna, "1", "room:1", &backend, 1).await;
    // Neither is for this join.
    anna.send(json!(["0", "2", "room:1", "phx_leave", {}])).await;
    anna.send(json!(["3", "3", "room:2", "phx_leave", {}])).await;
    anna.send(json!(["1", "4", "room:1", "phx_leave", {}])).await;
    assert_eq!(anna.next().await, aborted("1", "room:1"));
    for (join_ref, reference, topic) in
        [("0", "2", "room:1"), ("3", "3", "room:2"), ("1", "4", "room:1")]
    {
        assert_eq!(anna.next().await, ok(join_ref, reference, topic), "nothing is joined");
    }
    backend.answer("join", 200, json!({ "allow": true }));
    anna.join("room:1").await;
    told_of_each(&node, &backend, 1).await;
    drop(anna);
    end(node).await;
}

#[tokio::test]
async fn p_join_5_a_join_that_is_asked_for_anew_does_not_wait_for_the_first() {
    let (_dir, backend, node) = silent().await;
    let mut anna = client(&node).await;
    ask(&mut anna, "1", "room:1", &backend, 1).await;
    // A join of another topic waits for this one.
    anna.send(json!(["9", "9", "plain:1", "phx_join", {}])).await;
    // Nor does one that is taken back before its turn hold up what follows.
    anna.send(json!(["5", "5", "room:2", "phx_join", {}])).await;
    anna.send(json!(["5", "6", "room:2", "phx_leave", {}])).await;
    anna.send(json!(["2", "2", "room:1", "phx_join", {}])).await;
    assert_eq!(anna.next().await, aborted("1", "room:1"));
    assert_eq!(anna.next().await, ok("9", "9", "plain:1"));
    assert_eq!(anna.next().await, aborted("5", "room:2"));
    assert_eq!(anna.next().await, ok("5", "6", "room:2"));
    until("the backend is asked again", || backend.told("join").len() == 2).await;
    backend.answer("join", 200, json!({ "allow": true }));
    anna.send(json!(["3", "3", "room:1", "phx_join", {}])).await;
    assert_eq!(anna.next().await, aborted("2", "room:1"));
    assert_eq!(anna.next().await, ok("3", "3", "room:1"));
    assert_eq!(backend.data("join")[1]["topic"], "room:1", "of room:2 there was nothing to ask");
    told_of_each(&node, &backend, 2).await;
    drop(anna);
    end(node).await;
}

#[tokio::test]
async fn what_a_client_has_said_before_it_closed_is_heard() {
    let (_dir, backend, node) = silent().await;
    let (mut anna, mut bert) = (client(&node).await, client(&node).await);
    anna.join("plain:1").await;
    bert.join("plain:1").await;
    ask(&mut anna, "2", "room:1", &backend, 1).await;
    anna.send(json!(["1", "3", "plain:1", "say", {"n": 1}])).await;
    anna.raw(Message::Close(None)).await;
    assert_eq!(bert.next().await, json!([null, null, "plain:1", "say", {"n": 1}]));
    assert_eq!(anna.next().await, aborted("2", "room:1"));
    assert_eq!(anna.next().await[3], "say");
    assert_eq!(anna.next().await, ok("1", "3", "plain:1"));
    assert_eq!(anna.close_code().await, None);
    told_of_each(&node, &backend, 1).await;
    drop((anna, bert));
    end(node).await;
}

#[tokio::test]
async fn p_lp_4_a_long_poll_takes_its_join_back_too() {
    let (_dir, backend, node) = silent().await;
    let url = format!("http://{}/socket/longpoll?vsn=2.0.0", node.addresses.http);
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let poll = async |url: &str| http.get(url).send().await.unwrap().json::<Value>().await.unwrap();
    let token = poll(&url).await["token"].as_str().unwrap().to_owned();
    let session = format!("{url}&token={token}");
    let post = async |messages: &[Value]| {
        let lines: Vec<_> = messages.iter().map(Value::to_string).collect();
        let post = http.post(&session).header("content-type", "application/x-ndjson");
        let answer = post.body(lines.join("\n")).send().await.unwrap();
        assert_eq!(answer.json::<Value>().await.unwrap()["status"], 200, "all is taken in time");
    };
    let join = |reference: &str| json!([reference, reference, "room:1", "phx_join", {}]);
    let leave = json!([null, "2", "room:1", "phx_leave", {}]);
    let later = async {
        until("the backend is asked", || backend.told("join").len() == 1).await;
        post(std::slice::from_ref(&leave)).await;
    };
    futures::future::join(post(&[join("1")]), later).await;
    // Both in one request.
    post(&[join("3"), leave.clone()]).await;
    let mut said: Vec<Value> = Vec::new();
    while said.len() < 4 {
        let polled = poll(&session).await;
        let texts = polled["messages"].as_array().unwrap().iter();
        said.extend(texts.map(|text| serde_json::from_str(text.as_str().unwrap()).unwrap()));
    }
    let left = json!([null, "2", "room:1", "phx_reply", {"status": "ok", "response": {}}]);
    let expected = [aborted("1", "room:1"), left.clone(), aborted("3", "room:1"), left];
    assert_eq!(said, expected);
    told_of_each(&node, &backend, 1).await;
    end(node).await;
}

#[tokio::test]
async fn what_is_held_while_a_join_settles_is_bounded_and_none_of_it_is_lost() {
    let (_dir, backend, node) = silent().await;
    let (mut anna, mut bert) = (client(&node).await, client(&node).await);
    anna.join("plain:1").await;
    bert.join("plain:1").await;
    let gate = backend.hold("join");
    backend.answer("join", 200, json!({ "allow": true }));
    ask(&mut anna, "2", "room:1", &backend, 1).await;
    let much = "x".repeat(40_000);
    for n in 0..8 {
        anna.send(json!(["1", n.to_string(), "plain:1", "say", {"n": n, "much": much}])).await;
    }
    gate.add_permits(1);
    for n in 0..8 {
        assert_eq!(bert.next().await[4]["n"], n);
    }
    assert_eq!(anna.next().await, ok("2", "2", "room:1"), "P-JOIN-2");
    assert!(counted(&node, "join", "allowed").await);
    drop((anna, bert));
    end(node).await;
}
