//! The targets in `cargo test`: each runs on every file of its corpus, then on a fixed number of
//! mutations of these, the same in every run. `SLUICE_FUZZ_CASES` sets another number, and with it
//! each run has its own mutations. A file that once failed belongs into the corpus.

use std::{collections::BTreeSet, fs, path::Path};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngSeed, TestRunner},
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

const JSON: &[&str] =
    &["\"", "\\", "\\ud800", "[", "]", "{", "}", ",", ":", "null", "1e999", "\u{7f}"];
const YAML: &[&str] =
    &["\n", "  ", ": ", "- ", "#", "&a ", "*a", "<<: ", "!!x ", "'", "|\n", "[", "{", "~"];
const TOKEN: &[&str] = &[".", "..", "=", "\n", "{", "}", "\"alg\":\"none\"", "\"kty\":\"oct\""];

#[test]
fn frames_are_read_as_tungstenite_reads_them() {
    fuzz("frame", &["\u{81}", "\0\0\0\0"], super::frame);
}

#[test]
fn v1_and_v2_messages_are_what_serde_json_says() {
    fuzz("v1", JSON, super::v1);
    fuzz("v2", JSON, super::v2);
}

#[test]
fn binary_messages_are_as_long_as_they_say() {
    fuzz("binary", &["\0", "\u{7f}"], super::binary);
}

#[test]
fn a_long_poll_body_is_read_by_its_lines_or_refused() {
    fuzz(
        "longpoll",
        &["\n", "\r", "[", "AAA=", "=", "\"", "application/x-ndjson"],
        super::longpoll,
    );
}

#[test]
fn nobody_makes_a_token_that_no_key_has_signed() {
    fuzz("jwt", TOKEN, super::jwt);
}

#[test]
fn a_configuration_is_read_or_refused_with_a_reason() {
    fuzz("config", YAML, super::config);
    fuzz("live", YAML, super::live);
}

#[test]
fn a_publish_call_breaks_no_rule_of_the_protocol() {
    fuzz("publish", JSON, super::publish);
}

#[test]
fn any_origin_is_read_or_refused() {
    fuzz("origin", &["//", ":", "*.", "[", "]", "@", "é"], super::origin);
}

#[test]
fn every_corpus_is_given_to_the_coverage_guided_fuzzer() {
    let names = |folder: &str| -> BTreeSet<_> {
        let entries = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
        let stem = |path: std::path::PathBuf| path.file_stem().unwrap().to_owned();
        entries.map(|entry| stem(entry.unwrap().path())).collect()
    };
    assert_eq!(names("corpus"), names("fuzz/fuzz_targets"));
}
