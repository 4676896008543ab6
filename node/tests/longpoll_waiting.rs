//! What waits for a long-poll session between two of its polls: as much as one answer has, and no more.

mod conformance;
mod flood;
mod plane;

use flood::{SIZE, broadcast, dropped, rule};
use plane::{Node, session::Session};
use serde_json::Value;
use sluice_node_api::config::{SlowConsumer, Socket};

/// More than may wait for a WebSocket, and less than one answer has.
const MANY: u64 = 40;
/// More than one answer has.
const TOO_MANY: u64 = (4 << 20) / SIZE as u64 + 2;

async fn node() -> Node {
    let rules =
        vec![rule("lossy:*", SlowConsumer::DropOldest), rule("*", SlowConsumer::Disconnect)];
    Node::with(Socket::default(), rules).await
}

async fn joined(node: &Node, topic: &str) -> Session {
    let session = Session::open(node.address, "/socket").await;
    session.join(topic).await;
    session
}

/// The numbers of broadcasts.
fn numbers(messages: &[Value]) -> Vec<u64> {
    messages.iter().filter_map(|message| message[4]["n"].as_u64()).collect()
}

#[tokio::test]
async fn what_is_said_between_two_polls_is_all_told_by_the_next() {
    let node = node().await;
    let session = joined(&node, "strict:1").await;
    for round in 0..3 {
        let said = round * MANY..(round + 1) * MANY;
        broadcast(&node, "strict:1", said.start, MANY);
        let all = i64::try_from(MANY * SIZE as u64).expect("small");
        node.until("all of it waits", |hub| hub.metrics().buffered.get() > all).await;
        let (status, messages) = session.poll().await;
        assert_eq!((status, numbers(&messages)), (200, said.collect()));
    }
    assert_eq!((dropped(&node, "slow"), node.hub.counts().connections), (0, 1));
}

#[tokio::test]
async fn a_session_for_which_more_waits_than_one_answer_has_is_closed_and_it_is_counted() {
    let node = node().await;
    let session = joined(&node, "strict:1").await;
    broadcast(&node, "strict:1", 0, TOO_MANY);
    node.until("it is gone", |hub| hub.counts().connections == 0).await;
    assert!(dropped(&node, "slow") > TOO_MANY - 9, "{}", dropped(&node, "slow"));
    assert_eq!(session.poll().await, (410, vec![]));
}

#[tokio::test]
async fn where_the_rule_says_so_a_session_misses_the_oldest_is_told_how_many_and_stays() {
    let node = node().await;
    let session = joined(&node, "lossy:1").await;
    broadcast(&node, "lossy:1", 0, TOO_MANY);
    node.until("some are dropped", |_| dropped(&node, "oldest") > 0).await;
    let mut messages = Vec::new();
    while numbers(&messages).last() != Some(&(TOO_MANY - 1)) {
        messages.extend(session.poll().await.1);
    }
    let gone = messages[0][4]["count"].as_u64().expect("they are told of first");
    assert_eq!(gone, dropped(&node, "oldest"));
    assert_eq!(numbers(&messages), (gone..TOO_MANY).collect::<Vec<_>>());
    assert!(numbers(&messages).len() as u64 > MANY, "no more are dropped than must be");
}

#[tokio::test]
async fn p_lp_9_what_waits_for_a_session_that_is_never_polled_goes_with_it_and_is_counted() {
    let node = conformance::node().await;
    let session = Session::open(node.address, "/quick").await;
    session.join("quiet:a").await;
    broadcast(&node, "quiet:a", 0, 3);
    node.until("it is gone", |hub| hub.counts().connections == 0).await;
    assert_eq!(dropped(&node, "slow"), 3);
    node.until("nothing is held", |hub| hub.metrics().buffered.get() == 0).await;
}
