//! Presence over real sockets, on one node and on a cluster of two, by the conformance app.

mod conformance;
mod plane;

use std::time::Duration;

use conformance::{ask, joined, link, node, pair, reply};
use plane::{Client, Node, ok};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const TOPIC: &str = "presence:a";

/// Joins as `key`; gives the client and its `phx_ref`, the diff and the state being read.
async fn present(node: &Node, key: &str) -> (Client, Value) {
    let mut client = node.client().await;
    let join = json!(["1", "1", TOPIC, "phx_join", {"key": key, "meta": {"name": key}}]);
    assert_eq!(ask(&mut client, join).await, ok("1", "1", TOPIC));
    let diff = client.next().await;
    let reference = diff[4]["joins"][key]["metas"][0]["phx_ref"].clone();
    let metas = json!({"metas": [{"name": key, "phx_ref": reference}]});
    assert_eq!(
        diff,
        json!([null, null, TOPIC, "presence_diff", {"joins": {key: metas}, "leaves": {}}])
    );
    let state = client.next().await;
    assert_eq!((&state[0], &state[3]), (&json!("1"), &json!("presence_state")), "P-PRES-1");
    let held = state[4][key]["metas"].as_array().expect("metas");
    assert!(held.contains(&metas["metas"][0]), "{held:?}");
    assert_eq!(reference.as_str().map(str::len), Some(16), "P-PRES-3");
    (client, reference)
}

async fn diff(client: &mut Client) -> Value {
    let diff = client.next().await;
    assert_eq!(diff[3], "presence_diff");
    diff[4].clone()
}

#[tokio::test]
async fn p_pres_1_to_5_track_update_untrack_and_list() {
    let node = node().await;
    let mut watcher = joined(&node, TOPIC).await;
    assert_eq!(watcher.next().await[4], json!({}), "the state at first");
    let (mut anna, first) = present(&node, "anna").await;
    let (mut other, _) = present(&node, "anna").await;
    assert_eq!(diff(&mut anna).await["joins"]["anna"]["metas"].as_array().map(Vec::len), Some(1));
    for _ in 0..2 {
        diff(&mut watcher).await;
    }
    let twice = json!(["1", "2", TOPIC, "track", {"key": "anna"}]);
    let refused = reply("1".into(), "2".into(), TOPIC, "error", json!({"reason": "presence"}));
    assert_eq!(ask(&mut anna, twice).await, refused, "P-PRES-8");
    let update = json!(["1", "3", TOPIC, "update", {"key": "anna", "meta": {"name": "ann"}}]);
    let change = ask(&mut anna, update).await[4].clone();
    let second = change["joins"]["anna"]["metas"][0]["phx_ref"].clone();
    let new = json!({"name": "ann", "phx_ref": second, "phx_ref_prev": first});
    assert_eq!(change["joins"], json!({"anna": {"metas": [new]}}));
    assert_eq!(change["leaves"], json!({"anna": {"metas": [{"name": "anna", "phx_ref": first}]}}));
    let answer = json!({ "phx_ref": second });
    assert_eq!(anna.next().await, reply("1".into(), "3".into(), TOPIC, "ok", answer));
    assert_eq!(diff(&mut watcher).await, change, "P-PRES-4");
    assert_eq!(diff(&mut other).await, change);
    let listed = ask(&mut other, json!(["1", "4", TOPIC, "list", {}])).await;
    assert_eq!(listed[4]["response"]["anna"]["metas"].as_array().map(Vec::len), Some(2));
    let number = json!(["1", "5", TOPIC, "track", {"key": 7}]);
    assert!(ask(&mut anna, number).await[4]["joins"]["7"].is_object(), "keys become strings");
    anna.next().await;
    let gone = ask(&mut anna, json!(["1", "6", TOPIC, "untrack", {"key": 7}])).await;
    assert!(gone[4]["leaves"]["7"].is_object());
    assert_eq!(anna.next().await, ok("1", "6", TOPIC));
    let again = ask(&mut anna, json!(["1", "7", TOPIC, "untrack", {"key": 7}])).await;
    assert_eq!(again, ok("1", "7", TOPIC), "tracked or not");
}

#[tokio::test]
async fn p_pres_6_ones_own_diff_comes_first_and_diffs_come_in_their_order_on_every_node() {
    const UPDATES: u64 = 100;
    let [(one, _mesh), (two, _other)] = pair().await;
    let (mut near, mut far) = (joined(&one, TOPIC).await, joined(&two, TOPIC).await);
    assert_eq!((&near.next().await[4], &far.next().await[4]), (&json!({}), &json!({})));
    // Its own diff precedes the state, as `present` asserts.
    let (mut anna, first) = present(&one, "anna").await;
    let mut held = Vec::new();
    for watcher in [&mut near, &mut far] {
        held.push(diff(watcher).await["joins"]["anna"]["metas"][0].take());
        assert_eq!(held.last().expect("one")["phx_ref"], first);
    }
    for n in 1..=UPDATES {
        let update = json!({"key": "anna", "meta": {"n": n}});
        anna.send(json!(["1", "2", TOPIC, "update", update])).await;
    }
    for (watcher, mut held) in [&mut near, &mut far].into_iter().zip(held) {
        while held["n"] != UPDATES {
            let change = diff(watcher).await;
            assert_eq!(change["leaves"]["anna"]["metas"], json!([held]), "what there was");
            let joins = &change["joins"]["anna"]["metas"];
            assert_eq!(joins[0]["phx_ref_prev"], held["phx_ref"]);
            assert!(joins[0]["n"].as_u64() > held["n"].as_u64(), "{joins} after {held}");
            held = joins[0].clone();
        }
    }
}

#[tokio::test]
async fn p_pres_7_the_end_of_a_channel_ends_its_presences_and_it_is_not_told() {
    let node = node().await;
    let mut watcher = joined(&node, TOPIC).await;
    watcher.next().await;
    for end in ["phx_leave", "vanish", "close"] {
        let (mut anna, reference) = present(&node, "anna").await;
        diff(&mut watcher).await;
        if end == "close" {
            drop(anna);
        } else {
            anna.send(json!(["1", "2", TOPIC, end, {}])).await;
            if end == "phx_leave" {
                assert_eq!(anna.next().await, ok("1", "2", TOPIC));
            }
            let last = anna.next().await;
            assert!(last[3] == "phx_close" || last[3] == "phx_error", "{last}");
            anna.is_quiet().await;
        }
        let metas = json!({"metas": [{"name": "anna", "phx_ref": reference}]});
        assert_eq!(diff(&mut watcher).await, json!({"joins": {}, "leaves": {"anna": metas}}));
    }
}

#[tokio::test]
async fn p_pres_7_nodes_tell_each_other_and_a_node_that_is_lost_leaves() {
    let [(one, mesh), (two, _mesh)] = pair().await;
    let mut watcher = joined(&two, TOPIC).await;
    watcher.next().await;
    let (_anna, reference) = present(&one, "anna").await;
    let metas = json!({"anna": {"metas": [{"name": "anna", "phx_ref": reference}]}});
    assert_eq!(diff(&mut watcher).await, json!({"joins": metas, "leaves": {}}));
    let listed = ask(&mut watcher, json!(["1", "2", TOPIC, "list", {}])).await;
    assert_eq!(listed[4]["response"], metas);
    mesh.leave(Duration::ZERO).await;
    assert_eq!(diff(&mut watcher).await, json!({"joins": {}, "leaves": metas}));
}

#[tokio::test]
async fn p_pres_7_a_node_that_comes_later_learns_in_portions_who_is_there() {
    const KEYS: usize = 1000;
    let (first, second) = (node().await, node().await);
    let mut crowd = joined(&first, TOPIC).await;
    crowd.next().await;
    // About 4 MB: some sixty portions.
    let name = "x".repeat(4000);
    for key in 0..KEYS {
        let asked = json!({"key": key, "meta": {"name": name}});
        assert_eq!(
            ask(&mut crowd, json!(["1", "2", TOPIC, "track", asked])).await[3],
            "presence_diff"
        );
        assert_eq!(crowd.next().await[4]["status"], "ok");
    }
    let mut watcher = joined(&second, TOPIC).await;
    assert_eq!(watcher.next().await[4], json!({}));
    let _links = link([&first, &second]).await;
    let keys = |presences: &Value| presences.as_object().map_or(0, serde_json::Map::len);
    assert_eq!(keys(&diff(&mut watcher).await["joins"]), KEYS, "at once, when all is there");
    let listed = ask(&mut watcher, json!(["1", "2", TOPIC, "list", {}])).await;
    assert_eq!(keys(&listed[4]["response"]), KEYS);
}

#[tokio::test]
async fn p_pres_8_a_meta_too_deep_for_other_nodes_is_refused_and_they_see_who_comes_next() {
    let [(one, _one), (two, _two)] = pair().await;
    let mut watcher = joined(&two, TOPIC).await;
    watcher.next().await;
    let mut deep = joined(&one, TOPIC).await;
    deep.next().await;
    // The node itself can still read it; what it would tell the other node has more around it.
    let meta = format!(r#"{{"x":{}{}}}"#, "[".repeat(124), "]".repeat(124));
    let track = format!(r#"["1","2","{TOPIC}","track",{{"key":"deep","meta":{meta}}}]"#);
    deep.raw(Message::text(track)).await;
    let refused = reply("1".into(), "2".into(), TOPIC, "error", json!({"reason": "presence"}));
    assert_eq!(deep.next().await, refused);
    let (_anna, reference) = present(&one, "anna").await;
    let metas = json!({"anna": {"metas": [{"name": "anna", "phx_ref": reference}]}});
    assert_eq!(diff(&mut watcher).await, json!({"joins": metas, "leaves": {}}));
}

#[tokio::test]
async fn p_bc_1_p_con_10_broadcasts_and_disconnects_reach_both_nodes() {
    let [(one, _one), (two, _two)] = pair().await;
    let mut here = joined(&one, "quiet:a").await;
    let url = format!("{}&user=anna", two.url());
    let mut there = Client::connect(&url).await.expect("let in");
    there.join("quiet:a").await;
    for (n, event) in ["broadcast", "broadcast_from"].into_iter().enumerate() {
        here.send(json!(["1", "2", "quiet:a", event, {"n": n}])).await;
        let shout = json!([null, null, "quiet:a", "shout", {"n": n}]);
        assert_eq!(there.next().await, shout);
    }
    here.send(json!(["1", "3", "quiet:a", "broadcast_local", {"n": 2}])).await;
    here.send(json!(["1", "4", "quiet:a", "new_msg", {"n": 3}])).await;
    let news = json!(["1", null, "quiet:a", "new_msg", {"n": 3, "transport": "websocket"}]);
    assert_eq!(there.next().await, news, "P-BC-6: the local one has not come");
    let away = json!({"topic": "users:anna", "event": "disconnect"});
    here.send(json!(["1", "5", "quiet:a", "publish", away])).await;
    assert_eq!(there.close_code().await, Some(1001));
}
