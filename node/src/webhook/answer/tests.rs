use super::*;

fn said(status: u16, body: &str) -> Said {
    Said { status: StatusCode::from_u16(status).unwrap(), body: body.as_bytes().to_vec() }
}

#[test]
fn only_a_clear_yes_lets_in_and_a_clear_no_refuses() {
    let of = |status: u16, body: &str| admission(&said(status, body));
    assert_eq!(of(200, r#"{"allow": true}"#), Ok(Verdict::Allowed(Admission::default())));
    let full =
        r#"{"allow": true, "id": "u:1", "claims": {"sub": "1"}, "expiresInSeconds": 9, "x": 1}"#;
    let Ok(Verdict::Allowed(admission)) = of(200, full) else { panic!() };
    assert_eq!((admission.id.as_deref(), &admission.claims["sub"]), (Some("u:1"), &"1".into()));
    assert_eq!(admission.expires_in_seconds, Some(9.0));
    for (status, body) in [(200, r#"{"allow": false}"#), (403, "no"), (401, "")] {
        assert_eq!(of(status, body), Ok(Verdict::Denied(None)), "{status}");
    }
    let long = format!(r#"{{"allow": true, "id": "{}"}}"#, "x".repeat(256));
    for body in [
        "",
        "{}",
        "<html>",
        "true",
        r#"{"allow": "yes"}"#,
        r#"{"allow": true, "id": 7}"#,
        r#"{"allow": true, "id": ""}"#,
        r#"{"allow": true, "claims": []}"#,
        r#"{"allow": true, "expiresInSeconds": -1}"#,
        &long,
    ] {
        assert_eq!(of(200, body), Err(Failure::Garbage), "{body}");
    }
    assert_eq!(of(204, ""), Err(Failure::Garbage), "nothing said is no yes");
}

#[test]
fn a_join_is_answered_with_the_backends_response_or_reason() {
    let of = |body: &str| join(&said(200, body));
    assert_eq!(of(r#"{"allow": true}"#), Ok(Verdict::Allowed(None)));
    let Ok(Verdict::Allowed(Some(response))) = of(r#"{"allow": true, "response": {"n": 1.50}}"#)
    else {
        panic!()
    };
    assert_eq!(&response.bytes()[..], br#"{"n": 1.50}"#, "as it was written");
    let no = of(r#"{"allow": false, "reason": "full"}"#);
    assert_eq!(no, Ok(Verdict::Denied(Some("full".into()))));
    assert_eq!(of(r#"{"response": {}}"#), Err(Failure::Garbage));
}

#[test]
fn an_event_goes_the_way_that_the_backend_says_and_what_is_unclear_is_no_answer() {
    let of = |body: &str| event(&said(200, body), |name| name != "phx_error" && name.len() < 256);
    let handled = |body: &str| match of(body) {
        Ok(Verdict::Allowed(handling)) => handling,
        other => panic!("{body}: {other:?}"),
    };
    assert_eq!(handled(r#"{"allow": true}"#), Handling::ruled());
    assert_eq!(handled(r#"{"allow": true, "broadcast": null, "reply": null}"#), Handling::ruled());
    let quiet = handled(r#"{"allow": true, "broadcast": false, "reply": false}"#);
    assert_eq!(quiet, Handling { broadcast: Spread::Nothing, reply: None });
    let as_it_came = Spread::This { event: None, payload: None, include_sender: None };
    assert_eq!(handled(r#"{"allow": true, "broadcast": true}"#).broadcast, as_it_came);
    assert_eq!(handled(r#"{"allow": true, "broadcast": {}}"#).broadcast, as_it_came);
    let other = r#"{"allow": true, "broadcast": {"event": "said", "payload": {"a": 1},
        "includeSender": false}, "reply": {"status": "error", "response": [1]}}"#;
    let handling = handled(other);
    assert_eq!(
        handling.broadcast,
        Spread::This {
            event: Some("said".into()),
            payload: Some(Payload::json_text(r#"{"a": 1}"#.into())),
            include_sender: Some(false),
        }
    );
    assert_eq!(handling.reply, Some((Status::Error, Payload::json_text("[1]".into()))));
    let bytes = handled(r#"{"allow": true, "broadcast": {"payloadBase64": "AP8="}}"#);
    let Spread::This { payload, .. } = bytes.broadcast else { panic!() };
    assert_eq!(payload, Some(Payload::binary(vec![0, 255])));
    let no = of(r#"{"allow": false, "reason": "rude", "broadcast": 7}"#);
    assert_eq!(no, Ok(Verdict::Denied(Some("rude".into()))));
    for body in [
        r#"{"allow": true, "broadcast": 7}"#,
        r#"{"allow": true, "broadcast": {"event": "phx_error"}}"#,
        r#"{"allow": true, "broadcast": {"event": ""}}"#,
        r#"{"allow": true, "broadcast": {"payload": [1]}}"#,
        r#"{"allow": true, "broadcast": {"payloadBase64": "!"}}"#,
        r#"{"allow": true, "broadcast": {"payload": {}, "payloadBase64": "AP8="}}"#,
        r#"{"allow": true, "reply": true}"#,
        r#"{"allow": true, "reply": {"status": "maybe"}}"#,
        "{}",
    ] {
        assert_eq!(of(body), Err(Failure::Garbage), "{body}");
    }
}

#[test]
fn what_a_backend_has_clients_told_is_nothing_at_which_their_decoders_fail() {
    for json in [r#"{"a":"\ud83d"}"#, r#"{"a":1e999}"#] {
        let body = |more: &str| said(200, &format!(r#"{{"allow": true, {more}}}"#));
        let welcome = body(&format!(r#""response": {json}"#));
        assert_eq!(join(&welcome), Err(Failure::Garbage), "{json}");
        let broadcast = body(&format!(r#""broadcast": {{"payload": {json}}}"#));
        assert_eq!(event(&broadcast, |_| true), Err(Failure::Garbage), "{json}");
        let reply = body(&format!(r#""reply": {{"response": {json}}}"#));
        assert_eq!(event(&reply, |_| true), Err(Failure::Garbage), "{json}");
    }
    let pair = r#"{"allow": true, "response": {"a":"\ud83d\ude00"}}"#;
    assert!(join(&said(200, pair)).is_ok());
}

#[test]
fn what_is_broadcast_for_a_backend_is_no_deeper_than_what_a_client_may_send() {
    let of = |levels: usize| {
        let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
        let payload = format!(r#"{{"a":{open}{close}}}"#);
        let body = format!(r#"{{"allow": true, "broadcast": {{"payload": {payload}}}}}"#);
        event(&said(200, &body), |_| true)
    };
    assert!(of(96).is_ok());
    assert_eq!(of(97), Err(Failure::Garbage));
}

#[test]
fn who_says_allow_twice_or_no_by_two_reasons_lets_nobody_in() {
    for body in [
        r#"{"allow": false, "allow": false}"#,
        r#"{"allow": false, "allow": true}"#,
        r#"{"allow": true, "allow": true}"#,
        r#"{"allow": true, "id": "u:1", "allow": "no"}"#,
        r#"{"allow": true, "\u0061llow": false}"#,
    ] {
        assert_eq!(admission(&said(200, body)), Err(Failure::Ambiguous), "{body}");
        assert_eq!(join(&said(200, body)), Err(Failure::Ambiguous), "{body}");
        assert_eq!(event(&said(200, body), |_| true), Err(Failure::Ambiguous), "{body}");
    }
    let reasons = r#"{"allow": false, "reason": "full", "reason": "late"}"#;
    assert_eq!(join(&said(200, reasons)), Ok(Verdict::Denied(Some("late".into()))));
    // What is said of something else is no word on who is let in.
    let deep = r#"{"allow": true, "response": {"allow": false, "allow": false}}"#;
    assert!(matches!(join(&said(200, deep)), Ok(Verdict::Allowed(Some(_)))));
    for body in [r#"{"allow": true, "id": "u:1", "id": "u:2"}"#, "[true]", "[true, null]"] {
        assert_eq!(admission(&said(200, body)), Err(Failure::Garbage), "{body}");
    }
    assert_eq!(join(&said(200, "[true, null]")), Err(Failure::Garbage), "no object");
}

#[test]
fn a_mark_of_the_byte_order_says_nothing() {
    let of = |body: &str| join(&said(200, body));
    assert_eq!(of("\u{feff}{\"allow\": true}"), Ok(Verdict::Allowed(None)));
    assert_eq!(of("\u{feff}{\"allow\": false}"), Ok(Verdict::Denied(None)));
    assert_eq!(of("\u{feff}"), Err(Failure::Garbage));
    assert_eq!(of("\u{feff}\u{feff}{\"allow\": true}"), Err(Failure::Garbage), "one, at most");
    assert_eq!(of("{\u{feff}\"allow\": true}"), Err(Failure::Garbage), "at its begin");
}
