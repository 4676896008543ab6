//! Hostile input for everything that reads bytes from outside.
//!
//! Each target is a function of bytes that must never panic and must hold what it asserts. It runs on
//! every file of `node/corpus/<target>`, then on a fixed number of mutations of these, the same in
//! every run. `SLUICE_FUZZ_CASES` sets another number, and with it each run has its own mutations. A
//! file that once failed belongs into the corpus.

use std::{fs, path::Path};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::Value;
use sluice_node_api::config::Origin;

use crate::{
    config,
    frame::tests as frames,
    message::{Body, Incoming, Outgoing, Payload, Status},
    relay::Rules,
    serializer::Version,
};

/// Mutations of each corpus in an ordinary run.
const CASES: u32 = 3000;

/// One change of some bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Cut(Index, usize),
    Repeat(Index, usize, usize),
    /// The rest is that of another file.
    Splice(Index, Index, Index),
}

fn change(words: &'static [&'static str]) -> impl Strategy<Value = Change> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 1..=255u8).prop_map(|(at, bits)| Change::Flip(at, bits)),
        (at(), proptest::collection::vec(any::<u8>(), 1..6))
            .prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (at(), proptest::sample::select(words))
            .prop_map(|(at, word)| Change::Insert(at, word.as_bytes().to_vec())),
        (at(), 1..40usize).prop_map(|(at, len)| Change::Cut(at, len)),
        (at(), 1..20usize, 1..8usize).prop_map(|(at, len, times)| Change::Repeat(at, len, times)),
        (at(), at(), at()).prop_map(|(at, file, from)| Change::Splice(at, file, from)),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, corpus: &[Vec<u8>]) {
        let place = |at: &Index| at.index(bytes.len() + 1);
        match self {
            Self::Flip(at, bits) => {
                let at = place(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= bits;
                }
            }
            Self::Insert(at, more) => {
                let at = place(at);
                bytes.splice(at..at, more.iter().copied());
            }
            Self::Cut(at, len) => {
                let at = place(at);
                bytes.drain(at..(at + len).min(bytes.len()));
            }
            Self::Repeat(at, len, times) => {
                let at = place(at);
                let part = bytes[at..(at + len).min(bytes.len())].repeat(*times);
                bytes.splice(at..at, part);
            }
            Self::Splice(at, file, from) => {
                let other = &corpus[file.index(corpus.len())];
                bytes.truncate(place(at));
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}

/// Runs a target.
fn fuzz(target: &str, words: &'static [&'static str], check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let corpus: Vec<_> = files.iter().map(|file| fs::read(file).unwrap()).collect();
    corpus.iter().for_each(|bytes| check(bytes));

    let asked = std::env::var("SLUICE_FUZZ_CASES").ok().map(|cases| cases.parse().unwrap());
    let rng_seed = if asked.is_some() { RngSeed::Random } else { RngSeed::Fixed(1) };
    let cases = asked.unwrap_or(CASES);
    let config = Config { cases, rng_seed, failure_persistence: None, ..Config::default() };
    let input = (any::<Index>(), proptest::collection::vec(change(words), 1..6));
    let ended = TestRunner::new(config).run(&input, |(file, changes)| {
        let mut bytes = corpus[file.index(corpus.len())].clone();
        changes.iter().for_each(|change| change.apply(&mut bytes, &corpus));
        let failed =
            || TestCaseError::fail(format!("failed on {:?}", bytes.escape_ascii().to_string()));
        std::panic::catch_unwind(|| check(&bytes)).map_err(|_| failed())
    });
    if let Err(error) = ended {
        panic!("{target}: {error}");
    }
}

#[test]
fn frames_are_read_as_tungstenite_reads_them() {
    fuzz("frame", &["\u{81}", "\0\0\0\0"], frames::check);
}

const JSON: &[&str] =
    &["\"", "\\", "\\ud800", "[", "]", "{", "}", ",", ":", "null", "1e999", "\u{7f}"];

#[test]
fn v1_and_v2_messages_are_what_serde_json_says() {
    fuzz("v1", JSON, |bytes| text(Version::V1, bytes));
    fuzz("v2", JSON, |bytes| text(Version::V2, bytes));
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
        // It skips what it does not look into, such as a number beyond a float.
        (Ok(message), Err(_)) => answer(version, &message),
        (Err(_), Ok(Value::Array(a))) if version == Version::V2 => {
            let fits = a.len() >= 5 && a[2].is_string() && a[3].is_string();
            assert!(!fits || bytes.len() > 255, "a message was refused");
        }
        (Err(_), _) => {}
    }
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

#[test]
fn binary_messages_are_as_long_as_they_say() {
    fuzz("binary", &["\0", "\u{7f}"], |bytes| {
        let Ok(message) = Version::V2.decode_binary(bytes) else { return };
        let fields: usize = bytes[1..5].iter().map(|len| usize::from(*len)).sum();
        let Payload::Binary(payload) = message.payload else { panic!("bytes are no JSON") };
        assert_eq!((bytes[0], payload.len()), (0, bytes.len() - 5 - fields));
        let names = usize::from(bytes[3]) + usize::from(bytes[4]);
        assert_eq!(message.topic.len() + message.event.len(), names);
        answer(Version::V2, &message);
    });
}

const YAML: &[&str] =
    &["\n", "  ", ": ", "- ", "#", "&a ", "*a", "<<: ", "!!x ", "'", "|\n", "[", "{", "~"];

#[test]
fn a_configuration_is_read_or_refused_with_a_reason() {
    fuzz("config", YAML, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        match config::parse_node(Path::new("config.yaml"), text) {
            Ok(config) => drop(config::check_node(&config)),
            Err(error) => assert!(error.0.iter().all(|problem| !problem.reason.is_empty())),
        }
    });
    fuzz("live", YAML, |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        match config::parse_live(Path::new("live.yaml"), text) {
            Ok(live) => drop(Rules::new(&live, "n").find("room:1").map(|rule| rule.max_payload())),
            Err(error) => assert!(error.0.iter().all(|problem| !problem.reason.is_empty())),
        }
    });
}

#[test]
fn a_publish_call_breaks_no_rule_of_the_protocol() {
    fuzz("publish", JSON, |bytes| {
        for broadcast in crate::publish::parse(bytes).into_iter().flatten() {
            assert!((1..=255).contains(&broadcast.topic.len()), "P-BIN-5");
            assert!((1..=255).contains(&broadcast.event.len()), "P-BIN-5");
            assert!(!broadcast.event.starts_with("phx_"));
        }
    });
}

#[test]
fn any_origin_is_read_or_refused() {
    fuzz("origin", &["//", ":", "*.", "[", "]", "@", "é"], |bytes| {
        let Some(origin) = std::str::from_utf8(bytes).ok().and_then(Origin::parse) else { return };
        assert!(!origin.host.is_empty());
    });
}
