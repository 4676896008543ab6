//! Answers to polls, whose client does not read them.

mod conformance;
mod plane;

use conformance::{node, pair};
use plane::{Node, PATIENCE, session::Session};
use sluice_node::{
    hub::Reason,
    pubsub::{Broadcast, Kind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

/// More than the kernel takes for a client that does not read.
const LARGE: usize = 7_000_000;

fn say(node: &Node, text: &str) {
    let payload = format!(r#"{{"text":"{}"}}"#, text.repeat(LARGE / text.len()));
    node.hub.broadcast(Broadcast {
        topic: "quiet:a".into(),
        event: "shout".into(),
        kind: Kind::Json,
        payload: payload.into(),
    });
}

/// A poll whose answer has begun.
async fn poll(node: &Node, session: &Session) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.expect("taken");
    let target = format!("/socket/longpoll?vsn=2.0.0&token={}", session.token);
    let head = format!("GET {target} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("taken");
    timeout(PATIENCE, stream.readable()).await.expect("an answer").expect("open");
    stream
}

/// All that comes, if it ends in good order or not.
async fn rest(mut stream: TcpStream) -> usize {
    let mut all = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut all)).await.expect("an end");
    all.len()
}

#[tokio::test]
async fn of_the_answers_of_a_session_that_nobody_reads_only_the_last_is_held() {
    let node = node().await;
    let session = Session::open(node.address, "/socket").await;
    session.join("quiet:a").await;
    say(&node, "one");
    let first = poll(&node, &session).await;
    say(&node, "two");
    let second = poll(&node, &session).await;
    let reason = Reason { reason: "slow" };
    let dropped = || node.hub.metrics().dropped.get_or_create(&reason).get();
    node.until("the first is cut", |_| dropped() == 1).await;
    assert!(rest(first).await < LARGE);
    assert!(rest(second).await > LARGE);
    // What is read is followed by what comes next.
    say(&node, "six");
    assert!(rest(poll(&node, &session).await).await > LARGE);
    assert_eq!(dropped(), 1);
}

#[tokio::test]
async fn p_lp_3_what_waits_is_told_in_portions_that_another_node_can_carry() {
    let [(one, _one), (two, _two)] = pair().await;
    let here = Session::open(one.address, "/socket").await;
    here.join("quiet:a").await;
    for text in ["one", "two", "six"] {
        say(&one, text);
    }
    let told = here.at(two.address, "/socket").messages(3).await;
    let begins = told.iter().map(|message| &message[4]["text"].as_str().expect("text")[..3]);
    assert_eq!(begins.collect::<Vec<_>>(), ["one", "two", "six"]);
}
