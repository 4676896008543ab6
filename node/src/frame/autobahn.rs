//! The cases of the Autobahn test suite that concern a decoder, by its numbers; each is decoded
//! whole and byte by byte.

use super::{
    code::{BAD_UTF8, PROTOCOL},
    oracle::{Got, LIMIT, decode},
    tests::{MASK, client},
};

/// Frames: first byte and payload.
type Frames = Vec<(u8, Vec<u8>)>;

/// `frames` are read as `want`, and then end the connection with `code`, if there is one.
fn case(id: &str, frames: &Frames, want: &[Got], code: Option<u16>) {
    let bytes: Vec<u8> =
        frames.iter().flat_map(|(first, payload)| client(*first, payload, MASK)).collect();
    for cuts in [vec![], (0..bytes.len()).collect()] {
        let (got, violation) = decode(&bytes, &cuts);
        assert_eq!(got, want, "{id}");
        assert_eq!(violation.map(|violation| violation.code()), code, "{id}");
    }
}

fn text(text: &str) -> Got {
    Got::Text(text.into())
}

#[test]
fn autobahn_1_and_2_lengths_pings_and_pongs() {
    for len in [0, 125, 126, 127, 128, 255, 256, LIMIT] {
        let payload = vec![b'x'; len];
        let id = format!("1 with {len} bytes");
        let string = "x".repeat(len);
        case(&id, &vec![(0x81, payload.clone())], &[text(&string)], None);
        case(&id, &vec![(0x82, payload.clone())], &[Got::Binary(payload)], None);
    }
    for payload in [vec![], b"hello".to_vec(), vec![0, 0xff, 0xfe], vec![0xfe; 125]] {
        case("2.1-2.4", &vec![(0x89, payload.clone())], &[Got::Ping(payload)], None);
    }
    case("2.5", &vec![(0x89, vec![0xfe; 126])], &[], Some(PROTOCOL));
    case("2.7", &vec![(0x8a, vec![])], &[Got::Pong], None);
    let pings: Vec<_> = (0..10u8).map(|i| (0x89, vec![i])).collect();
    let want: Vec<_> = (0..10u8).map(|i| Got::Ping(vec![i])).collect();
    case("2.10", &pings, &want, None);
}

#[test]
fn autobahn_3_and_4_reserved_bits_and_opcodes() {
    let hello = (0x81, b"hello".to_vec());
    for bits in 1..8u8 {
        for opcode in [0x81, 0x82, 0x88, 0x89, 0x8a] {
            let frames = vec![hello.clone(), (opcode | bits << 4, vec![]), hello.clone()];
            case(&format!("3, bits {bits}"), &frames, &[text("hello")], Some(PROTOCOL));
        }
    }
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        let frames = vec![hello.clone(), (0x80 | opcode, b"x".to_vec()), hello.clone()];
        case(&format!("4, opcode {opcode}"), &frames, &[text("hello")], Some(PROTOCOL));
    }
}

#[test]
fn autobahn_5_fragments() {
    let frames = |list: &[(u8, &str)]| -> Frames {
        list.iter().map(|(first, payload)| (*first, payload.as_bytes().to_vec())).collect()
    };
    let ping = || Got::Ping(b"p".to_vec());
    for (id, list, want, code) in [
        ("5.1", frames(&[(0x09, "a"), (0x80, "b")]), vec![], Some(PROTOCOL)),
        ("5.2", frames(&[(0x0a, "a"), (0x80, "b")]), vec![], Some(PROTOCOL)),
        ("5.3", frames(&[(0x01, "a"), (0x80, "b")]), vec![text("ab")], None),
        ("5.6", frames(&[(0x01, "a"), (0x89, "p"), (0x80, "b")]), vec![ping(), text("ab")], None),
        ("5.9", frames(&[(0x80, "a"), (0x81, "b")]), vec![], Some(PROTOCOL)),
        ("5.12", frames(&[(0x00, "a"), (0x81, "b")]), vec![], Some(PROTOCOL)),
        (
            "5.15",
            frames(&[(0x01, "a"), (0x80, "b"), (0x00, "c"), (0x81, "d")]),
            vec![text("ab")],
            Some(PROTOCOL),
        ),
        ("5.18", frames(&[(0x01, "a"), (0x81, "b")]), vec![], Some(PROTOCOL)),
        (
            "5.19",
            frames(&[
                (0x01, "1"),
                (0x00, "2"),
                (0x89, "p"),
                (0x00, "3"),
                (0x00, ""),
                (0x89, "p"),
                (0x80, "5"),
            ]),
            vec![ping(), ping(), text("1235")],
            None,
        ),
        (
            "a close between fragments",
            frames(&[(0x01, "1"), (0x88, "")]),
            vec![Got::Close(None)],
            None,
        ),
    ] {
        case(id, &list, &want, code);
    }
}

#[test]
fn autobahn_6_utf8_in_every_fragmentation() {
    let valid = ["", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\0", "\u{7f}", "\u{80}", "\u{7ff}"];
    let more = ["\u{800}", "\u{d7ff}", "\u{e000}", "\u{fffe}", "\u{ffff}", "\u{10000}"];
    for good in valid.iter().chain(&more).chain(&["\u{10ffff}"]) {
        let bytes = good.as_bytes();
        case("6.1", &vec![(0x81, bytes.to_vec())], &[text(good)], None);
        for at in 0..=bytes.len() {
            let frames = vec![(0x01, bytes[..at].to_vec()), (0x80, bytes[at..].to_vec())];
            case("6.2", &frames, &[text(good)], None);
        }
    }
    let bad: [&[u8]; 15] = [
        b"\xce\xba\xe1\xbd\xb9\xcf\x83\xed\xa0\x80edited",
        b"\xf4\x90\x80\x80",
        b"\xce",
        b"\xe1\xbd",
        b"\xf0\x90\x80",
        b"\xc0\x80",
        b"\xc1\xbf",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xed\xbf\xbf",
        b"\xf0\x80\x80\x80",
        b"\xf8\x88\x80\x80\x80",
        b"\xfe",
        b"\x80",
        b"a\xbfb",
    ];
    for bytes in bad {
        let id = format!("6.3-6.21 {}", bytes.escape_ascii());
        case(&id, &vec![(0x81, bytes.to_vec())], &[], Some(BAD_UTF8));
        for at in 0..=bytes.len() {
            let frames = vec![(0x01, bytes[..at].to_vec()), (0x80, bytes[at..].to_vec())];
            case(&id, &frames, &[], Some(BAD_UTF8));
        }
    }
}

#[test]
fn autobahn_7_close_codes() {
    let close = |code: u16, reason: &[u8]| vec![(0x88, [&code.to_be_bytes(), reason].concat())];
    case("7.3.1", &vec![(0x88, vec![])], &[Got::Close(None)], None);
    case("7.3.2", &vec![(0x88, vec![3])], &[], Some(PROTOCOL));
    case("7.3.5", &close(1000, &[b'*'; 123]), &[Got::Close(Some(1000))], None);
    case("7.3.6", &close(1000, &[b'*'; 124]), &[], Some(PROTOCOL));
    case("7.5.1", &close(1000, b"\xce\xba\xed\xa0\x80"), &[], Some(BAD_UTF8));
    for code in [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999] {
        case(&format!("7.7, {code}"), &close(code, b""), &[Got::Close(Some(code))], None);
    }
    for code in [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535] {
        case(&format!("7.9 and 7.13, {code}"), &close(code, b"why"), &[], Some(PROTOCOL));
    }
}
