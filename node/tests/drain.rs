//! One node, real sockets: drains, sheds, cordons and shutdown.

mod plane;

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use plane::{Client, Node, PATIENCE, refusal};
use sluice_node::hub::{Code, Reason};
use sluice_node_api::{
    admin::{DrainMode, DrainPhase, DrainRequest, ShedRequest},
    config::{ChannelRule, Limits, LiveConfig, Socket},
};
use tokio::time::{Instant, timeout};

fn request(mode: DrainMode) -> DrainRequest {
    DrainRequest {
        mode,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 2,
        batch_interval_seconds: 0.2,
        ttl_seconds: 60.0,
    }
}

#[tokio::test]
async fn p_drain_4_every_socket_is_closed_with_1012_in_batches_with_channels_or_without() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for i in 0..6 {
        clients.push(if i % 2 == 0 { node.joined("room:1").await } else { node.client().await });
    }
    // A client knows that it is connected a moment before the node counts it.
    node.until("six", |hub| hub.counts().connections == 6).await;
    let status = node.hub.start_drain(request(DrainMode::Batched));
    assert_eq!((status.initial, status.remaining), (6, 6));
    let started = Instant::now();
    let codes = join_all(
        clients
            .iter_mut()
            .map(|client| async move { (client.close_code().await, started.elapsed()) }),
    );
    let codes = codes.await;
    assert!(codes.iter().all(|(code, _)| *code == Some(1012)), "{codes:?}");
    let slow = codes.iter().filter(|(_, at)| *at >= Duration::from_millis(380)).count();
    assert!(slow >= 2, "three batches: {codes:?}");
    timeout(PATIENCE, node.hub.drained()).await.expect("drained");
    let status = node.hub.drain_status();
    assert_eq!((status.phase, status.moved, status.remaining), (DrainPhase::Drained, 6, 0));
    assert!(status.started_at.is_some());
    let metrics = node.hub.metrics();
    let drains = |reason| metrics.drains.get_or_create(&Reason { reason }).get();
    assert_eq!((drains("started"), drains("completed")), (1, 1));
    assert_eq!(metrics.closes.get_or_create(&Code { code: 1012 }).get(), 6);
}

#[tokio::test]
async fn a_draining_or_cordoned_node_refuses_with_503_and_retry_after() {
    let node = Node::start().await;
    node.hub.start_drain(request(DrainMode::Wait));
    let (status, after) = refusal(Client::connect(&node.url()).await);
    assert_eq!((status, after.as_deref()), (503, Some("2")));
    assert_eq!(node.hub.cancel_drain().phase, DrainPhase::None);
    node.hub.cordon(None);
    assert!(node.hub.cordoned());
    assert_eq!(refusal(Client::connect(&node.url()).await).0, 503);
    node.hub.uncordon();
    node.joined("room:1").await;
}

#[tokio::test]
async fn the_connect_rate_is_limited() {
    let socket = Socket { max_connects_per_second: 2, ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    let url = node.url();
    let tries = join_all((0..8).map(|_| Client::connect(&url))).await;
    let refused: Vec<_> = tries.into_iter().filter(Result::is_err).map(refusal).collect();
    assert!(refused.len() >= 3, "{refused:?}");
    assert!(refused.iter().all(|refusal| *refusal == (503, Some("1".into()))), "{refused:?}");
}

#[tokio::test]
async fn a_full_node_sends_newcomers_elsewhere_and_keeps_whom_it_has() {
    let node = Node::start().await;
    let limit = |max_connections| {
        let limits = Limits { max_connections, ..Limits::default() };
        node.hub.set_live(Arc::new(LiveConfig { limits, ..LiveConfig::default() }));
    };
    limit(2);
    let mut first = node.joined("room:1").await;
    let second = node.joined("room:1").await;
    assert_eq!(node.hub.capacity(), 2);
    assert_eq!(refusal(Client::connect(&node.url()).await), (503, Some("1".into())));
    limit(1);
    first.is_quiet().await;
    drop(second);
    node.until("one left", |hub| hub.counts().connections == 1).await;
    limit(2);
    // The refused handshakes' own connections may still be closing.
    let room = async {
        while Client::connect(&node.url()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, room).await.expect("room again");
}

#[tokio::test]
async fn wait_closes_none_and_immediate_all() {
    let node = Node::start().await;
    let mut staying = node.joined("room:1").await;
    let leaving = node.joined("room:1").await;
    node.hub.start_drain(request(DrainMode::Wait));
    drop(leaving);
    node.until("one left", |hub| hub.counts().connections == 1).await;
    staying.is_quiet().await;
    assert_eq!(node.hub.drain_status().phase, DrainPhase::Waiting);
    node.hub.start_drain(request(DrainMode::Immediate));
    assert_eq!(staying.close_code().await, Some(1012));
    timeout(PATIENCE, node.hub.drained()).await.expect("drained");
    assert_eq!(node.hub.drain_status().moved, 1);
}

#[tokio::test]
async fn a_drain_that_nobody_renews_is_given_up() {
    let node = Node::start().await;
    node.hub.start_drain(DrainRequest { ttl_seconds: 0.3, ..request(DrainMode::Wait) });
    node.until("given up", |hub| hub.drain_status().phase == DrainPhase::None).await;
    node.joined("room:1").await;
}

#[tokio::test]
async fn a_shed_closes_its_count_and_the_node_goes_on() {
    let node = Node::start().await;
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(node.joined("room:1").await);
    }
    let answer = node.hub.shed(ShedRequest { count: 2, rate_per_second: 100, delay_seconds: 0.0 });
    assert_eq!(answer.shedding, 2);
    let mut reading: Vec<_> =
        clients.iter_mut().map(|client| Box::pin(client.close_code())).collect();
    for _ in 0..2 {
        let wait = futures::future::select_all(reading);
        let (code, _, rest) = timeout(PATIENCE, wait).await.expect("a close");
        assert_eq!(code, Some(1012));
        reading = rest;
    }
    drop(reading);
    node.until("four left", |hub| hub.counts().connections == 4).await;
    node.joined("room:1").await;
}

#[tokio::test]
async fn p_code_1_shutdown_closes_with_1012_and_ends() {
    let node = Node::start().await;
    let mut client = node.joined("room:1").await;
    node.shutdown.cancel();
    assert_eq!(client.close_code().await, Some(1012));
    timeout(PATIENCE, node.hub.stopped()).await.expect("stopped");
    assert_eq!(node.hub.counts(), Default::default());
}
