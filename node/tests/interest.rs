//! Interest routing between meshes over loopback: a node gets what it has joined, and nothing else.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod meshes;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use meshes::{BOUND, Node, metric, routed, until};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use sluice_node::pubsub::Adapter;
use sluice_node_api::config::Routing::{Broadcast, Interest};
use tokio::time::timeout;

/// Each is sent only what it wants by each.
async fn all_routed(nodes: &[Node]) {
    let others = nodes.len() as u64 - 1;
    until("all routed", || nodes.iter().all(|n| metric(n, "mesh_routed ") == others)).await;
}

fn received(node: &Node) -> u64 {
    metric(node, "mesh_received_total ")
}

#[tokio::test]
async fn topics_of_two_nodes_cost_the_third_nothing() {
    let nodes = routed([Interest; 3]).await;
    all_routed(&nodes).await;
    let [a, b, c] = &nodes;
    b.join("room:1").await;
    assert_eq!(metric(a, "mesh_topics "), 1);
    for n in 0..100 {
        a.say_on("room:1", "msg", &format!("{n}"));
        a.say_on("of nobody", "msg", "unheard");
    }
    // What closes sockets is for all, wherever they are about to be known.
    a.say_on("users:anna", "disconnect", "{}");
    until("heard", || b.has_heard("99") && b.has_heard("{}") && c.has_heard("{}")).await;
    assert_eq!((received(b), received(c)), (101, 1));
    assert_eq!(metric(a, "mesh_unwanted_total "), 300);
    c.join("room:1").await;
    a.say_on("room:1", "msg", "for both");
    until("heard", || b.has_heard("for both") && c.has_heard("for both")).await;
    c.leave("room:1");
    until("left", || metric(a, "mesh_topics ") == 1).await;
    assert_eq!(metric(a, "mesh_unconfirmed_total "), 0);
}

#[tokio::test]
async fn what_is_kept_comes_wherever_it_is_sent_first_and_whoever_has_joined() {
    let nodes = routed([Interest; 3]).await;
    all_routed(&nodes).await;
    let [a, b, c] = &nodes;
    b.mesh.set_patterns(&["room:*".into(), "lobby".into()]);
    // Joined with the patterns: what it waits for is theirs.
    b.join("room:5").await;
    for topic in ["room:1", "room:5", "lobby", "other"] {
        a.say_on(topic, "msg", topic);
    }
    until("heard", || b.has_heard("lobby")).await;
    assert_eq!(b.heard(), ["room:1", "room:5", "lobby"]);
    b.mesh.set_patterns(&["lobby".into()]);
    b.join("new").await;
    for topic in ["room:1", "room:5", "lobby"] {
        a.say_on(topic, "msg", &format!("{topic} later"));
    }
    until("heard", || b.has_heard("lobby later")).await;
    assert_eq!(b.heard()[3..], ["room:5 later", "lobby later"], "what it has joined still comes");
    assert_eq!(received(c), 0);
}

#[tokio::test]
async fn who_does_not_say_what_it_wants_gets_everything_and_takes_part() {
    let nodes = routed([Interest, Broadcast, Interest]).await;
    let [a, old, c] = &nodes;
    until("routed", || metric(a, "mesh_routed ") == 1 && metric(c, "mesh_routed ") == 1).await;
    old.join("room:1").await;
    for node in [a, old, c] {
        node.say_on("room:1", "msg", node.addr.to_string().as_str());
    }
    c.join("room:1").await;
    a.say_on("room:1", "msg", "now");
    until("heard", || old.has_heard("now") && c.has_heard("now")).await;
    assert_eq!((received(a), received(old), received(c)), (1, 3, 2));
    assert_eq!(metric(old, "mesh_routed "), 0);
}

#[tokio::test]
async fn what_waits_for_a_link_that_was_cut_is_everything() {
    let nodes = routed([Interest; 2]).await;
    all_routed(&nodes).await;
    let [a, b] = &nodes;
    a.say_on("room:1", "msg", "nobody wants it");
    a.links.cut();
    until("noticed", || a.mesh.linked() == 0).await;
    // The other may have joined by now, and can't say so.
    a.say_on("room:1", "msg", "while cut");
    until("heard", || b.has_heard("while cut")).await;
    assert_eq!(b.heard(), ["while cut"]);
}

const VISITS: usize = 40;

/// A topic that a node visits.
fn visited(at: usize, visit: usize) -> (usize, String) {
    (at * VISITS + visit, format!("t{at}.{visit}"))
}

/// Joins one topic after the other, each twice, the second time soon after it has left it. Each time everything
/// must be heard that was sent after the join was answered.
async fn visit(nodes: &[Node], at: usize, sent: &[Vec<AtomicUsize>]) {
    let mut rng = StdRng::seed_from_u64(at as u64);
    for visit in 0..VISITS * 2 {
        let (topic, name) = visited(at, visit / 2);
        nodes[at].join(&name).await;
        let others = (0..nodes.len()).filter(|from| *from != at);
        let now = |from: usize| sent[from][topic].load(Ordering::SeqCst);
        let mut due: Vec<(usize, usize, usize)> = others.map(|from| (from, now(from), 0)).collect();
        tokio::time::sleep(Duration::from_millis(rng.random_range(1..20))).await;
        due.iter_mut().for_each(|(from, _, end)| *end = now(*from));
        for (from, first, end) in due {
            for n in first..end {
                let text = format!("{name} {from} {n}");
                until(&text, || nodes[at].has_heard(&text)).await;
            }
        }
        nodes[at].leave(&name);
        if rng.random_bool(0.5) {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whoever_has_joined_hears_every_broadcast_that_is_made_from_then_on() {
    let nodes = Arc::new(routed([Interest; 3]).await);
    all_routed(&nodes[..]).await;
    let counters = || (0..3 * VISITS).map(|_| AtomicUsize::new(0)).collect();
    let sent: Arc<Vec<Vec<AtomicUsize>>> = Arc::new((0..3).map(|_| counters()).collect());
    let stop = Arc::new(AtomicBool::new(false));
    let speak = |from: usize| {
        let (nodes, sent, stop) = (nodes.clone(), sent.clone(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                for (topic, name) in (0..3 * VISITS).map(|n| visited(n / VISITS, n % VISITS)) {
                    // Counted before it is sent: those with higher numbers are sent later.
                    let n = sent[from][topic].fetch_add(1, Ordering::SeqCst);
                    nodes[from].say_on(&name, "msg", &format!("{name} {from} {n}"));
                }
                tokio::task::yield_now().await;
            }
        })
    };
    let speakers: Vec<_> = (0..3).map(speak).collect();
    let visitors = (0..3).map(|at| {
        let (nodes, sent) = (nodes.clone(), sent.clone());
        tokio::spawn(async move { visit(&nodes[..], at, &sent).await })
    });
    let visited = timeout(BOUND * 6, join_all(visitors)).await.expect("in time");
    visited.into_iter().for_each(|visitor| visitor.expect("nothing was missed"));
    stop.store(true, Ordering::Relaxed);
    join_all(speakers).await;
    for node in nodes.iter() {
        assert_eq!(metric(node, "mesh_unconfirmed_total "), 0);
        assert_eq!(metric(node, "mesh_dropped_total{reason=\"full\"}"), 0);
    }
}

/// The topics that one node has joined.
type Joined = BTreeSet<String>;

/// One node after the other says something on each topic; whoever has joined that must hear it.
async fn all_heard(nodes: &[Node], joined: &[Joined], round: u64) {
    let topics: Joined = joined.iter().flatten().cloned().collect();
    for (from, node) in nodes.iter().enumerate() {
        topics
            .iter()
            .for_each(|topic| node.say_on(topic, "msg", &format!("{round} {topic} {from}")));
    }
    for (at, topics) in joined.iter().enumerate() {
        for from in (0..nodes.len()).filter(|from| *from != at) {
            for topic in topics {
                let text = format!("{round} {topic} {from}");
                until(&format!("node {at} hears {text}"), || nodes[at].has_heard(&text)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn joins_and_leaves_while_links_are_cut_lose_nothing_once_they_are_up() {
    let nodes = routed([Interest; 3]).await;
    let mut joined = vec![Joined::new(); 3];
    for round in 0..60 {
        let mut rng = StdRng::seed_from_u64(round);
        let before = nodes.iter().map(ended).collect::<Vec<_>>();
        let cut = (rng.random_range(0..3) > 0).then(|| rng.random_range(0..3_usize));
        let pause = Duration::from_micros(rng.random_range(0..4000));
        // A few topics that come and go, and one that is new.
        let mut joins = Vec::new();
        for (at, topics) in joined.iter_mut().enumerate() {
            for n in [rng.random_range(0..4), rng.random_range(0..4), 100 + round * 3 + at as u64] {
                let topic = format!("t{n}");
                if topics.remove(&topic) {
                    nodes[at].leave(&topic);
                } else {
                    joins.push((at, topic.clone(), nodes[at].mesh.subscribe(&(&*topic).into())));
                    topics.insert(topic);
                }
            }
            topics.iter().filter(|_| round % 8 == 7).for_each(|topic| nodes[at].leave(topic));
            if round % 8 == 7 {
                topics.clear();
            }
        }
        // Unless a link is cut, whoever has just joined hears what is said at that moment.
        let joins = joins.into_iter().map(|(at, topic, join)| {
            let (nodes, joined) = (&nodes, &joined);
            async move {
                join.await;
                if cut.is_some() || !joined[at].contains(&topic) {
                    return;
                }
                for (from, node) in nodes.iter().enumerate().filter(|(from, _)| *from != at) {
                    let text = format!("{round} {topic} {from} at once");
                    node.say_on(&topic, "msg", &text);
                    until(&format!("node {at} hears {text}"), || nodes[at].has_heard(&text)).await;
                }
            }
        });
        let links = async {
            tokio::time::sleep(pause).await;
            let Some(at) = cut else { return };
            nodes[at].links.cut();
            until("the others have noticed", || {
                (0..3).all(|other| other == at || ended(&nodes[other]) > before[other])
            })
            .await;
            until("linked again", || nodes.iter().all(|n| n.mesh.linked() == 2)).await;
        };
        let all = async { tokio::join!(join_all(joins), links) };
        timeout(BOUND * 3, all).await.expect("in time");
        all_heard(&nodes, &joined, round).await;
    }
    assert!(nodes.iter().all(|n| metric(n, "mesh_unconfirmed_total ") == 0));
    assert!(nodes.iter().all(|n| metric(n, "mesh_unwanted_total ") > 0), "they were routed");
}

/// Links of a node that have ended.
fn ended(node: &Node) -> u64 {
    let reasons = ["closed", "broken", "replaced", "silent", "goodbye"];
    reasons.map(|r| metric(node, &format!("mesh_links_ended_total{{reason=\"{r}\"}}"))).iter().sum()
}
