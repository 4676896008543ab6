use serde_json::{Value, json};
use sluice_node_api::config::{ChannelRule, JoinRule, LiveConfig};

use super::*;
use crate::serializer::Version;

/// A session and the driver's part in it: subscribing succeeds at once.
struct Client {
    session: Session,
    rules: Rules,
    now: Instant,
    /// What was to be counted.
    rejected: Vec<&'static str>,
}

impl Client {
    fn new(rules: Vec<ChannelRule>) -> Self {
        let live = LiveConfig { channels: rules, ..LiveConfig::default() };
        let (session, rules) = (Session::new(3), Rules::new(&live, "chat-0"));
        Self { session, rules, now: Instant::now(), rejected: Vec::new() }
    }

    fn room() -> Self {
        Self::new(vec![ChannelRule::room()])
    }

    /// What happens after `message`, effects as JSON: V2 arrays, or `{"subscribe": topic}` …
    fn send(&mut self, message: Value) -> Vec<Value> {
        let text = message.to_string();
        let message = Version::V2.decode(&text).expect("valid");
        let mut effects = Vec::new();
        self.session.receive(&message, &self.rules, self.now, &mut effects);
        effects.retain(|effect| match effect {
            Effect::Reject(word) => {
                self.rejected.push(word);
                false
            }
            _ => true,
        });
        if let Some(Effect::Subscribe(topic)) = effects.last() {
            let topic = topic.clone();
            self.session.subscribed(topic, &mut effects);
        }
        effects.iter().map(show).collect()
    }
}

fn show(effect: &Effect) -> Value {
    match effect {
        Effect::Send(message) => {
            let mut out = Vec::new();
            Version::V2.encode(message, &mut out).expect("JSON");
            serde_json::from_slice(&out).expect("JSON")
        }
        Effect::Subscribe(topic) => json!({ "subscribe": &**topic }),
        Effect::Unsubscribe(topic) => json!({ "unsubscribe": &**topic }),
        Effect::Reject(word) => json!({ "reject": word }),
        Effect::Publish { broadcast, to_sender } => json!({
            "publish": &*broadcast.topic,
            "event": &*broadcast.event,
            "payload": serde_json::from_slice::<Value>(&broadcast.payload).expect("JSON"),
            "to_sender": to_sender,
        }),
    }
}

fn ok(join_ref: Value, reference: Value, topic: &str) -> Value {
    json!([join_ref, reference, topic, "phx_reply", {"status": "ok", "response": {}}])
}

fn error(join_ref: Value, reference: Value, topic: &str, reason: &str) -> Value {
    let payload = json!({"status": "error", "response": {"reason": reason}});
    json!([join_ref, reference, topic, "phx_reply", payload])
}

fn joined(client: &mut Client, join_ref: &str) {
    let replies = client.send(json!([join_ref, join_ref, "room:1", "phx_join", {}]));
    assert_eq!(
        replies,
        [json!({"subscribe": "room:1"}), ok(json!(join_ref), json!(join_ref), "room:1")]
    );
}

#[test]
fn p_hb_1_heartbeat_is_answered_and_other_events_there_are_unmatched() {
    let mut client = Client::room();
    let replies = client.send(json!([null, "9", "phoenix", "heartbeat", {}]));
    assert_eq!(replies, [ok(json!(null), json!("9"), "phoenix")]);
    let replies = client.send(json!(["1", "9", "phoenix", "phx_join", {}]));
    assert_eq!(replies, [error(json!(null), json!("9"), "phoenix", "unmatched topic")]);
}

#[test]
fn a_rule_without_events_lets_a_client_push_none_and_one_that_does_not_say_lets_it_push_any() {
    for (rule, allowed) in [("{topic: a, events: []}", false), ("{topic: a}", true)] {
        let rule: ChannelRule = serde_saphyr::from_str(rule).expect("a rule");
        let again = serde_json::to_string(&rule).expect("JSON");
        assert_eq!(serde_json::from_str::<ChannelRule>(&again).expect("a rule"), rule);
        let mut client = Client::new(vec![rule]);
        client.send(json!(["1", "1", "a", "phx_join", {}]));
        for event in ["none", "say", "*", ""] {
            let replies = client.send(json!(["1", "2", "a", event, {}]));
            let refused = [error(json!("1"), json!("2"), "a", "event not allowed")];
            assert_eq!(replies != refused, allowed, "{event}: {replies:?}");
        }
    }
}

#[test]
fn p_join_1_the_first_rule_that_matches_counts() {
    let exact =
        ChannelRule { topic: "room:1".into(), events: vec!["a".into()], ..ChannelRule::room() };
    let mut client = Client::new(vec![exact, ChannelRule::room()]);
    joined(&mut client, "1");
    let replies = client.send(json!(["1", "2", "room:1", "b", {}]));
    assert_eq!(replies, [error(json!("1"), json!("2"), "room:1", "event not allowed")]);
    let replies = client.send(json!(["1", "3", "lobby", "phx_join", {}]));
    assert_eq!(replies, [error(json!(null), json!("3"), "lobby", "unmatched topic")]);
    let long = format!("room:{}", "x".repeat(255));
    let replies = client.send(json!(["1", "4", long, "phx_join", {}]));
    assert_eq!(replies, [error(json!(null), json!("4"), &long, "unmatched topic")]);
}

#[test]
fn p_join_2_the_reply_follows_the_subscription_and_may_name_the_node() {
    let rule = ChannelRule { announce_node: true, ..ChannelRule::room() };
    let mut client = Client::new(vec![rule]);
    let replies = client.send(json!(["1", "2", "room:1", "phx_join", {}]));
    let payload = json!({"status": "ok", "response": {"node": "chat-0"}});
    let reply = json!(["1", "2", "room:1", "phx_reply", payload]);
    assert_eq!(replies, [json!({"subscribe": "room:1"}), reply]);
    assert_eq!(client.session.channels(), 1);
}

#[test]
fn p_join_4_with_a_null_join_ref_later_replies_carry_the_ref() {
    let mut client = Client::room();
    let replies = client.send(json!([null, "5", "room:1", "phx_join", {}]));
    assert_eq!(replies[1], ok(json!(null), json!("5"), "room:1"));
    let replies = client.send(json!([null, "6", "room:1", "hi", {}]));
    assert_eq!(replies[1], ok(json!("5"), json!("6"), "room:1"));
    let replies = client.send(json!([null, "7", "room:1", "phx_leave", {}]));
    assert_eq!(replies[1], ok(json!("5"), json!("7"), "room:1"));
    assert_eq!(replies[2], json!([null, null, "room:1", "phx_close", {}]));
}

#[test]
fn p_join_5_duplicate_join_replies_before_old_close() {
    let mut client = Client::room();
    joined(&mut client, "1");
    let replies = client.send(json!(["4", "5", "room:1", "phx_join", {}]));
    let close = json!(["1", "1", "room:1", "phx_close", {}]);
    assert_eq!(replies, [ok(json!("4"), json!("5"), "room:1"), close]);
    assert_eq!(client.send(json!(["1", "6", "room:1", "hi", {}])), [] as [Value; 0]);
    assert_eq!(client.session.channels(), 1);
}

#[test]
fn p_push_1_a_push_with_equal_or_null_join_ref_is_broadcast_then_answered() {
    let mut client = Client::room();
    joined(&mut client, "1");
    for join_ref in [json!("1"), json!(null)] {
        let replies = client.send(json!([join_ref, "2", "room:1", "hi", {"a": [1, null]}]));
        let publish = json!({
            "publish": "room:1", "event": "hi", "payload": {"a": [1, null]}, "to_sender": true
        });
        assert_eq!(replies, [publish, ok(json!("1"), json!("2"), "room:1")], "P-BC-5");
    }
}

#[test]
fn p_push_2_a_stale_push_is_dropped_silently() {
    let mut client = Client::room();
    joined(&mut client, "1");
    assert_eq!(client.send(json!(["0", "2", "room:1", "hi", {}])), [] as [Value; 0]);
    assert_eq!(client.send(json!([1, "2", "room:1", "hi", {}])), [] as [Value; 0]);
}

#[test]
fn p_push_3_a_push_to_an_unjoined_topic_is_refused_with_a_null_join_ref() {
    let mut client = Client::room();
    let replies = client.send(json!(["1", 2, "room:1", "hi", {}]));
    assert_eq!(replies, [error(json!(null), json!(2), "room:1", "unmatched topic")]);
}

#[test]
fn p_push_4_a_null_ref_gets_a_null_ref_reply() {
    let mut client = Client::room();
    joined(&mut client, "1");
    let replies = client.send(json!(["1", null, "room:1", "hi", {}]));
    assert_eq!(replies[1], ok(json!("1"), json!(null), "room:1"));
}

#[test]
fn what_the_rule_forbids_is_refused_with_the_reason() {
    let rule = ChannelRule { max_payload_bytes: 10, include_sender: false, ..ChannelRule::room() };
    let mut client = Client::new(vec![rule]);
    joined(&mut client, "1");
    let mut refused = |payload: Value| {
        let replies = client.send(json!(["1", "2", "room:1", "hi", payload]));
        replies[0][4]["response"]["reason"].as_str().map(str::to_owned)
    };
    let too_large = Some("payload too large, at most 10 bytes".to_owned());
    assert_eq!(refused(json!({"a": "12345"})), too_large);
    let no_object = Some("payload must be an object".to_owned());
    for payload in [json!([1]), json!(null), json!("{}"), json!(1)] {
        assert_eq!(refused(payload.clone()), no_object, "{payload}");
    }
    let replies = client.send(json!(["1", "2", "room:1", "hi", {}]));
    assert_eq!(replies[0]["to_sender"], json!(false), "P-BC-2");
}

#[test]
fn a_client_cannot_broadcast_the_servers_own_events() {
    let mut client = Client::room();
    joined(&mut client, "1");
    for event in ["phx_close", "phx_error", "phx_reply", "disconnect"] {
        let replies = client.send(json!(["1", "2", "room:1", event, {}]));
        assert_eq!(replies, [error(json!("1"), json!("2"), "room:1", "event not allowed")]);
    }
}

#[test]
fn p_leave_1_leave_is_answered_then_closed() {
    let mut client = Client::room();
    joined(&mut client, "1");
    let replies = client.send(json!(["1", "2", "room:1", "phx_leave", {}]));
    let close = json!(["1", "1", "room:1", "phx_close", {}]);
    let gone = json!({"unsubscribe": "room:1"});
    assert_eq!(replies, [gone, ok(json!("1"), json!("2"), "room:1"), close]);
    let replies = client.send(json!(["1", "3", "room:1", "hi", {}]));
    assert_eq!(
        replies,
        [error(json!(null), json!("3"), "room:1", "unmatched topic")],
        "P-ERR-2: after a close the topic is unjoined"
    );
}

#[test]
fn p_leave_2_a_stale_leave_is_ignored_and_an_unjoined_one_is_ok() {
    let mut client = Client::room();
    joined(&mut client, "1");
    assert_eq!(client.send(json!(["0", "2", "room:1", "phx_leave", {}])), [] as [Value; 0]);
    let replies = client.send(json!(["1", "2", "room:2", "phx_leave", {}]));
    assert_eq!(replies, [ok(json!("1"), json!("2"), "room:2")]);
}

#[test]
fn p_con_11_too_many_channels_but_a_joined_topic_may_be_joined_again() {
    let mut client = Client::room();
    for topic in ["room:1", "room:2", "room:3"] {
        assert_eq!(client.send(json!(["1", "1", topic, "phx_join", {}])).len(), 2);
    }
    let replies = client.send(json!(["1", "1", "room:4", "phx_join", {}]));
    assert_eq!(replies, [error(json!("1"), json!("1"), "room:4", "too many channels joined")]);
    assert_eq!(client.send(json!(["2", "2", "room:3", "phx_join", {}])).len(), 2);
    client.send(json!(["1", "3", "room:1", "phx_leave", {}]));
    assert_eq!(client.send(json!(["1", "1", "room:4", "phx_join", {}])).len(), 2);
}

#[test]
fn p_bin_6_an_empty_join_ref_is_stale() {
    let mut client = Client::room();
    joined(&mut client, "1");
    let mut effects = Vec::new();
    for (bytes, answers) in
        [(&b"\0\0\x01\x06\x012room:1e\xff"[..], 0), (b"\0\x01\x01\x06\x0112room:1e\xff", 2)]
    {
        let message = Version::V2.decode_binary(bytes).expect("valid");
        client.session.receive(&message, &client.rules, client.now, &mut effects);
        assert_eq!(effects.len(), answers);
    }
    let Effect::Publish { broadcast, .. } = &effects[0] else { panic!("{:?}", effects[0]) };
    assert_eq!((broadcast.kind, &broadcast.payload[..]), (Kind::Binary, &[0xff][..]));
    assert_eq!(show(&effects[1]), ok(json!("1"), json!("2"), "room:1"), "P-BIN-8");
}

#[test]
fn a_join_is_refused_unless_a_claim_allows_it() {
    let join = |claim: Option<&str>, topics: &[&str]| {
        let topics = topics.iter().map(ToString::to_string).collect();
        Some(JoinRule { claim: claim.map(Into::into), topics })
    };
    let rule = |topic: &str, join| ChannelRule { topic: topic.into(), join, ..ChannelRule::room() };
    let rules = || {
        vec![
            rule("user:*", join(None, &["user:{sub}"])),
            rule("room:*", join(Some("rooms"), &[])),
            rule("public", None),
        ]
    };
    let claims = json!({"sub": "anna", "rooms": ["room:1", "room:a*"]});
    let identity = Identity::new(claims.as_object().unwrap());
    let mut anna = Client::new(rules());
    anna.session = Session::new(10);
    anna.session.identify(Some(Arc::new(identity)));
    let mut nobody = Client::new(rules());
    let join = |topic: &str| json!(["1", "2", topic, "phx_join", {}]);
    for (topic, admitted) in [
        ("user:anna", true),
        ("user:bert", false),
        ("room:1", true),
        ("room:2", false),
        ("room:abc", true),
        ("public", true),
    ] {
        let refused = vec![error("1".into(), "2".into(), topic, "unauthorized")];
        let got = anna.send(join(topic));
        assert_eq!(got != refused, admitted, "{topic} {got:?}");
        assert_eq!(nobody.send(join(topic)) != refused, topic == "public", "{topic}");
        // What was refused is not joined.
        let push = anna.send(json!(["1", "3", topic, "x", {}]));
        assert_eq!(push.last().unwrap()[4]["status"] == "ok", admitted, "{topic} {push:?}");
    }
    assert_eq!(anna.rejected, ["unauthorized"; 2]);
    assert_eq!(nobody.rejected, ["unauthorized"; 5]);
}

#[test]
fn messages_over_the_rate_are_refused_and_counted_and_each_channel_has_its_own() {
    let rule = ChannelRule { max_messages_per_second: Some(2), ..ChannelRule::room() };
    let mut client = Client::new(vec![rule]);
    for topic in ["room:1", "room:2"] {
        client.send(json!(["1", "1", topic, "phx_join", {}]));
    }
    let reason = "too many messages, at most 2 a second";
    let refused = error("1".into(), "2".into(), "room:1", reason);
    let over = |client: &mut Client, topic: &str| {
        client.send(json!(["1", "2", topic, "x", {}])) == [refused.clone()]
    };
    let got: Vec<_> = (0..4).map(|_| over(&mut client, "room:1")).collect();
    assert_eq!(got, [false, false, true, true]);
    assert!(!over(&mut client, "room:2"));
    client.now += std::time::Duration::from_millis(500);
    assert!(!over(&mut client, "room:1") && over(&mut client, "room:1"));
    assert_eq!(client.rejected, ["rate"; 3]);
}

#[test]
fn what_a_topic_has_left_outlives_its_channel_and_is_forgotten_once_it_is_whole() {
    let rule = ChannelRule { max_messages_per_second: Some(2), ..ChannelRule::room() };
    let mut client = Client::new(vec![rule]);
    let push = |client: &mut Client, topic: &str, ends: &str| {
        client.send(json!(["1", "1", topic, "phx_join", {}]));
        let told = client.send(json!(["1", "2", topic, "x", {}]));
        client.send(json!(["1", "3", topic, ends, {}]));
        told.last().unwrap()[4]["status"] == "ok"
    };
    for ends in ["phx_leave", "phx_join"] {
        let topic = format!("room:{ends}");
        let got: Vec<_> = (0..4).map(|_| push(&mut client, &topic, ends)).collect();
        assert_eq!(got, [true, true, false, false], "{ends}");
        assert!(push(&mut client, "room:other", "phx_leave"), "each topic has its own");
        client.now += std::time::Duration::from_secs(1);
        assert!(push(&mut client, &topic, ends) && push(&mut client, &topic, "phx_leave"));
        client.now += std::time::Duration::from_secs(1);
    }
    for n in 0..10_000 {
        assert!(push(&mut client, &format!("room:{n}"), "phx_leave"));
        client.now += std::time::Duration::from_millis(100);
    }
    assert!(client.session.paces().len() < 50, "{}", client.session.paces().len());
}
