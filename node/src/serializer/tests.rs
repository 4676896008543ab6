use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn encoded(version: Version, message: &Outgoing) -> String {
    let mut out = Vec::new();
    version.encode(message, &mut out).expect("it fits");
    String::from_utf8(out).expect("JSON is UTF-8")
}

fn reply(join_ref: &str, reference: &str) -> Outgoing {
    Outgoing {
        join_ref: Ref::from_json(join_ref).expect("short"),
        reference: Ref::from_json(reference).expect("short"),
        topic: "room:1".into(),
        body: Body::Reply(Status::Ok, Kind::Json, Bytes::from_static(b"{}")),
    }
}

#[test]
fn p_con_2_vsn_is_a_full_version_of_three_numbers() {
    for (vsn, want) in [
        (None, Some(Version::V1)),
        (Some("1.0.0"), Some(Version::V1)),
        (Some("2.0.0"), Some(Version::V2)),
        (Some("2.0.17"), Some(Version::V2)),
        (Some("2"), None),
        (Some("2.0"), None),
        (Some("2.1.0"), None),
        (Some("9.0.0"), None),
        (Some("2.0.01"), None),
        (Some("2.0."), None),
        (Some(""), None),
    ] {
        assert_eq!(Version::from_vsn(vsn), want, "{vsn:?}");
    }
}

#[test]
fn p_v2_1_five_elements_and_further_ones_are_ignored() {
    let message = Version::V2.decode(r#" ["1", "2","room:1","a\u0062",{"x": [1]}, 9, {}] "#);
    let want = Incoming {
        join_ref: Ref::from_json("\"1\"").expect("short"),
        reference: Ref::from_json("\"2\"").expect("short"),
        topic: "room:1".into(),
        event: "ab".into(),
        payload: Payload::Json(r#"{"x": [1]}"#),
    };
    assert_eq!(message, Ok(want));
    for bad in [
        "",
        "x",
        "{}",
        "null",
        "[]",
        r#"["1","2","t","e"]"#,
        r#"["1","2",3,"e",{}]"#,
        r#"["1","2","t",null,{}]"#,
        r#"["1","2","t","e",{}"#,
        r#"["1","2","t","e",{}] x"#,
    ] {
        assert_eq!(Version::V2.decode(bad), Err(Undecodable), "{bad}");
    }
}

#[test]
fn p_push_1_a_reference_is_the_same_however_it_is_written() {
    let of = |json| Ref::from_json(json).expect("short");
    assert_eq!(of(r#""\u0031\/""#), of(r#""1/""#));
    assert_eq!(of(r#""\"""#).as_json(), r#""\"""#);
    assert_ne!(of("1"), of("\"1\""));
    assert_eq!(of(r#"["\u0031"]"#).as_json(), r#"["\u0031"]"#);
}

#[test]
fn p_v2_2_references_come_back_with_their_type() {
    for reference in ["\"1\"", "1", "null", "1.5", "[1,{}]"] {
        let text = format!(r#"[{reference},{reference},"room:1","e",{{}}]"#);
        let message = Version::V2.decode(&text).expect("valid");
        assert_eq!(message.reference.as_json(), reference);
        assert_eq!(
            encoded(Version::V2, &reply(reference, reference)),
            format!(
                r#"[{reference},{reference},"room:1","phx_reply",{{"status":"ok","response":{{}}}}]"#
            )
        );
    }
    let long = format!(r#"["{}","1","t","e",{{}}]"#, "x".repeat(300));
    assert_eq!(Version::V2.decode(&long), Err(Undecodable));
}

#[test]
fn p_v1_1_all_keys_are_required_but_join_ref() {
    let message = Version::V1
        .decode(r#"{"topic":"t","event":"e","payload":null,"ref":7,"join_ref":"3","more":1}"#)
        .expect("valid");
    assert_eq!((message.join_ref.as_json(), message.reference.as_json()), ("\"3\"", "7"));
    assert_eq!(message.payload, Payload::Json("null"));
    let message = Version::V1.decode(r#"{"topic":"t","event":"e","payload":{},"ref":null}"#);
    assert!(message.expect("valid").join_ref.is_null());
    for bad in [
        r#"{"event":"e","payload":{},"ref":1}"#,
        r#"{"topic":"t","payload":{},"ref":1}"#,
        r#"{"topic":"t","event":"e","ref":1}"#,
        r#"{"topic":"t","event":"e","payload":{}}"#,
        r#"["1","2","t","e",{}]"#,
    ] {
        assert_eq!(Version::V1.decode(bad), Err(Undecodable), "{bad}");
    }
}

#[test]
fn p_err_4_json_that_no_phoenix_reads_is_no_message_wherever_it_stands() {
    let long = "9".repeat(1025);
    for unread in [r#""\ud800""#, r#""\udd1e\ud834""#, "1e999999", "-1e309", &long] {
        for v2 in [
            format!(r#"["1","2","t","e",{{"a":[{unread}]}}]"#),
            format!(r#"["1",{unread},"t","e",{{}}]"#),
            format!(r#"["1","2","t","e",{{}},{unread}]"#),
        ] {
            assert_eq!(Version::V2.decode(&v2), Err(Undecodable), "{v2}");
        }
        let v1 = format!(r#"{{"topic":"t","event":"e","payload":{{}},"ref":1,"more":{unread}}}"#);
        assert_eq!(Version::V1.decode(&v1), Err(Undecodable), "{v1}");
        assert_eq!(Version::V1.decode_binary(v1.as_bytes()), Err(Undecodable), "{v1}");
    }
    for read in [r#""\ud834\udd1e""#, r#""\\ud800 1e999""#, "1e308", "1e-999", &long[1..]] {
        let text = format!(r#"["1","2","t","e",{{"a":[{read}]}}]"#);
        let message = Version::V2.decode(&text).expect("valid");
        assert_eq!(message.payload, Payload::Json(&format!(r#"{{"a":[{read}]}}"#)), "as it came");
    }
}

#[test]
fn p_v1_2_output_has_four_keys_and_no_join_ref() {
    let value: Value =
        serde_json::from_str(&encoded(Version::V1, &reply("\"1\"", "\"2\""))).expect("JSON");
    let payload = json!({"status": "ok", "response": {}});
    let want = json!({"topic": "room:1", "event": "phx_reply", "payload": payload, "ref": "2"});
    assert_eq!(value, want);
}

#[test]
fn p_v1_3_json_in_a_binary_frame_is_accepted() {
    let text = br#"{"topic":"t","event":"e","payload":{},"ref":1}"#;
    assert!(Version::V1.decode_binary(text).is_ok());
    assert_eq!(Version::V1.decode_binary(&[0xff]), Err(Undecodable));
}

#[test]
fn p_bin_1_a_binary_push_is_decoded_and_other_kinds_are_not() {
    let message = Version::V2.decode_binary(b"\0\x01\x02\x01\x0112\x33te\xff\x00").expect("valid");
    assert_eq!((message.join_ref.as_json(), message.reference.as_json()), ("\"1\"", "\"23\""));
    assert_eq!((message.topic.as_ref(), message.event.as_ref()), ("t", "e"));
    assert_eq!(message.payload, Payload::Binary(&[0xff, 0]));
    assert_eq!(Version::V2.decode_binary(b"\x01\0\0\0\0"), Err(Undecodable), "P-BIN-7");
    assert_eq!(Version::V2.decode_binary(b"\0\0\0\x09\0t"), Err(Undecodable));
    let empty = Version::V2.decode_binary(b"\0\0\0\x01\x01te").expect("valid");
    assert!(!empty.join_ref.is_null(), "P-BIN-6: length 0 is an empty string");
}

#[test]
fn p_bc_1_a_broadcast_has_no_references() {
    let broadcast = Broadcast {
        topic: "room:\"1\"".into(),
        event: "e".into(),
        kind: Kind::Json,
        payload: Bytes::from_static(b"{\"a\":1}"),
    };
    let mut out = Vec::new();
    Version::V2.encode_broadcast(&broadcast, &mut out).expect("fits");
    assert_eq!(out, br#"[null,null,"room:\"1\"","e",{"a":1}]"#);
    out.clear();
    Version::V1.encode_broadcast(&broadcast, &mut out).expect("fits");
    assert_eq!(out, br#"{"topic":"room:\"1\"","event":"e","payload":{"a":1},"ref":null}"#);
}

#[test]
fn p_bin_1_a_reference_of_255_bytes_fits_whatever_letters_it_has() {
    for reference in ["x".repeat(255), "\"".repeat(255)] {
        let head = [0, 0, 255, 1, 1];
        let bytes = [&head[..], reference.as_bytes(), b"te"].concat();
        let message = Version::V2.decode_binary(&bytes).expect("valid");
        assert_eq!(message.reference.to_text(), reference);
    }
}

#[test]
fn p_bin_4_a_binary_broadcast_and_p_bin_5_what_does_not_fit_it() {
    let broadcast = |topic: &str, event: &str| Broadcast {
        topic: topic.into(),
        event: event.into(),
        kind: Kind::Binary,
        payload: Bytes::from_static(&[0xff, 0]),
    };
    let mut out = Vec::new();
    assert_eq!(Version::V2.encode_broadcast(&broadcast("tä", "e"), &mut out), Ok(()));
    assert_eq!(out, b"\x02\x03\x01t\xc3\xa4e\xff\x00");
    out.clear();
    let v1 = Version::V1.encode_broadcast(&broadcast("t", "e"), &mut out);
    assert_eq!(v1, Err(Unfit::BinaryInV1), "P-V1-3");
    let long = "x".repeat(256);
    assert_eq!(Version::V2.encode_broadcast(&broadcast(&long, "e"), &mut out), Err(Unfit::TooLong));
    assert_eq!(Version::V2.encode_broadcast(&broadcast("t", &long), &mut out), Err(Unfit::TooLong));
    assert!(out.is_empty(), "nothing is cut");
    assert_eq!(Version::V2.encode_broadcast(&broadcast(&long[1..], "e"), &mut out), Ok(()));
}

proptest! {
    #[test]
    fn nothing_from_outside_panics(text in "\\PC{0,60}", bytes: Vec<u8>) {
        for version in [Version::V1, Version::V2] {
            let _ = version.decode(&text);
            let _ = version.decode_binary(&bytes);
        }
    }

    #[test]
    fn topics_and_events_of_any_text_survive(topic: String, event: String) {
        let text = json!(["1", null, topic, event, {"deep": [[[]]]}]).to_string();
        let message = Version::V2.decode(&text).expect("valid");
        prop_assert_eq!((message.topic.as_ref(), message.event.as_ref()), (&*topic, &*event));
        prop_assert_eq!(message.payload, Payload::Json(r#"{"deep":[[[]]]}"#));
        let broadcast = Broadcast { topic: topic.as_str().into(), event: event.as_str().into(), kind: Kind::Json, payload: Bytes::from_static(b"{}") };
        let mut out = Vec::new();
        Version::V2.encode_broadcast(&broadcast, &mut out).expect("fits");
        let value: Value = serde_json::from_slice(&out).expect("JSON");
        prop_assert_eq!(value, json!([null, null, topic, event, {}]));
    }
}
