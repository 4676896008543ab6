use serde_json::{Value, json};

use super::*;
use crate::serializer::Version;

/// A session, and what it did, as lines.
struct Driver(Session);

impl Driver {
    fn new(max_channels: usize) -> Self {
        Self(Session::new(max_channels))
    }

    fn lines(effects: Vec<Effect>) -> Vec<String> {
        let line = |effect| match effect {
            Effect::Send(message) => {
                let mut text = Vec::new();
                Version::V2.encode(&message, &mut text).expect("JSON");
                String::from_utf8(text).expect("UTF-8")
            }
            Effect::Start { key, replaces: None, .. } => format!("start {key}"),
            Effect::Start { key, replaces: Some(old), .. } => format!("start {key} for {old}"),
            Effect::Deliver(key) => format!("deliver {key}"),
            Effect::Leave(key, _) => format!("leave {key}"),
            Effect::Stop(key) => format!("stop {key}"),
            Effect::Subscribe(topic) => format!("+{topic}"),
            Effect::Forget(topic) => format!("?{topic}"),
            Effect::Unsubscribe(topic) => format!("-{topic}"),
            Effect::Reject(word) => format!("reject {word}"),
            Effect::Drop(word) => format!("drop {word}"),
        };
        effects.into_iter().map(line).collect()
    }

    fn receive(&mut self, message: Value) -> Vec<String> {
        let text = message.to_string();
        let message = Version::V2.decode(&text).expect("a message");
        let mut effects = Vec::new();
        self.0.receive(&message, message.topic.starts_with('t'), &mut effects);
        Self::lines(effects)
    }

    fn word(&mut self, word: impl FnOnce(&mut Session, &mut Vec<Effect>)) -> Vec<String> {
        let mut effects = Vec::new();
        word(&mut self.0, &mut effects);
        Self::lines(effects)
    }

    /// Channel `key` pushes an event of `t` with a payload of so many bytes.
    fn says(&mut self, key: Key, bytes: usize) -> Vec<String> {
        let payload = format!(r#"{{"x":"{}"}}"#, "x".repeat(bytes.saturating_sub(8)));
        let message = Outgoing {
            join_ref: Ref::NULL,
            reference: Ref::NULL,
            topic: "t".into(),
            body: Body::Event("says".into(), Kind::Json, payload.into()),
        };
        self.word(|session, effects| session.says(key, message, effects))
    }

    fn joined(&mut self, key: Key, topic: &str, join_ref: &str) {
        self.receive(json!([join_ref, "1", topic, "phx_join", {}]));
        self.word(|session, effects| session.joined(key, ().into(), effects));
    }
}

const OK: &str = r#"{"status":"ok","response":{}}"#;

#[test]
fn p_join_5_the_new_join_is_answered_before_the_old_channel_closes() {
    let mut d = Driver::new(1);
    d.joined(1, "t", "1");
    assert_eq!(d.receive(json!(["2", "2", "t", "phx_join", {}])), ["start 2 for 1", "-t"]);
    assert!(d.0.is_joining());
    assert!(d.word(|s, e| s.ended(1, e)).is_empty(), "the old channel's end is no error");
    let close = r#"["1","1","t","phx_close",{}]"#.to_owned();
    let reply = format!(r#"["2","2","t","phx_reply",{OK}]"#);
    assert_eq!(d.word(|s, e| s.joined(2, ().into(), e)), ["+t".to_owned(), reply, close]);
    assert_eq!(d.receive(json!(["1", "3", "t", "event", {}])), [""; 0], "stale");
    assert_eq!(d.receive(json!([null, "3", "t", "event", {}])), ["deliver 2"]);
}

#[test]
fn p_join_5_a_refused_rejoin_leaves_the_topic_unjoined() {
    let mut d = Driver::new(1);
    d.joined(1, "t", "1");
    d.receive(json!(["2", "2", "t", "phx_join", {}]));
    let refused = d.word(|s, e| s.refused(2, json!({"no": 1}).into(), e));
    assert_eq!(refused[0], "?t");
    assert_eq!(refused[1], r#"["2","2","t","phx_reply",{"status":"error","response":{"no":1}}]"#);
    assert_eq!(refused[2], r#"["1","1","t","phx_close",{}]"#);
    assert!(d.receive(json!(["2", "3", "t", "event", {}]))[0].contains("unmatched topic"));
}

#[test]
fn p_join_2_p_join_5_what_a_replaced_channel_says_waits_for_the_reply_and_is_bounded() {
    let says = r#"[null,null,"t","says",{"x":""}]"#;
    for accepted in [true, false] {
        let mut d = Driver::new(2);
        d.joined(1, "t", "1");
        d.joined(2, "t2", "2");
        d.receive(json!(["3", "3", "t", "phx_join", {}]));
        assert!(d.says(1, 0).is_empty(), "it waits");
        assert_eq!(d.says(2, 0), [says], "another channel does not");
        assert_eq!(d.says(1, MAX_HELD), ["drop replaced"]);
        assert!(d.says(1, 0).is_empty());
        let said = d.word(|session, effects| match accepted {
            true => session.joined(3, ().into(), effects),
            false => session.refused(3, ().into(), effects),
        });
        assert!(said[1].starts_with(r#"["3","3","t","phx_reply""#), "{said:?}");
        assert_eq!(said[2..], [says, says, r#"["1","1","t","phx_close",{}]"#]);
        assert_eq!(d.says(1, 0), [says], "what comes later than its close is sent all the same");
    }
    let mut d = Driver::new(1);
    d.joined(1, "t", "1");
    d.receive(json!(["2", "2", "t", "phx_join", {}]));
    assert!(d.says(1, 2 * MAX_HELD).is_empty(), "a large one alone");
    assert_eq!(d.says(1, 0), ["drop replaced"]);
}

#[test]
fn p_join_5_a_rejoin_that_no_route_is_left_for_ends_the_channel() {
    let mut d = Driver::new(1);
    d.joined(1, "t", "1");
    let text = json!(["2", "2", "t", "phx_join", {}]).to_string();
    let message = Version::V2.decode(&text).expect("a message");
    let said = d.word(|session, effects| session.receive(&message, false, effects));
    assert!(said[0].starts_with(r#"[null,"2","t","phx_reply",{"status":"error""#), "{said:?}");
    assert_eq!(said[1..], ["stop 1", "-t", r#"["1","1","t","phx_close",{}]"#]);
    assert!(d.word(|s, e| s.ended(1, e)).is_empty(), "its end is no error");
    assert_eq!(d.0.channels(), 0);
}

#[test]
fn p_join_3_a_join_that_ends_without_an_answer_has_crashed() {
    let mut d = Driver::new(9);
    d.receive(json!(["1", "1", "t", "phx_join", {}]));
    let crashed = d.word(|s, e| s.ended(1, e));
    assert!(crashed[1].contains(r#"{"reason":"join crashed"}"#), "{crashed:?}");
    assert!(!d.0.is_joining());
}

#[test]
fn p_err_1_p_err_3_an_end_without_a_close_is_an_error() {
    let mut d = Driver::new(9);
    d.joined(1, "t", "j");
    let error = r#"["j","j","t","phx_error",{"reason":"channel_crash"}]"#;
    assert_eq!(d.word(|s, e| s.ended(1, e)), ["-t", error]);
    d.joined(2, "t", "k");
    assert_eq!(d.word(|s, e| s.closed(2, e)), ["-t", r#"["k","k","t","phx_close",{}]"#]);
    assert!(d.word(|s, e| s.ended(2, e)).is_empty());
}

#[test]
fn p_join_4_a_null_join_ref_stays_null_in_the_reply_and_the_close() {
    let mut d = Driver::new(9);
    d.receive(json!([null, "7", "t", "phx_join", {}]));
    let reply = format!(r#"[null,"7","t","phx_reply",{OK}]"#);
    assert_eq!(d.word(|s, e| s.joined(1, ().into(), e))[1], reply);
    assert_eq!(d.receive(json!(["7", "8", "t", "event", {}])), ["deliver 1"]);
    assert_eq!(d.word(|s, e| s.closed(1, e))[1], r#"[null,null,"t","phx_close",{}]"#);
}

#[test]
fn p_leave_2_a_stale_leave_is_ignored_and_one_without_a_channel_is_ok() {
    let mut d = Driver::new(9);
    d.joined(1, "t", "1");
    assert!(d.receive(json!(["0", "2", "t", "phx_leave", {}])).is_empty());
    assert_eq!(d.receive(json!(["1", "3", "t", "phx_leave", {}])), ["leave 1"]);
    assert!(d.receive(json!(["1", "4", "t", "phx_leave", {}])).is_empty());
    let ok = format!(r#"["9","5","t2","phx_reply",{OK}]"#);
    assert_eq!(d.receive(json!(["9", "5", "t2", "phx_leave", {}])), [ok]);
}

#[test]
fn p_con_11_the_limit_holds_for_new_topics_only() {
    let mut d = Driver::new(1);
    d.joined(1, "t", "1");
    let refused = d.receive(json!(["2", "2", "t2", "phx_join", {}]));
    assert_eq!(refused[0], "reject channels");
    assert!(refused[1].contains("too many channels joined"));
    assert_eq!(d.receive(json!(["3", "3", "t", "phx_join", {}]))[0], "start 2 for 1");
    assert!(d.receive(json!(["3", "3", "x", "phx_join", {}]))[0].contains("unmatched topic"));
}

#[test]
fn a_leave_or_another_join_of_the_topic_takes_back_the_join_that_must_settle() {
    let mut d = Driver::new(9);
    let taken_back = |session: &Session, message: Value| {
        let text = message.to_string();
        session.is_taken_back(&Version::V2.decode(&text).expect("a message"))
    };
    assert!(!taken_back(&d.0, json!(["1", "2", "t", "phx_leave", {}])), "nothing settles");
    d.receive(json!(["1", "1", "t", "phx_join", {}]));
    for (message, taken) in [
        (json!(["1", "2", "t", "phx_leave", {}]), true),
        (json!([null, "2", "t", "phx_leave", {}]), true),
        (json!(["0", "2", "t", "phx_leave", {}]), false),
        (json!(["3", "3", "t", "phx_join", {}]), true),
        (json!(["1", "2", "t", "event", {}]), false),
        (json!(["1", "2", "t2", "phx_leave", {}]), false),
        (json!(["3", "3", "t2", "phx_join", {}]), false),
    ] {
        assert_eq!(taken_back(&d.0, message.clone()), taken, "{message}");
    }
    d.word(|s, e| s.joined(1, ().into(), e));
    assert!(!taken_back(&d.0, json!(["1", "2", "t", "phx_leave", {}])), "it has settled");
}
