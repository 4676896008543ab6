//! Channels of a program over real sockets, by the conformance app: joins, pushes, leaves, errors
//! and broadcasts. Each test names the rule that it stands for.

mod conformance;
mod plane;

use conformance::{ask, binary, join, joined, node, push, reply};
use futures::StreamExt;
use plane::{Client, Node, ok};
use serde_json::{Value, json};
use sluice_node::{
    channel::{self, Channel, Ctx, Handled, JoinError, Mount, Payload, Router},
    server::Builder,
};
use sluice_node_api::config::NodeConfig;
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

const CLOSE: &str = "phx_close";

#[tokio::test]
async fn p_join_1_the_first_pattern_that_matches_has_the_topic() {
    let node = node().await;
    let mut client = node.client().await;
    for topic in ["exact", "room:first"] {
        let route = json!({ "route": topic });
        let join = json!(["1", "2", topic, "phx_join", {}]);
        assert_eq!(ask(&mut client, join).await, reply("1".into(), "2".into(), topic, "ok", route));
    }
    join(&mut client, "room:late:x").await;
    let nowhere = ask(&mut client, json!(["1", "3", "nowhere", "phx_join", {}])).await;
    let unmatched = json!({"reason": "unmatched topic"});
    assert_eq!(nowhere, reply(Value::Null, "3".into(), "nowhere", "error", unmatched));
}

#[tokio::test]
async fn p_join_2_the_reply_comes_first_and_blocks_the_transport() {
    let node = node().await;
    let mut client = node.client().await;
    client
        .send(json!(["1", "1", "room:a", "phx_join", {"do": "slow", "ms": 50, "user": "anna"}]))
        .await;
    client.send(json!(["1", "2", "room:a", "echo", {"n": 1}])).await;
    assert_eq!(client.next().await, ok("1", "1", "room:a"));
    let entered = json!([null, null, "room:a", "user_entered", {"user": "anna"}]);
    assert_eq!(client.next().await, entered);
    assert_eq!(client.next().await[3], "joined");
    assert_eq!(client.next().await, reply("1".into(), "2".into(), "room:a", "ok", json!({"n": 1})));
}

#[tokio::test]
async fn p_join_3_p_bin_8_a_join_is_refused_crashes_or_is_answered_with_anything() {
    let node = node().await;
    let mut client = node.client().await;
    let join = |payload: Value| json!(["1", "1", "quiet:a", "phx_join", payload]);
    let refused = ask(&mut client, join(json!({"do": "refuse", "with": {"why": 1}}))).await;
    assert_eq!(refused, reply("1".into(), "1".into(), "quiet:a", "error", json!({"why": 1})));
    let crashed = ask(&mut client, join(json!({"do": "crash"}))).await;
    let reason = json!({"reason": "join crashed"});
    assert_eq!(crashed, reply("1".into(), "1".into(), "quiet:a", "error", reason));
    let unjoined = ask(&mut client, json!(["1", "2", "quiet:a", "echo", {}])).await;
    assert_eq!(unjoined[4]["response"]["reason"], "unmatched topic", "P-PUSH-3");
    let answered = ask(&mut client, join(json!({"do": "reply", "with": [1, "x"]}))).await;
    assert_eq!(answered, reply("1".into(), "1".into(), "quiet:a", "ok", json!([1, "x"])));
    client.send(json!(["2", "2", "quiet:b", "phx_join", {"do": "binary"}])).await;
    let bytes = binary(&[1], &["2", "2", "quiet:b", "ok"], &[9, 9]);
    assert_eq!(client.message().await, Message::binary(bytes));
    for payload in [json!(null), json!(7), json!("x"), json!([])] {
        let again = ask(&mut client, json!(["3", "3", "quiet:c", "phx_join", payload])).await;
        assert_eq!(again, ok("3", "3", "quiet:c"));
        client.send(json!(["3", "4", "quiet:c", "phx_leave", {}])).await;
        assert_eq!(client.next().await, ok("3", "4", "quiet:c"));
        assert_eq!(client.next().await[3], CLOSE);
    }
}

#[tokio::test]
async fn p_v2_3_p_bc_6_what_is_no_object_and_no_bytes_is_neither_pushed_nor_broadcast() {
    let node = node().await;
    let (mut client, mut other) = (node.client().await, node.client().await);
    other.join("quiet:a").await;
    for event in ["push_me", "broadcast"] {
        client.join("quiet:a").await;
        client.send(json!(["1", "2", "quiet:a", event, [1]])).await;
        let crashed = json!(["1", "2", "quiet:a", "phx_error", {}]);
        let told = client.next().await;
        assert_eq!((&told[2], &told[3]), (&crashed[2], &crashed[3]), "{told}");
        other.is_quiet().await;
    }
}

#[tokio::test]
async fn p_join_4_a_null_join_ref_is_null_at_the_ends_and_the_ref_between() {
    let node = node().await;
    let mut client = node.client().await;
    let joined = ask(&mut client, json!([null, 7, "quiet:a", "phx_join", {}])).await;
    assert_eq!(joined, reply(Value::Null, 7.into(), "quiet:a", "ok", json!({})));
    let pushed = ask(&mut client, json!([null, 8, "quiet:a", "push_me", {"x": 1}])).await;
    assert_eq!(pushed, json!([7, null, "quiet:a", "pushed", {"x": 1}]));
    let left = ask(&mut client, json!([7, 9, "quiet:a", "phx_leave", {}])).await;
    assert_eq!(left, reply(7.into(), 9.into(), "quiet:a", "ok", json!({})));
    assert_eq!(client.next().await, json!([null, null, "quiet:a", CLOSE, {}]));
}

#[tokio::test]
async fn p_join_5_a_second_join_is_answered_before_the_first_closes() {
    let node = node().await;
    let mut client = joined(&node, "quiet:a").await;
    // It is in the middle of something, which a duplicate does not wait for.
    client.send(json!(["1", "2", "quiet:a", "sleep", {"ms": 60_000}])).await;
    let again = ask(&mut client, json!(["5", "6", "quiet:a", "phx_join", {}])).await;
    assert_eq!(again, ok("5", "6", "quiet:a"));
    assert_eq!(client.next().await, json!(["1", "1", "quiet:a", CLOSE, {}]));
    client.send(json!(["1", "7", "quiet:a", "echo", {}])).await;
    let null = ask(&mut client, json!([null, "8", "quiet:a", "echo", {"n": 1}])).await;
    assert_eq!(null, reply("5".into(), "8".into(), "quiet:a", "ok", json!({"n": 1})), "P-PUSH-2");
}

#[tokio::test]
async fn p_push_4_replies_come_none_late_and_often_and_channels_do_not_wait() {
    let node = node().await;
    let mut client = joined(&node, "quiet:a").await;
    join(&mut client, "quiet:b").await;
    client.send(json!(["1", "2", "quiet:a", "later", {"ms": 20, "times": 2}])).await;
    client.send(json!(["1", "3", "quiet:a", "silent", {}])).await;
    client.send(json!(["1", "4", "quiet:a", "ack", {}])).await;
    let mut n = 0;
    for _ in 0..3 {
        let came = client.next().await;
        if came[1] == "4" {
            assert_eq!(came, ok("1", "4", "quiet:a"));
        } else {
            n += 1;
            let response = json!({"ms": 20, "times": 2, "n": n});
            assert_eq!(came, reply("1".into(), "2".into(), "quiet:a", "ok", response));
        }
    }
    assert_eq!(n, 2);
    client.send(json!(["1", "5", "quiet:a", "sleep", {"ms": 1000}])).await;
    client.send(json!(["1", null, "quiet:a", "echo", {}])).await;
    let other = ask(&mut client, json!(["1", "6", "quiet:b", "fail", {"x": 1}])).await;
    assert_eq!(other, reply("1".into(), "6".into(), "quiet:b", "error", json!({"x": 1})));
    assert_eq!(client.next().await[1], "5");
    assert_eq!(client.next().await, reply("1".into(), Value::Null, "quiet:a", "ok", json!({})));
}

#[tokio::test]
async fn p_push_4_a_reply_that_is_asked_for_no_time_never_comes() {
    let node = node().await;
    let mut client = joined(&node, "quiet:a").await;
    client.send(json!(["1", "2", "quiet:a", "later", {"ms": 1, "times": 0}])).await;
    // It would come long before this one.
    let last = ask(&mut client, json!(["1", "3", "quiet:a", "later", {"ms": 100}])).await;
    let response = json!({"ms": 100, "n": 1});
    assert_eq!(last, reply("1".into(), "3".into(), "quiet:a", "ok", response));
}

#[tokio::test]
async fn p_v2_3_json_comes_back_as_it_was_written_at_any_depth() {
    let node = node().await;
    let mut client = joined(&node, "quiet:a").await;
    // Each is more than a machine's word, or than most parsers take.
    let deep = format!("{}1{}", "[".repeat(1000), "]".repeat(1000));
    let big = r#"{"x":12345678901234567890123,"y":0.1234567890123456789012}"#;
    let user = format!(r#"{{"topic":"quiet:a","event":"said","payload":{big}}}"#);
    let later = format!(r#"{{"ms":0,"with":{big}}}"#);
    let say = async |event: &str, payload: &str, client: &mut Client| {
        let text = format!(r#"["1","2","quiet:a","{event}",{payload}]"#);
        client.raw(Message::text(text)).await;
        let answer = client.message().await.into_text().expect("text").to_string();
        assert!(!answer.contains("phx_error"), "{event}");
        answer
    };
    for payload in [&deep, big] {
        assert!(say("echo", payload, &mut client).await.contains(payload));
        assert!(say("fail", payload, &mut client).await.contains(payload));
    }
    assert!(say("later", &later, &mut client).await.contains(big));
    for (event, payload) in [("push_me", big), ("publish", &user), ("broadcast", big)] {
        assert!(say(event, payload, &mut client).await.contains(big), "{event}");
        if event != "push_me" {
            assert_eq!(client.next().await, ok("1", "2", "quiet:a"));
        }
    }
    say("new_msg", big, &mut client).await;
    let news = client.message().await.into_text().expect("text");
    assert!(news.contains(r#""x":12345678901234567890123"#), "{news}");
    for (what, status) in [("reply", "ok"), ("refuse", "error")] {
        let join = format!(r#"["3","3","quiet:b","phx_join",{{"do":"{what}","with":{big}}}]"#);
        client.raw(Message::text(join)).await;
        let answer = client.message().await.into_text().expect("text");
        assert!(answer.contains(big) && answer.contains(status), "{answer}");
    }
}

#[tokio::test]
async fn p_leave_1_p_close_1_an_end_is_answered_then_closed_and_last_words_may_follow() {
    let node = node().await;
    let mut client = joined(&node, "room:a").await;
    assert_eq!(
        ask(&mut client, json!(["1", "2", "room:a", "phx_leave", {}])).await,
        ok("1", "2", "room:a")
    );
    assert_eq!(client.next().await, json!(["1", "1", "room:a", CLOSE, {}]));
    assert_eq!(client.next().await, json!(["1", null, "room:a", "you_left", {"message": "bye!"}]));
    join(&mut client, "room:a").await;
    let bye = ask(&mut client, json!(["1", "3", "room:a", "stop", {"reply": true}])).await;
    assert_eq!(bye, reply("1".into(), "3".into(), "room:a", "ok", json!({"bye": true})));
    assert_eq!(client.next().await[3], CLOSE);
    assert_eq!(client.next().await[3], "you_left");
    let unjoined = ask(&mut client, json!(["1", "4", "room:a", "echo", {}])).await;
    assert_eq!(unjoined[4]["response"]["reason"], "unmatched topic", "P-ERR-2");
}

#[tokio::test]
async fn p_err_1_p_err_3_p_push_5_a_crash_is_that_channels_alone() {
    let node = node().await;
    let mut client = joined(&node, "quiet:b").await;
    for event in ["boom", "vanish", "nothing", "phx_error", "phx_reply"] {
        join(&mut client, "quiet:a").await;
        let error = ask(&mut client, json!(["1", "2", "quiet:a", event, {}])).await;
        let want = json!(["1", "1", "quiet:a", "phx_error", {"reason": "channel_crash"}]);
        assert_eq!(error, want, "{event}");
    }
    let other = ask(&mut client, json!(["1", "3", "quiet:b", "ack", {}])).await;
    assert_eq!(other, ok("1", "3", "quiet:b"));
}

#[tokio::test]
async fn p_bc_5_a_plain_broadcast_precedes_the_reply_and_an_intercepted_one_follows() {
    let node = node().await;
    let mut client = joined(&node, "quiet:a").await;
    let mut other = joined(&node, "quiet:a").await;
    let shout = json!([null, null, "quiet:a", "shout", {"x": 1}]);
    assert_eq!(ask(&mut client, json!(["1", "2", "quiet:a", "broadcast", {"x": 1}])).await, shout);
    assert_eq!(client.next().await, ok("1", "2", "quiet:a"));
    assert_eq!(other.next().await, shout, "P-BC-1");
    let replied = ask(&mut client, json!(["1", "3", "quiet:a", "new_msg", {"x": 1}])).await;
    assert_eq!(replied, ok("1", "3", "quiet:a"));
    let news = json!(["1", null, "quiet:a", "new_msg", {"x": 1, "transport": "websocket"}]);
    assert_eq!(client.next().await, news, "P-BC-4");
    assert_eq!(other.next().await, news);
    let replied = ask(&mut client, json!(["1", "4", "quiet:a", "broadcast_from", {"x": 1}])).await;
    assert_eq!(replied, ok("1", "4", "quiet:a"), "P-BC-2");
    assert_eq!(other.next().await, shout);
    assert_eq!(
        ask(&mut client, json!(["1", "5", "quiet:a", "broadcast_local", {"x": 1}])).await,
        shout
    );
    assert_eq!(other.next().await, shout);
}

#[tokio::test]
async fn p_bc_3_a_broadcast_passes_by_channels_that_are_busy() {
    let node = node().await;
    let (mut busy, mut other) = (joined(&node, "quiet:a").await, joined(&node, "quiet:a").await);
    busy.send(json!(["1", "2", "quiet:a", "sleep", {"ms": 60_000}])).await;
    busy.is_quiet().await;
    let said = ask(&mut other, json!(["1", "2", "quiet:a", "new_msg", {}])).await;
    assert_eq!(said, ok("1", "2", "quiet:a"));
    assert_eq!(other.next().await[3], "new_msg");
    other.send(json!(["1", "3", "quiet:a", "broadcast_from", {"x": 1}])).await;
    // Not what is intercepted, which waits for the channel, nor a reply of it.
    let shout = json!([null, null, "quiet:a", "shout", {"x": 1}]);
    assert_eq!(busy.next().await, shout);
    busy.is_quiet().await;
}

#[tokio::test]
async fn p_bin_1_to_4_bytes_go_both_ways() {
    let node = node().await;
    let mut client = joined(&node, "quiet:a").await;
    let say = async |event: &str, client: &mut Client| {
        client.raw(Message::binary(push("1", "2", "quiet:a", event, &[1, 2]))).await;
        client.message().await
    };
    let echoed = binary(&[1], &["1", "2", "quiet:a", "ok"], &[1, 2]);
    assert_eq!(say("echo", &mut client).await, Message::binary(echoed));
    let pushed = binary(&[0], &["1", "quiet:a", "pushed"], &[1, 2]);
    assert_eq!(say("push_me", &mut client).await, Message::binary(pushed));
    let shouted = binary(&[2], &["quiet:a", "shout"], &[1, 2]);
    assert_eq!(say("broadcast", &mut client).await, Message::binary(shouted));
    assert_eq!(client.next().await, ok("1", "2", "quiet:a"), "P-BIN-8");
    let event = binary(&[0], &["1", "quiet:a", "binary_event"], &[0, 1]);
    assert_eq!(say("binary_event", &mut client).await, Message::binary(event));
    let answer = binary(&[1], &["1", "2", "quiet:a", "ok"], &[1, 2, 3, 4]);
    assert_eq!(client.message().await, Message::binary(answer));
}

#[tokio::test]
async fn p_v1_2_objects_without_a_join_ref() {
    let node = node().await;
    let url = format!("ws://{}/socket/websocket", node.address);
    let mut client = Client::connect(&url).await.expect("V1 is the default");
    client.send(json!({"topic": "quiet:a", "event": "phx_join", "payload": {}, "ref": "1"})).await;
    let ok = json!({"topic": "quiet:a", "event": "phx_reply", "ref": "1",
        "payload": {"status": "ok", "response": {}}});
    assert_eq!(client.next().await, ok);
    client
        .send(json!({"topic": "quiet:a", "event": "push_me", "payload": {"x": 1}, "ref": "2"}))
        .await;
    let pushed = json!({"topic": "quiet:a", "event": "pushed", "payload": {"x": 1}, "ref": null});
    assert_eq!(client.next().await, pushed);
}

#[tokio::test]
async fn p_con_10_a_channel_disconnects_the_sockets_of_a_user() {
    let node = node().await;
    let url = format!("{}&user=anna", node.url());
    let mut anna = Client::connect(&url).await.expect("let in");
    join(&mut anna, "quiet:a").await;
    let mut other = joined(&node, "quiet:a").await;
    let away = json!({"topic": "users:anna", "event": "disconnect"});
    let replied = ask(&mut other, json!(["1", "2", "quiet:a", "publish", away])).await;
    assert_eq!(replied, ok("1", "2", "quiet:a"));
    assert_eq!(anna.close_code().await, Some(1001));
}

/// Panics wherever it is asked to.
struct Panics;

impl Channel for Panics {
    type Info = ();

    async fn join(payload: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
        assert!(payload.value()?.is_object(), "on purpose");
        Ok((Self, Payload::empty()))
    }

    async fn handle_in(&mut self, message: channel::Message, ctx: &Ctx) -> Handled {
        ctx.push("before", message.payload)?;
        panic!("on purpose")
    }
}

#[tokio::test]
async fn p_join_3_p_err_1_a_panic_is_that_channels_alone() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let mount = Mount::open("/socket").channels(Router::new().channel::<Panics>("*"));
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(mount).shards(1);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub, address, shutdown };
    let mut client = joined(&node, "one").await;
    let refused = ask(&mut client, json!(["2", "2", "two", "phx_join", null])).await;
    assert_eq!(refused[4]["response"]["reason"], "join crashed");
    join(&mut client, "three").await;
    assert_eq!(ask(&mut client, json!(["1", "3", "three", "x", {}])).await[3], "before");
    let reason = json!({"reason": "channel_crash"});
    assert_eq!(client.next().await, json!(["1", "1", "three", "phx_error", reason]));
    assert_eq!(ask(&mut client, json!(["1", "4", "one", "x", {}])).await[3], "before");
}

/// A join of it never comes to an end.
struct Hangs;

impl Channel for Hangs {
    type Info = ();

    async fn join(_: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_join_that_hangs_is_answered_in_the_end_and_its_socket_goes_on() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let router = Router::new().channel::<Hangs>("hang").channel::<Panics>("*");
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(Mount::open("/socket").channels(router)).shards(1);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub, address, shutdown };
    let mut client = joined(&node, "one").await;
    client.send(json!(["2", "2", "hang", "phx_join", {}])).await;
    client.send(json!(["1", "3", "one", "phx_leave", {}])).await;
    let came = tokio::time::timeout(3 * plane::PATIENCE, client.0.next()).await;
    let came = came.expect("an answer").expect("open").expect("valid");
    let came: Value = serde_json::from_str(came.to_text().expect("text")).expect("JSON");
    let reason = json!({"reason": "join crashed"});
    assert_eq!(came, reply("2".into(), "2".into(), "hang", "error", reason));
    assert_eq!(client.next().await, ok("1", "3", "one"), "what came after it");
}
