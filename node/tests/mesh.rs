//! Mesh nodes that link over loopback: both ways, authenticated, again after a cut.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod meshes;

use std::collections::BTreeSet;
use std::time::Instant;

use meshes::{BOUND, Node, metric, node, node_with, until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn a_node_that_is_dialled_dials_back() {
    let (a, b) = (node("a", "c", "token").await, node("b", "c", "token").await);
    a.see(&[&b]);
    until("both linked both ways", || a.mesh.linked() == 1 && b.mesh.linked() == 1).await;
    a.say("from a");
    b.say("from b");
    until("both heard", || a.heard() == ["from b"] && b.heard() == ["from a"]).await;
    let peers = b.mesh.peers();
    assert_eq!(peers.len(), 1, "{peers:?}");
    assert_eq!((peers[0].name.as_str(), &peers[0].address), ("a", &a.addr.to_string()));
}

#[tokio::test]
async fn three_nodes_each_see_two_and_never_themselves() {
    let nodes = [
        node("a", "c", "token").await,
        node("b", "c", "token").await,
        node("c", "c", "token").await,
    ];
    let everyone: Vec<&Node> = nodes.iter().collect();
    for n in &nodes {
        n.see(&everyone);
    }
    until("each linked to two", || {
        nodes.iter().all(|n| n.mesh.linked() == 2 && n.mesh.peers().len() == 2)
    })
    .await;
    for i in 0..500 {
        nodes[0].say(&i.to_string());
    }
    let want: Vec<String> = (0..500).map(|i| i.to_string()).collect();
    until("all in order, once", || nodes[1].heard() == want && nodes[2].heard() == want).await;
    assert!(nodes[0].heard().is_empty(), "a node must not hear itself through the mesh");
}

#[tokio::test]
async fn a_new_token_cuts_nothing_and_links_nodes_that_have_not_read_it_yet() {
    let (a, b) = (node("a", "c", "old").await, node("b", "c", "old").await);
    a.see(&[&b]);
    b.see(&[&a]);
    until("linked", || a.mesh.linked() == 1 && b.mesh.linked() == 1).await;
    // Only one of them has read it; both dial anew.
    a.keys.replace("new".into(), Instant::now());
    a.say("over the link there is");
    until("heard", || b.heard().len() == 1).await;
    a.links.cut();
    b.links.cut();
    until("linked again, both ways", || {
        a.say("to b");
        b.say("to a");
        let to = |n: &Node, text: &str| n.heard().iter().any(|heard| heard == text);
        to(&b, "to b") && to(&a, "to a")
    })
    .await;
    // Who comes with nothing but the new one links with whoever has read it.
    let late = node("late", "c", "new").await;
    late.see(&[&a]);
    a.see(&[&b, &late]);
    until("linked with the newcomer", || late.mesh.linked() == 1 && a.mesh.linked() == 2).await;
}

#[tokio::test]
async fn a_wrong_token_and_another_cluster_get_nothing() {
    let a = node("a", "c", "token").await;
    let wrong = node("w", "c", "other").await;
    let other = node("o", "d", "token").await;
    a.see(&[&wrong, &other]);
    wrong.see(&[&a]);
    other.see(&[&a]);
    until("both refusals counted", || {
        metric(&a, "mesh_refused_total{reason=\"token\"}") > 0
            && metric(&a, "mesh_refused_total{reason=\"cluster\"}") > 0
    })
    .await;
    a.say("secret");
    wrong.say("forged");
    other.say("forged");
    // Links that are refused stay refused: both ends have tried more than once by now.
    until("tried again", || metric(&a, "mesh_refused_total{reason=\"token\"}") > 2).await;
    assert_eq!((a.mesh.linked(), wrong.mesh.linked(), other.mesh.linked()), (0, 0, 0));
    assert!(a.heard().is_empty() && wrong.heard().is_empty() && other.heard().is_empty());
}

#[tokio::test]
async fn a_stranger_learns_no_name_and_is_cut_off() {
    let a = node("secret-name", "c", "token").await;
    let mut s = TcpStream::connect(a.addr).await.unwrap();
    s.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut got = Vec::new();
    let read = tokio::time::timeout(BOUND, s.read_to_end(&mut got)).await.expect("cut off");
    assert!(read.is_err() || got.is_empty(), "{got:?}");
    until("counted", || metric(&a, "mesh_refused_total{reason=\"malformed\"}") == 1).await;
    let mut silent = TcpStream::connect(a.addr).await.unwrap();
    let n = tokio::time::timeout(BOUND, silent.read(&mut [0; 8])).await.expect("cut off");
    assert_eq!(n.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_cut_link_comes_back_and_brings_what_waited() {
    let (a, b) = (node("a", "c", "token").await, node("b", "c", "token").await);
    a.see(&[&b]);
    until("linked", || a.mesh.linked() == 1 && b.mesh.linked() == 1).await;
    for round in 0..5 {
        a.links.cut();
        until("noticed", || a.mesh.linked() == 0).await;
        a.say(&format!("while cut {round}"));
        until("linked again", || a.mesh.linked() == 1 && b.mesh.linked() == 1).await;
        a.say(&format!("after {round}"));
        until("heard", || b.heard().last() == Some(&format!("after {round}"))).await;
    }
    assert_eq!(b.heard().len(), 10, "{:?}", b.heard());
}

#[tokio::test]
async fn leaving_sends_what_waits_and_says_goodbye() {
    let (a, b) = (node("a", "c", "token").await, node("b", "c", "token").await);
    a.see(&[&b]);
    until("linked", || a.mesh.linked() == 1 && b.mesh.linked() == 1).await;
    for i in 0..2000 {
        a.say(&i.to_string());
    }
    let begun = Instant::now();
    a.mesh.leave(BOUND).await;
    assert!(begun.elapsed() < BOUND / 2, "leaving took {:?}", begun.elapsed());
    assert_eq!(b.heard().len(), 2000);
    until("forgotten", || b.mesh.peers().is_empty()).await;
    assert_eq!(metric(&b, "mesh_links_ended_total{reason=\"goodbye\"}"), 1);
}

#[tokio::test]
async fn a_node_under_two_addresses_is_linked_once() {
    let (a, b) = (node("a", "c", "token").await, node("b", "c", "token").await);
    // A forwarder gives `b` a second address.
    let second = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second_addr = second.local_addr().unwrap();
    let to = b.addr;
    tokio::spawn(async move {
        while let Ok((mut from, _)) = second.accept().await {
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    a.mesh.set_discovered(&BTreeSet::from([b.addr, second_addr]));
    until("linked once", || a.mesh.linked() == 1 && a.mesh.peers().len() == 1).await;
    a.say("once");
    until("heard", || !b.heard().is_empty()).await;
    a.say("last");
    until("heard", || b.heard().last().is_some_and(|t| t == "last")).await;
    assert_eq!(b.heard(), ["once", "last"]);
}

#[tokio::test]
async fn a_frozen_peer_is_noticed_and_its_queue_stays_bounded() {
    const BUFFER: usize = 64 << 10;
    let a = node_with("a", "c", "token", BUFFER).await;
    // A forwarder that can be frozen: bytes stop, the connections stay.
    let b = node("b", "c", "token").await;
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let door_addr = door.local_addr().unwrap();
    let frozen = CancellationToken::new();
    let (to, freeze) = (b.addr, frozen.clone());
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut from, _)) = door.accept().await {
            if freeze.is_cancelled() {
                kept.push(from);
                continue;
            }
            let freeze = freeze.clone();
            tokio::spawn(async move {
                let mut to = TcpStream::connect(to).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut from, &mut to) => {}
                    () = freeze.cancelled() => {}
                }
                std::future::pending::<()>().await;
            });
        }
    });
    a.mesh.set_discovered(&BTreeSet::from([door_addr]));
    until("linked", || a.mesh.peers().iter().any(|p| p.outbound)).await;
    frozen.cancel();
    let big = "x".repeat(16 << 10);
    for _ in 0..2000 {
        a.say(&big);
    }
    until("noticed", || {
        a.mesh.peers().iter().all(|p| p.address != door_addr.to_string() || !p.outbound)
    })
    .await;
    assert!(metric(&a, "mesh_dropped_total{reason=\"full\"}") > 0);
    assert!(metric(&a, "mesh_queue_bytes") <= BUFFER as u64);
}
