//! What the publish API lists, over real HTTP and on two nodes.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod support;

use serde_json::{Value, json};
use sluice_node::run::Node;
use support::*;

const RULES: &str = "\
channels:
  - {topic: 'room:*', presence: {keyParam: user}}
  - {topic: 'plain:*'}
";

/// Asks who is on a topic; `query` is what follows `/api/presence?`.
async fn presence(node: &Node, query: &str) -> (u16, Value) {
    let url = format!("http://{}/api/presence?{query}", node.addresses.publish);
    once_started(async || call("GET", &url, Some(PUBLISH_TOKEN), None).await).await
}

/// The keys of all pages of `limit`, and how many metas they have.
async fn keys(node: &Node, topic: &str, limit: usize) -> Vec<(String, usize)> {
    let (mut keys, mut query) = (Vec::new(), format!("topic={topic}&limit={limit}"));
    loop {
        let (status, page) = presence(node, &query).await;
        assert_eq!(status, 200, "{page}");
        let presences = page["presences"].as_array().unwrap();
        assert!(presences.len() <= limit, "{page}");
        for presence in presences {
            let metas = presence["metas"].as_array().unwrap();
            assert!(metas.iter().all(|meta| meta["phx_ref"].is_string()), "{page}");
            keys.push((presence["key"].as_str().unwrap().to_owned(), metas.len()));
        }
        let Some(next) = page["next"].as_str() else { return keys };
        query = format!("topic={topic}&limit={limit}&after={next}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn presence_of_both_nodes_is_listed_by_each_in_pages() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("live.yaml"), RULES).unwrap();
    let (a, b) = pair(&dir).await;
    let mut clients = Vec::new();
    for (node, user) in [(&a, "anna"), (&b, "bert"), (&a, "cleo"), (&b, "anna")] {
        clients.push(Client::join_as(node, "room:1", user).await);
    }
    let want = [("anna".to_owned(), 2), ("bert".to_owned(), 1), ("cleo".to_owned(), 1)];
    for node in [&a, &b] {
        let end = std::time::Instant::now() + BOUND;
        while keys(node, "room:1", 100).await != want {
            assert!(std::time::Instant::now() < end, "{:?}", keys(node, "room:1", 100).await);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        for limit in [1, 2, 3] {
            assert_eq!(keys(node, "room:1", limit).await, want, "in pages of {limit}");
        }
    }
    let nobody = json!({"topic": "room:2", "presences": []});
    assert_eq!(presence(&a, "topic=room:2").await, (200, nobody));
    drop(Client::join(&a, "plain:1").await);
    for topic in ["plain:1", "other"] {
        let (status, told) = presence(&a, &format!("topic={topic}")).await;
        assert_eq!(status, 422, "{topic}");
        assert!(told["error"].as_str().unwrap().contains("set `presence`"), "{told}");
    }
    let url = format!("http://{}/api/presence?topic=room:1", a.addresses.publish);
    assert_eq!(call("GET", &url, None, None).await.0, 401);
    drop(clients);
    tokio::join!(end(a), end(b));
}
