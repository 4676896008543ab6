//! A stock node and a backend that decides who connects and is told who has gone, over real HTTP.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;
mod tokens;

use std::time::Duration;

use axum::http::HeaderMap;
use backend::{Backend, counted, secret, start, url};
use base64::{Engine, engine::general_purpose::STANDARD};
use plane::{Client, refusal};
use ring::hmac;
use serde_json::{Value, json};
use sluice_node::run::Node;
use support::{Dir, end, publish, until};
use tokens::{Signer, claims};

/// The signatures that these secrets make of a call.
fn signature(byte: u8, headers: &HeaderMap, body: &[u8]) -> String {
    let text = |name: &str| headers[name].to_str().unwrap().to_owned();
    let key = hmac::Key::new(hmac::HMAC_SHA256, &[byte; 32]);
    let mut signed = format!("{}.{}.", text("webhook-id"), text("webhook-timestamp")).into_bytes();
    signed.extend_from_slice(body);
    format!("v1,{}", STANDARD.encode(hmac::sign(&key, &signed)))
}

async fn status(node: &Node) -> u16 {
    match Client::connect(&url(node, "")).await {
        Ok(_) => 101,
        refused => refusal(refused).0,
    }
}

/// Topics that a claim lets into; a drain begins at once.
const BY_CLAIM: &str =
    "channels: [{topic: 'room:*', join: {claim: rooms}}]\ndrain: {initialDelaySeconds: 0}\n";
const BOTH: &str = "  connect: true\n  disconnect: true\n";

#[tokio::test]
async fn the_backend_lets_in_with_an_id_and_claims_and_is_told_of_the_end() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    std::fs::write(dir.0.join("live.yaml"), BY_CLAIM).unwrap();
    backend.say(200, json!({"allow": true, "id": "users:anna", "claims": {"rooms": ["room:1"]}}));
    let node = start(&dir, &backend.url, &format!("{BOTH}  headers: [Host]\n")).await;
    let mut anna = Client::connect(&url(&node, "&token=opaque")).await.expect("let in");
    for (topic, status) in [("room:1", "ok"), ("room:2", "error")] {
        anna.send(json!(["1", "1", topic, "phx_join", {}])).await;
        assert_eq!(anna.next().await[4]["status"], status, "{topic}");
    }
    let asked = backend.told("connect").remove(0)["data"].clone();
    assert_eq!(asked["params"]["token"], "opaque");
    assert_eq!(asked["headers"]["host"], node.addresses.http.to_string());
    assert_eq!((&asked["node"], &asked["transport"]), (&"a".into(), &"websocket".into()));
    let call = json!({"topic": "users:anna", "event": "disconnect", "payload": {}});
    assert_eq!(publish(&node, call.to_string()).await.0, 202);
    assert_eq!(anna.close_code().await, Some(1001));
    until("the end is told", || !backend.told("disconnect").is_empty()).await;
    let told = backend.told("disconnect").remove(0)["data"].clone();
    assert_eq!(told["socket"]["ref"], asked["socket"]["ref"]);
    assert_eq!((&told["socket"]["id"], &told["code"]), (&"users:anna".into(), &1001.into()));
    end(node).await;
}

#[tokio::test]
async fn only_who_bears_a_good_token_is_asked_about_and_the_token_is_not_shown() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let signer = Signer::new("HS256");
    let key = dir.0.join("key");
    std::fs::write(&key, signer.verifier()).unwrap();
    std::fs::write(dir.0.join("live.yaml"), BY_CLAIM).unwrap();
    let key = key.display();
    let auth = format!("auth: {{jwt: {{keys: [{{algorithm: HS256, secretFile: '{key}'}}]}}}}\n");
    let node = start(&dir, &backend.url, &format!("{BOTH}{auth}")).await;
    assert_eq!(status(&node).await, 403, "no token");
    assert!(backend.calls.lock().is_empty(), "and nobody was asked");
    backend.say(200, json!({"allow": true, "claims": {"rooms": ["room:1"]}}));
    let token = signer.sign(&json!({ "alg": "HS256" }), &claims("anna"));
    let with = |params: &str| url(&node, &format!("&token={token}{params}"));
    let mut anna = Client::connect(&with("&x=y")).await.expect("let in");
    anna.send(json!(["1", "1", "room:1", "phx_join", {}])).await;
    assert_eq!(anna.next().await[4]["status"], "ok", "by a claim of the backend's");
    let asked = backend.told("connect").remove(0)["data"].clone();
    assert_eq!(asked["socket"]["claims"]["sub"], "anna");
    assert_eq!((&asked["params"]["x"], &asked["authToken"]), (&"y".into(), &Value::Null));
    let bodies: Vec<_> = backend.calls.lock().iter().map(|(_, body)| body.clone()).collect();
    let shown = bodies.iter().any(|body| String::from_utf8_lossy(body).contains(&token));
    assert!(!shown, "the token was verified here");
    backend.say(200, json!({ "allow": false }));
    assert_eq!(refusal(Client::connect(&with("")).await).0, 403, "a good token is not enough");
    end(node).await;
}

#[tokio::test]
async fn a_long_poll_is_asked_about_and_told_of_as_well() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let node = start(&dir, &backend.url, BOTH).await;
    let url = format!("http://{}/socket/longpoll?vsn=2.0.0", node.addresses.http);
    let poll =
        async || reqwest::get(&url).await.unwrap().json::<Value>().await.unwrap()["status"].clone();
    backend.say(403, "");
    assert_eq!(poll().await, 403);
    backend.say(200, json!({"allow": true, "id": "users:bert"}));
    assert_eq!(poll().await, 410, "a new session");
    let asked = backend.told("connect").pop().unwrap()["data"].clone();
    assert_eq!(asked["transport"], "longpoll");
    let call = json!({"topic": "users:bert", "event": "disconnect", "payload": {}});
    assert_eq!(publish(&node, call.to_string()).await.0, 202);
    until("the end is told", || !backend.told("disconnect").is_empty()).await;
    let told = backend.told("disconnect").remove(0)["data"].clone();
    assert_eq!(told["socket"]["ref"], asked["socket"]["ref"]);
    assert_eq!(told["code"], 1001);
    end(node).await;
}

#[tokio::test]
async fn what_is_no_yes_lets_nobody_in_and_is_counted() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let node = start(&dir, &backend.url, "  connect: true\n  timeoutMilliseconds: 2000\n").await;
    let huge = format!("{{\"allow\": true, \"x\": \"{}\"}}", "x".repeat(300 << 10));
    for (code, body, outcome) in [
        (200, "{\"allow\": false}", "denied"),
        (200, "{\"allow\": false, \"reason\": 5}", "denied"),
        (403, "", "denied"),
        (403, huge.as_str(), "denied"),
        (200, "<html>welcome</html>", "garbage"),
        (200, huge.as_str(), "large"),
        (500, "{\"allow\": true}", "status"),
        (302, "{\"allow\": true}", "status"),
    ] {
        backend.say(code, body);
        assert_eq!(status(&node).await, 403, "{outcome}");
        assert!(counted(&node, "connect", outcome).await, "{outcome}");
    }
    backend.say_nothing("*");
    assert_eq!(status(&node).await, 403);
    assert!(counted(&node, "connect", "timeout").await);
    backend.say(200, json!({ "allow": true }));
    assert_eq!(status(&node).await, 101, "and it is back");
    end(node).await;
}

#[tokio::test]
async fn an_answer_that_says_allow_twice_is_a_no_whatever_the_policy() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let node = start(&dir, &backend.url, "  connect: true\n  onFailure: Allow\n").await;
    for word in [false, true] {
        backend.say(200, format!("{{\"allow\": {word}, \"allow\": {word}}}"));
        assert_eq!(status(&node).await, 403, "{word}");
    }
    assert!(counted(&node, "connect", "ambiguous").await);
    backend.say(200, "\u{feff}{\"allow\": false}");
    assert_eq!(status(&node).await, 403, "a mark of the byte order is passed over");
    assert!(counted(&node, "connect", "denied").await);
    assert!(!counted(&node, "connect", "garbage").await);
    backend.say(200, "{}");
    assert_eq!(status(&node).await, 101, "which is no answer, and for the policy");
    end(node).await;
}

#[tokio::test]
async fn a_backend_that_is_down_is_left_alone_and_the_policy_decides() {
    for (policy, want) in [("Deny", 403), ("Allow", 101)] {
        let (dir, gone) = (Dir::new(), tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap());
        let address = gone.local_addr().unwrap();
        drop(gone);
        let more = format!("  connect: true\n  onFailure: {policy}\n");
        let node = start(&dir, &format!("http://{address}/hook"), &more).await;
        for _ in 0..100 {
            assert_eq!(status(&node).await, want, "{policy}");
            if counted(&node, "connect", "circuit").await {
                break;
            }
        }
        assert!(
            counted(&node, "connect", "unreachable").await
                && counted(&node, "connect", "circuit").await
        );
        end(node).await;
    }
}

#[tokio::test]
async fn every_call_is_signed_and_secrets_rotate_by_overlap() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let node = start(&dir, &backend.url, "  connect: true\n").await;
    assert_eq!(status(&node).await, 101);
    let (headers, body) = backend.calls.lock()[0].clone();
    assert_eq!(headers["webhook-signature"], signature(1, &headers, &body));
    std::fs::write(dir.0.join("webhook-secret"), format!("{}\n{}\n", secret(2), secret(1)))
        .unwrap();
    let mut both = false;
    for _ in 0..100 {
        assert_eq!(status(&node).await, 101);
        let (headers, body) = backend.calls.lock().last().unwrap().clone();
        let want = format!("{} {}", signature(2, &headers, &body), signature(1, &headers, &body));
        both = headers["webhook-signature"] == want;
        if both {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(both);
    end(node).await;
}

#[tokio::test]
async fn a_shutdown_tells_of_every_socket_before_it_ends() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let node = start(&dir, &backend.url, "  disconnect: true\n").await;
    let mut clients = Vec::new();
    for _ in 0..30 {
        clients.push(Client::connect(&url(&node, "")).await.expect("let in"));
    }
    until("thirty sockets", || node.hub.counts().connections == 30).await;
    // The first tries fail: they are made again, as the same messages.
    backend.say(503, "");
    let mended = backend.clone();
    tokio::spawn(async move {
        until("a try", || !mended.told("disconnect").is_empty()).await;
        mended.say(204, "");
    });
    let closed = clients.iter_mut().map(Client::close_code);
    let (codes, ()) = futures::future::join(futures::future::join_all(closed), end(node)).await;
    assert!(codes.into_iter().all(|code| code == Some(1012)));
    assert_eq!(backend.taken.lock().len(), 30);
    assert!(backend.calls.lock().len() > 30, "some were sent again");
    assert!(backend.told("disconnect").iter().all(|told| told["data"]["code"] == 1012));
}
