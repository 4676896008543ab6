//! Long-polling over HTTP, on one node and on a cluster of two, by the conformance app.

mod conformance;
mod plane;

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use conformance::{joined, node, pair, push};
use futures::future::select_all;
use plane::{
    PATIENCE, ok,
    session::{Session, answer},
};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sluice_node_api::admin::{DrainMode, DrainRequest};
use tokio::time::timeout;

#[tokio::test]
async fn p_lp_2_to_5_a_session_joins_pushes_and_hears() {
    let node = node().await;
    let session = Session::open(node.address, "/socket").await;
    let slow = json!(["1", "1", "quiet:a", "phx_join", {"do": "slow", "ms": 30}]).to_string();
    let echo = json!(["1", "2", "quiet:a", "new_msg", {"x": 1}]).to_string();
    let bytes = STANDARD.encode(push("1", "3", "quiet:a", "ack", &[1, 2]));
    assert_eq!(session.post(&[slow, echo, bytes]).await, 200);
    let mut said = session.messages(4).await;
    assert_eq!(said.remove(0), ok("1", "1", "quiet:a"), "oldest first");
    let news = json!(["1", null, "quiet:a", "new_msg", {"x": 1, "transport": "longpoll"}]);
    for want in [ok("1", "2", "quiet:a"), ok("1", "3", "quiet:a"), news] {
        assert!(said.contains(&want), "{want}");
    }
    let mut socket = joined(&node, "quiet:a").await;
    socket.send(json!(["1", "4", "quiet:a", "broadcast_from", {"y": 1}])).await;
    let shout = json!([null, null, "quiet:a", "shout", {"y": 1}]);
    assert_eq!(session.messages(1).await, [shout]);
    let late = json!(["1", "5", "quiet:a", "phx_join", {"do": "slow", "ms": 60_000}]).to_string();
    let quick = Session::open(node.address, "/quick").await;
    assert_eq!(quick.post(&[late]).await, 408, "P-LP-4");
}

#[tokio::test]
async fn p_lp_3_p_lp_10_a_poll_ends_with_its_window_and_a_newer_one_displaces_it() {
    let node = node().await;
    let session = Session::open(node.address, "/quick").await;
    assert_eq!(session.poll().await, (204, vec![]));
    let long = Session::open(node.address, "/socket").await;
    long.join("quiet:a").await;
    // Whichever arrives first is the older.
    let polls = [Box::pin(long.poll()), Box::pin(long.poll())];
    let (older, _, newer) = select_all(polls).await;
    assert_eq!(older, (204, vec![]));
    assert_eq!(long.post(&[json!(["1", "2", "quiet:a", "ack", {}]).to_string()]).await, 200);
    let [newer] = newer.try_into().ok().expect("one that still waits");
    assert_eq!(newer.await, (200, vec![ok("1", "2", "quiet:a")]));
}

#[tokio::test]
async fn p_lp_1_p_lp_2_refusals_are_in_the_body_and_methods_are_bounded() {
    let node = node().await;
    let http = Client::new();
    let url = format!("http://{}/socket/longpoll/", node.address);
    for query in ["?vsn=9.0.0", "?reject=true", "?ratelimit=true"] {
        assert_eq!(answer(http.get(format!("{url}{query}"))).await, json!({"status": 403}));
    }
    let foreign = http.get(&url).header("origin", "https://bad.example");
    assert_eq!(answer(foreign).await, json!({"status": 403}));
    let put = http.put(&url).send().await.expect("an answer");
    assert_eq!(put.status(), 400);
    let options = http.request(Method::OPTIONS, &url);
    let options = options.header("access-control-request-headers", "x-one, x-two");
    let options = options.send().await.expect("an answer");
    assert_eq!(options.status(), 200);
    assert_eq!(options.headers()["access-control-allow-headers"], "x-one, x-two");
    assert_eq!(options.headers()["access-control-allow-methods"], "get, post, options");
    assert_eq!(options.headers()["access-control-max-age"], "3600");
    let unknown = http.post(format!("{url}?token=x")).body("[]");
    assert_eq!(answer(unknown).await, json!({"status": 410}));
    let session = Session::open(node.address, "/socket").await;
    let malformed = http.post(format!("{url}?token={}", session.token)).body("%%%");
    let malformed = malformed.header("content-type", "application/x-ndjson");
    assert_eq!(malformed.send().await.expect("an answer").status(), 500);
    let strict = format!("http://{}/strict/longpoll", node.address);
    assert_eq!(http.get(strict).send().await.expect("an answer").status(), 404);
}

#[tokio::test]
async fn p_lp_9_a_session_that_is_not_polled_ends_with_its_channels() {
    let node = node().await;
    let mut watcher = joined(&node, "presence:a").await;
    watcher.next().await;
    let session = Session::open(node.address, "/quick").await;
    let join = json!(["1", "1", "presence:a", "phx_join", {"key": "k"}]).to_string();
    assert_eq!(session.post(&[join]).await, 200);
    assert!(watcher.next().await[4]["joins"]["k"].is_object());
    assert!(watcher.next().await[4]["leaves"]["k"].is_object());
    assert_eq!(session.post(&["[]".to_owned()]).await, 410);
    assert_eq!(session.poll().await.0, 410, "another session");
}

#[tokio::test]
async fn p_lp_7_any_node_serves_a_session_and_p_lp_8_notices_that_it_is_gone() {
    let [(one, mesh), (two, _two)] = pair().await;
    let here = Session::open(one.address, "/socket").await;
    let there = here.at(two.address, "/socket");
    there.join("quiet:a").await;
    let echo = json!(["1", "2", "quiet:a", "ack", {}]).to_string();
    assert_eq!(here.post(std::slice::from_ref(&echo)).await, 200);
    assert_eq!(there.messages(1).await, [ok("1", "2", "quiet:a")]);
    mesh.leave(Duration::ZERO).await;
    assert_eq!(there.post(&[echo]).await, 410);
    assert_eq!(there.poll().await, (410, vec![]));
}

#[tokio::test]
async fn p_drain_6_g_6_a_drain_releases_a_waiting_poll_at_once() {
    let node = node().await;
    let session = Session::open(node.address, "/socket").await;
    session.join("quiet:a").await;
    let drain = DrainRequest {
        mode: DrainMode::Immediate,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 1,
        batch_interval_seconds: 0.1,
        ttl_seconds: 60.0,
    };
    let request = session.http.get(format!("{}&token={}", session.url, session.token));
    let ended = async {
        node.hub.start_drain(drain);
        node.until("the session is gone", |hub| hub.counts().connections == 0).await;
    };
    // The poll would wait for ten seconds.
    let (polled, ()) = tokio::join!(timeout(PATIENCE * 3 / 4, answer(request)), ended);
    let polled = polled.expect("released");
    assert_ne!(polled["status"], 200, "no message");
    // Whoever asks again shall be led elsewhere.
    let again = session.http.get(&session.url).send().await.expect("an answer");
    assert_eq!(again.headers()["connection"], "close");
}

#[tokio::test]
async fn p_lp_12_bytes_that_are_text_travel_and_others_are_dropped() {
    let node = node().await;
    let session = Session::open(node.address, "/socket").await;
    session.join("quiet:a").await;
    let echo = |reference, payload: &[u8]| {
        STANDARD.encode(push("1", reference, "quiet:a", "echo", payload))
    };
    // Of the three replies the second is no UTF-8: the session goes on without it.
    let lines = [echo("2", b"plain"), echo("3", &[0xff, 0xfe]), echo("4", b"after")];
    assert_eq!(session.post(&lines).await, 200);
    let mut texts = Vec::new();
    while texts.len() < 2 {
        let polled = session.http.get(format!("{}&token={}", session.url, session.token));
        let messages = answer(polled).await["messages"].take();
        let more = messages.as_array().expect("a list").clone();
        texts.extend(more.iter().map(|text| text.as_str().expect("text").to_owned()));
    }
    let ends: Vec<_> = texts.iter().map(|text| text.contains("plain")).collect();
    assert_eq!((ends, texts[1].ends_with("after")), (vec![true, false], true));
    assert_eq!(session.post(&[json!(["1", "5", "quiet:a", "ack", {}]).to_string()]).await, 200);
    assert_eq!(session.messages(1).await, [ok("1", "5", "quiet:a")]);
}

#[tokio::test]
async fn p_lp_13_an_auth_token_comes_raw_in_a_header() {
    let node = node().await;
    for (path, want) in [("/auth", json!("a.b%c=")), ("/socket", Value::Null)] {
        let url = format!("http://{}{path}/longpoll?vsn=2.0.0", node.address);
        let http = Client::new();
        let opened = answer(http.get(&url).header("X-Phoenix-AuthToken", "a.b%c=")).await;
        let token = opened["token"].as_str().expect("a token").to_owned();
        let session = Session { http, url, token };
        session.join("quiet:a").await;
        let info = json!(["1", "2", "quiet:a", "info", {}]).to_string();
        assert_eq!(session.post(&[info]).await, 200);
        let said = session.messages(1).await;
        assert_eq!(said[0][4]["response"]["auth_token"], want, "{path}");
    }
}

#[tokio::test]
async fn what_is_posted_and_can_not_be_taken_yet_is_bounded() {
    let node = node().await;
    let session = Session::open(node.address, "/socket").await;
    let slow = [json!(["1", "1", "quiet:a", "phx_join", {"do": "slow", "ms": 2000}]).to_string()];
    let heartbeat = [json!([null, "2", "phoenix", "heartbeat", {}]).to_string()];
    // Far more than there is room for behind the join, should some overtake it.
    let posts = std::iter::once(&slow).chain(std::iter::repeat_n(&heartbeat, 200));
    let posts = futures::future::join_all(posts.map(|lines| session.post(lines))).await;
    assert!(posts.iter().all(|status| *status == 200 || *status == 410), "{posts:?}");
    assert_eq!(posts[0], 200, "what found room is taken");
    assert!(posts.iter().any(|status| *status == 410), "there was room for all");
    let mut text = String::new();
    let mut registry = prometheus_client::registry::Registry::default();
    node.hub.register(&mut registry);
    prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
    assert!(text.contains("dropped_total{reason=\"longpoll\"}"), "it is counted");
}
