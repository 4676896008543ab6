//! Frames and messages, as a client sends them over a WebSocket.

use serde_json::Value;

use crate::{
    frame::oracle,
    message::{Body, Incoming, Outgoing, Payload, Status},
    serializer::Version,
};

/// Bytes of a WebSocket are read as tungstenite reads them, however they are split.
pub fn frame(bytes: &[u8]) {
    oracle::check(bytes);
}

/// A message of V1 is what `serde_json` says, and nothing that no Phoenix reads.
pub fn v1(bytes: &[u8]) {
    text(Version::V1, bytes);
}

/// A message of V2 is what `serde_json` says, and nothing that no Phoenix reads.
pub fn v2(bytes: &[u8]) {
    text(Version::V2, bytes);
}

/// A binary message is as long as it says.
pub fn binary(bytes: &[u8]) {
    let Ok(message) = Version::V2.decode_binary(bytes) else { return };
    let fields: usize = bytes[1..5].iter().map(|len| usize::from(*len)).sum();
    let Payload::Binary(payload) = message.payload else { panic!("bytes are no JSON") };
    assert_eq!((bytes[0], payload.len()), (0, bytes.len() - 5 - fields));
    let names = usize::from(bytes[3]) + usize::from(bytes[4]);
    assert_eq!(message.topic.len() + message.event.len(), names);
    answer(Version::V2, &message);
}

fn text(version: Version, bytes: &[u8]) {
    let decoded = std::str::from_utf8(bytes).ok().map(|text| version.decode(text));
    if version == Version::V1 {
        let binary = version.decode_binary(bytes);
        assert_eq!(binary.ok(), decoded.clone().and_then(Result::ok), "P-V1-3");
    }
    let Some(decoded) = decoded else { return };
    let value = serde_json::from_slice::<Value>(bytes);
    match (decoded, value) {
        (Ok(message), Ok(value)) => same(version, &message, &value),
        (Ok(message), Err(error)) => {
            // What a Phoenix reads and `serde_json` does not: many levels, and integers beyond a float.
            let error = error.to_string();
            let number = error.starts_with("number out of range") && may_be_beyond_a_float(bytes);
            assert!(number || error.starts_with("recursion limit"), "{error}");
            answer(version, &message);
        }
        (Err(_), Ok(Value::Array(a))) if version == Version::V2 => {
            let fits = a.len() >= 5 && a[2].is_string() && a[3].is_string();
            let refused = fits && bytes.len() <= 255 && !may_be_beyond_a_float(bytes);
            assert!(!refused, "a message was refused");
        }
        (Err(_), _) => {}
    }
}

/// Whether there is a number so large that `serde_json`, which rounds carelessly, may see a float in it
/// or not.
fn may_be_beyond_a_float(bytes: &[u8]) -> bool {
    let part = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let numbers = bytes.split(|byte| !part(byte)).filter_map(|text| std::str::from_utf8(text).ok());
    numbers.filter_map(|text| text.parse::<f64>().ok()).any(|number| number.abs() > 1.79e308)
}

/// Every field of `message` is that of `value`.
fn same(version: Version, message: &Incoming<'_>, value: &Value) {
    let names = ["join_ref", "ref", "topic", "event", "payload"];
    let fields: Vec<_> = match version {
        Version::V1 => names.iter().map(|name| value[name].clone()).collect(),
        Version::V2 => (0..5).map(|i| value[i].clone()).collect(),
    };
    let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let Payload::Json(payload) = message.payload else { panic!("text has no bytes") };
    let got = [
        json(message.join_ref.as_json()),
        json(message.reference.as_json()),
        message.topic.clone().into_owned().into(),
        message.event.clone().into_owned().into(),
        json(payload),
    ];
    assert_eq!(got.as_slice(), fields);
    answer(version, message);
    let mut out = Vec::new();
    version.encode(&reply(message), &mut out).expect("JSON");
    let out: Value = serde_json::from_slice(&out).unwrap();
    match version {
        Version::V1 => assert_eq!(out["ref"], fields[1]),
        Version::V2 => assert_eq!(out.as_array().unwrap()[..3], fields[..3], "P-V2-2"),
    }
}

fn reply(message: &Incoming<'_>) -> Outgoing {
    Outgoing {
        join_ref: message.join_ref.clone(),
        reference: message.reference.clone(),
        topic: message.topic.as_ref().into(),
        body: Body::Reply(Status::Ok, crate::pubsub::Kind::Json, bytes::Bytes::from_static(b"{}")),
    }
}

/// Whatever came in, what goes out is UTF-8: it travels in a text frame.
fn answer(version: Version, message: &Incoming<'_>) {
    let mut out = Vec::new();
    version.encode(&reply(message), &mut out).expect("JSON");
    assert!(std::str::from_utf8(&out).is_ok());
}
