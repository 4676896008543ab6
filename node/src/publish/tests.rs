//! Calls that are taken, and those that are refused.

use proptest::prelude::*;

use super::*;

fn status(body: &str) -> u16 {
    parse(body.as_bytes()).map_or_else(|e| e.status().as_u16(), |_| 202)
}

#[test]
fn one_message_or_several_in_order() {
    let one = parse(br#"{"topic":"room:1","event":"msg","payload":{"a":1}}"#).unwrap();
    assert_eq!(one[0].payload, r#"{"a":1}"#);
    let many = r#"{"messages":[{"topic":"a","event":"x","payload":{}},
        {"topic":"b","event":"y","payload": {"deep":[1]} }]}"#;
    let many = parse(many.as_bytes()).unwrap();
    assert_eq!((&*many[0].topic, &*many[1].topic), ("a", "b"));
    assert_eq!(many[1].payload, r#"{"deep":[1]}"#);
}

#[test]
fn p_bin_4_bytes_come_as_base64() {
    let one = parse(br#"{"topic":"room:1","event":"msg","payloadBase64":"/wAB+g=="}"#).unwrap();
    assert_eq!((one[0].kind, &one[0].payload[..]), (Kind::Binary, &[0xff, 0, 1, 0xfa][..]));
    let many = r#"{"messages":[{"topic":"a","event":"x","payload":{}},
        {"topic":"b","event":"y","payloadBase64":""}]}"#;
    let many = parse(many.as_bytes()).unwrap();
    assert_eq!((many[0].kind, many[1].kind), (Kind::Json, Kind::Binary));
    assert!(many[1].payload.is_empty());
}

#[test]
fn what_is_wrong_is_refused_with_its_status() {
    for (body, want) in [
        ("", 400),
        ("{", 400),
        ("[]", 422),
        ("{}", 422),
        (r#"{"topic":"a","event":"x"}"#, 422),
        (r#"{"topic":"a","event":"x","payload":1}"#, 422),
        (r#"{"topic":"a","event":"x","payload":[]}"#, 422),
        (r#"{"topic":"","event":"x","payload":{}}"#, 422),
        (r#"{"topic":"a","event":"phx_reply","payload":{}}"#, 422),
        (r#"{"topic":"phoenix","event":"x","payload":{}}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{},"extra":1}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{},"messages":[]}"#, 422),
        (r#"{"topic":"a","event":"x","payloadBase64":"?"}"#, 422),
        (r#"{"topic":"a","event":"x","payloadBase64":null}"#, 422),
        (r#"{"topic":"a","event":"x","payload":{},"payloadBase64":""}"#, 422),
        (r#"{"payloadBase64":"","messages":[]}"#, 422),
        (r#"{"messages":[]}"#, 422),
        (r#"{"messages":[{"topic":"a","event":"x","payload":{}},{"topic":"a"}]}"#, 422),
    ] {
        assert_eq!(status(body), want, "{body}");
    }
    let message = r#"{"topic":"a","event":"x","payload":{}}"#;
    let many = |n: usize| format!(r#"{{"messages":[{}]}}"#, vec![message; n].join(","));
    assert_eq!((status(&many(MAX_MESSAGES)), status(&many(MAX_MESSAGES + 1))), (202, 422));
}

proptest! {
    #[test]
    fn any_body_is_taken_or_refused_and_never_panics(body in ".{0,200}") {
        let _ = status(&body);
    }
}
