use proptest::prelude::*;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{Role, WebSocketContext},
};

use super::{
    oracle::{Got, LIMIT, check, decode},
    *,
};

/// A client's frame.
pub(super) fn client(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut head = BytesMut::new();
    put_head(0, payload.len(), &mut head);
    head[0] = first;
    head[1] |= 0x80;
    let mut out = head.to_vec();
    out.extend(mask);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    out
}

fn violation(bytes: &[u8]) -> Option<Violation> {
    decode(bytes, &[]).1
}

pub(super) const MASK: [u8; 4] = [1, 2, 3, 4];

#[test]
fn text_binary_and_control_frames_are_decoded() {
    let mut bytes = client(0x81, b"hi", MASK);
    bytes.extend(client(0x82, &[0xff; 300], MASK));
    bytes.extend(client(0x89, b"p", MASK));
    bytes.extend(client(0x8a, b"", MASK));
    bytes.extend(client(0x88, &1001u16.to_be_bytes(), MASK));
    let want = vec![
        Got::Text("hi".into()),
        Got::Binary(vec![0xff; 300]),
        Got::Ping(b"p".to_vec()),
        Got::Pong,
        Got::Close(Some(1001)),
    ];
    assert_eq!(decode(&bytes, &[]), (want, None));
}

#[test]
fn control_frames_may_stand_between_fragments() {
    let mut bytes = client(0x01, "h€".as_bytes().split_at(2).0, MASK);
    bytes.extend(client(0x89, b"in between", MASK));
    bytes.extend(client(0x00, b"", [9, 9, 9, 9]));
    bytes.extend(client(0x80, "h€".as_bytes().split_at(2).1, [7, 0, 7, 0]));
    let want = vec![Got::Ping(b"in between".to_vec()), Got::Text("h€".into())];
    assert_eq!(decode(&bytes, &[]), (want, None));
}

#[test]
fn p_code_3_what_rfc_6455_forbids_is_a_protocol_error() {
    let mut nested = client(0x01, b"a", MASK);
    nested.extend(client(0x81, b"b", MASK));
    let cases = [
        client(0xc1, b"reserved bit", MASK),
        client(0x83, b"reserved opcode", MASK),
        client(0x8b, b"reserved opcode", MASK),
        client(0x80, b"nothing to continue", MASK),
        client(0x09, b"fragmented ping", MASK),
        client(0x89, &[0; 126], MASK),
        client(0x88, &[3], MASK),
        client(0x88, &1005u16.to_be_bytes(), MASK),
        client(0x88, &999u16.to_be_bytes(), MASK),
        vec![0x81, 0x02, b'h', b'i'],
        vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0],
        nested,
    ];
    for bytes in cases {
        let found = violation(&bytes);
        assert_eq!(found.map(Violation::code), Some(code::PROTOCOL), "{bytes:?}: {found:?}");
    }
}

#[test]
fn p_code_3_bad_utf8_is_1007_whole_or_in_fragments() {
    assert_eq!(violation(&client(0x81, &[0xff], MASK)), Some(Violation::BadUtf8));
    let mut bytes = client(0x01, &[0xe2], MASK);
    bytes.extend(client(0x80, &[0x28], MASK));
    assert_eq!(violation(&bytes), Some(Violation::BadUtf8));
    assert_eq!(violation(&client(0x88, &[0x03, 0xe8, 0xff], MASK)), Some(Violation::BadUtf8));
}

#[test]
fn p_con_12_the_limit_counts_all_fragments_and_needs_the_header_only() {
    assert_eq!(violation(&client(0x82, &[0; LIMIT], MASK)), None);
    assert_eq!(violation(&client(0x82, &[0; LIMIT + 1], MASK)[..8]), Some(Violation::TooBig));
    let mut bytes = client(0x02, &[0; 600], MASK);
    bytes.extend(client(0x80, &[0; 401], MASK));
    assert_eq!(violation(&bytes), Some(Violation::TooBig));
    assert_eq!(
        violation(&[0x82, 0xff, 255, 255, 255, 255, 255, 255, 255, 255, 0, 0, 0, 0]),
        Some(Violation::TooBig)
    );
}

#[test]
fn nothing_is_held_between_messages() {
    let mut decoder = Decoder::default();
    let mut bytes = client(0x81, b"hello", MASK);
    let (mut first, mut second) = bytes.split_at_mut(4);
    assert_eq!(decoder.next(&mut first, LIMIT), Ok(None));
    assert_eq!(decoder.buffered(), size_of::<Partial>() + 4);
    assert!(decoder.next(&mut second, LIMIT).expect("valid").is_some());
    assert!(decoder.partial.is_none());
}

#[test]
fn p_hb_2_a_fragment_that_is_whole_is_told_and_part_of_a_frame_is_not() {
    let mut decoder = Decoder::default();
    let mut feed = |mut bytes: Vec<u8>| {
        let item = decoder.next(&mut &mut bytes[..], LIMIT).expect("valid").is_some();
        (item, decoder.took_fragment(), decoder.took_fragment())
    };
    let (first, mut last) = (client(0x01, b"he", MASK), client(0x80, b"llo", MASK));
    assert_eq!(feed(first), (false, true, false));
    let rest = last.split_off(8);
    assert_eq!(feed(last), (false, false, false));
    assert_eq!(feed(rest), (true, false, false));
}

#[test]
fn what_is_forgotten_takes_no_memory_and_what_follows_is_found() {
    let mut decoder = Decoder::default();
    // The cut is within a character.
    let mut bytes = client(0x81, &"\u{e9}".repeat(500).into_bytes(), MASK);
    let mut rest = bytes.split_off(709);
    rest.extend(client(0x88, &[], MASK));
    assert_eq!(decoder.next(&mut &mut bytes[..], LIMIT), Ok(None));
    assert!(decoder.buffered() > 700);
    decoder.forget();
    assert!(decoder.buffered() < 200);
    let mut rest = &mut rest[..];
    assert!(matches!(decoder.next(&mut rest, LIMIT), Ok(Some(Item::Binary(_)))));
    assert_eq!(decoder.next(&mut rest, LIMIT), Ok(Some(Item::Close(None))));
}

/// Frames of a valid client, and what a server should make of them.
fn frames() -> impl Strategy<Value = (Vec<u8>, Vec<Got>)> {
    let mask = any::<[u8; 4]>();
    let text = ("\\PC{0,80}", proptest::collection::vec(any::<usize>(), 0..3), mask).prop_map(
        |(text, cuts, mask)| {
            let bytes = text.as_bytes();
            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let mut out = Vec::new();
            let mut start = 0;
            for (i, end) in ends.iter().enumerate() {
                let fin = if i + 1 == ends.len() { 0x80 } else { 0 };
                let opcode = if i == 0 { TEXT } else { CONTINUATION };
                out.extend(client(fin | opcode, &bytes[start..*end], mask));
                start = *end;
            }
            (out, Got::Text(text))
        },
    );
    let binary = (proptest::collection::vec(any::<u8>(), 0..300), any::<[u8; 4]>())
        .prop_map(|(bytes, mask)| (client(0x82, &bytes, mask), Got::Binary(bytes)));
    let ping = (proptest::collection::vec(any::<u8>(), 0..125), any::<[u8; 4]>())
        .prop_map(|(bytes, mask)| (client(0x89, &bytes, mask), Got::Ping(bytes)));
    proptest::collection::vec(prop_oneof![text, binary, ping], 0..6).prop_map(|frames| {
        let (bytes, got): (Vec<_>, Vec<_>) = frames.into_iter().unzip();
        (bytes.concat(), got)
    })
}

proptest! {
    #[test]
    fn any_split_of_the_bytes_gives_the_same_messages(
        (bytes, want) in frames(),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(decode(&bytes, &cuts), (want, None));
    }

    #[test]
    fn any_bytes_split_anyhow_end_the_same_way(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        prop_assert_eq!(decode(&bytes, &cuts), decode(&bytes, &[]));
    }

    #[test]
    fn a_client_reads_back_what_is_encoded(payload in "\\PC{0,200}") {
        let mut wire = std::io::Cursor::new(text(payload.as_bytes()).to_vec());
        let mut oracle = WebSocketContext::new(Role::Client, None);
        prop_assert_eq!(oracle.read(&mut wire).unwrap(), Message::text(payload));
    }

    /// tungstenite as an oracle: it accepts and refuses what we accept and refuse, and reads the
    /// same messages, whether the bytes are valid frames or mutated ones.
    #[test]
    fn tungstenite_agrees(
        (mut bytes, _) in frames(),
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..3),
    ) {
        for (at, with) in flips {
            if let Some(byte) = bytes.len().checked_sub(1).and_then(|n| bytes.get_mut(at % (n + 1))) {
                *byte ^= with;
            }
        }
        check(&bytes);
    }
}
