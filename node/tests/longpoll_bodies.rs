//! What is posted by long-poll and does not come: how long and how much of it a node holds.

mod conformance;
mod plane;

use std::{future::pending, sync::Arc};

use conformance::{node, pair};
use futures::{StreamExt, stream::FuturesUnordered};
use plane::{Node, PATIENCE, session::Session};
use serde_json::json;
use sluice_node::{
    channel::{Channel, Ctx, JoinError, Mount, Payload, Router},
    hub::{Hub, Reason},
    pubsub::{Broadcast, Kind},
    server::Builder,
};
use sluice_node_api::config::{Limits, LiveConfig, NodeConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// The largest message of a mount.
const LARGEST: usize = 8_000_000;

/// A request of a session, of whose body less comes than it announces.
async fn post(node: &Node, path: &str, session: &Session, comes: usize) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.expect("taken");
    let head = format!(
        "POST {path}/longpoll?token={} HTTP/1.1\r\nhost: a\r\ncontent-length: {LARGEST}\r\n\r\n",
        session.token
    );
    stream.write_all(head.as_bytes()).await.expect("taken");
    // What is refused may be read to no end.
    let _ = timeout(PATIENCE, stream.write_all(&vec![b' '; comes])).await.expect("taken");
    stream
}

/// The end of a connection, with what was said on it.
async fn said(mut stream: TcpStream) -> String {
    let mut said = Vec::new();
    let _ = timeout(PATIENCE * 3 / 4, stream.read_to_end(&mut said)).await.expect("an end");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn p_lp_4_a_body_that_does_not_come_is_late() {
    let [(one, _one), (two, _two)] = pair().await;
    let session = Session::open(one.address, "/quick").await;
    for node in [&one, &two] {
        let post = post(node, "/quick", &session, 9).await;
        let polled = async {
            loop {
                session.poll().await;
            }
        };
        let said = tokio::select! {
            said = said(post) => said,
            () = polled => unreachable!("it polls for ever"),
        };
        assert!(said.contains(r#"{"status":408}"#), "{said}");
    }
}

/// A session of a user.
async fn of_anna(node: &Node) -> Session {
    let mut session = Session::open(node.address, "/socket").await;
    let url = format!("{}&user=anna", session.url);
    let opened = plane::session::answer(session.http.get(url)).await;
    session.token = opened["token"].as_str().expect("a token").to_owned();
    session.join("quiet:a").await;
    session
}

/// Ends all sessions of the user.
fn end_anna(node: &Node) {
    node.hub.broadcast(Broadcast {
        topic: "users:anna".into(),
        event: "disconnect".into(),
        kind: Kind::Json,
        payload: "{}".into(),
    });
}

#[tokio::test]
async fn a_body_is_read_no_longer_than_its_session_lives() {
    let node = node().await;
    let session = of_anna(&node).await;
    let waits = post(&node, "/socket", &session, 9).await;
    end_anna(&node);
    let said_then = said(waits).await;
    assert!(said_then.contains(r#"{"status":410}"#), "{said_then}");
    let late = said(post(&node, "/socket", &session, 9).await).await;
    assert!(late.contains(r#"{"status":410}"#), "{late}");
}

#[tokio::test]
async fn a_body_for_a_session_of_another_node_is_read_no_longer_than_that_lives() {
    let [(one, _one), (two, _two)] = pair().await;
    let session = of_anna(&one).await;
    let waits = post(&two, "/socket", &session, 9).await;
    end_anna(&one);
    let said_then = said(waits).await;
    assert!(said_then.contains(r#"{"status":410}"#), "{said_then}");
    let late = said(post(&two, "/socket", &session, 9).await).await;
    assert!(late.contains(r#"{"status":410}"#), "{late}");
}

#[tokio::test]
async fn no_more_is_read_for_a_session_at_once_than_two_of_its_largest_messages() {
    let node = node().await;
    let session = Session::open(node.address, "/socket").await;
    let dropped = || {
        let reason = Reason { reason: "longpoll" };
        node.hub.metrics().dropped.get_or_create(&reason).get()
    };
    let posts = [(); 3].map(|()| post(&node, "/socket", &session, LARGEST - 9));
    let posts = futures::future::join_all(posts).await;
    let ends = posts.into_iter().map(|post| Box::pin(said(post)));
    let (refused, _, others) = futures::future::select_all(ends).await;
    // What was not read may take the answer with it.
    assert!(refused.is_empty() || refused.contains(r#"{"status":410}"#), "{refused}");
    // Others that come at the same moment may find no room either.
    assert!(dropped() > 0);
    drop(others);
    // The session itself lives, and others are as free as before.
    let heartbeat = json!([null, "2", "phoenix", "heartbeat", {}]).to_string();
    let taken = async { while session.post(std::slice::from_ref(&heartbeat)).await != 200 {} };
    timeout(PATIENCE, taken).await.expect("room again");
}

/// What all sessions may have.
const BOUND: u64 = 16 << 20;

#[tokio::test]
async fn bodies_of_all_sessions_take_no_more_than_they_may_and_a_small_one_always_fits() {
    let node = node().await;
    let limits = Limits { max_buffered_bytes: Some(BOUND), ..Limits::default() };
    node.hub.set_live(Arc::new(LiveConfig { limits, ..LiveConfig::default() }));
    let dropped = || {
        let reason = Reason { reason: "longpoll" };
        node.hub.metrics().dropped.get_or_create(&reason).get()
    };
    // The first alone may have its largest message; then there is less than that for each.
    let mut posts = Vec::new();
    for _ in 0..5 {
        let session = Session::open(node.address, "/socket").await;
        posts.push(post(&node, "/socket", &session, LARGEST - 9).await);
    }
    let heartbeat = json!([null, "2", "phoenix", "heartbeat", {}]).to_string();
    let session = Session::open(node.address, "/socket").await;
    assert_eq!(session.post(std::slice::from_ref(&heartbeat)).await, 200);
    node.until("others are refused", |_| dropped() >= 3).await;
    let mut ends: FuturesUnordered<_> = posts.into_iter().map(said).collect();
    for _ in 0..3 {
        let said = ends.next().await.expect("one more");
        // What was not read may take the answer with it.
        assert!(said.is_empty() || said.starts_with("HTTP/1.1 503 "), "{said}");
    }
    assert!(dropped() < 5, "the first fits");
}

/// Whose join is never settled.
struct Endless;

impl Channel for Endless {
    type Info = ();

    async fn join(_: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
        pending().await
    }
}

#[tokio::test]
async fn what_waits_behind_joins_of_all_sessions_takes_no_more_than_it_may() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let router = Router::new().channel::<Endless>("*");
    let mount = Mount::open("/socket").longpoll(PATIENCE).channels(router);
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(mount).shards(1);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub, address, shutdown };
    let limits = Limits { max_buffered_bytes: Some(BOUND), ..Limits::default() };
    node.hub.set_live(Arc::new(LiveConfig { limits, ..LiveConfig::default() }));

    let large = json!([null, "2", "phoenix", "heartbeat", {"x": "x".repeat(3 << 20)}]).to_string();
    let lines = [json!(["1", "1", "a", "phx_join", {}]).to_string(), large];
    let dropped = || {
        let reason = Reason { reason: "unfinished" };
        i64::try_from(node.hub.metrics().dropped.get_or_create(&reason).get()).expect("few")
    };
    let mut posts = Vec::new();
    for n in 1..=8 {
        let session = Session::open(node.address, "/socket").await;
        let lines = lines.clone();
        posts.push(tokio::spawn(async move { session.post(&lines).await }));
        let all = |hub: &Hub| hub.metrics().buffered.get() / (3 << 20) + dropped();
        node.until("it waits, or somebody is closed", |hub| all(hub) >= n).await;
        node.until("no more than may be", |hub| hub.metrics().buffered.get() <= BOUND as i64).await;
    }
    assert_eq!(
        posts.swap_remove(0).await.expect("answered"),
        410,
        "who waits for longest goes first"
    );
    assert!((3..8).contains(&dropped()), "{}", dropped());
}
