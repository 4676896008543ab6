use proptest::prelude::*;
use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::*;

pub(super) const LIMIT: usize = 1000;

/// An owned [`Item`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong,
    Close(Option<u16>),
}

impl From<Item<'_>> for Got {
    fn from(item: Item<'_>) -> Self {
        match item {
            Item::Text(text) => Self::Text(text.into_owned()),
            Item::Binary(bytes) => Self::Binary(bytes.into_owned()),
            Item::Ping(bytes) => Self::Ping(bytes.into_owned()),
            Item::Pong => Self::Pong,
            Item::Close(code) => Self::Close(code),
        }
    }
}

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

/// Decodes `bytes`, handed over in pieces that end at `cuts`.
pub(super) fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Got>, Option<Violation>) {
    let mut decoder = Decoder::default();
    let mut got = Vec::new();
    let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
    ends.push(bytes.len());
    ends.sort_unstable();
    let mut start = 0;
    for end in ends {
        let mut piece = bytes[start..end].to_vec();
        let mut input = piece.as_mut_slice();
        start = end;
        loop {
            match decoder.next(&mut input, LIMIT) {
                Ok(Some(item)) => got.push(item.into()),
                Ok(None) => break,
                Err(violation) => return (got, Some(violation)),
            }
        }
        assert!(input.is_empty(), "everything is used before more is asked for");
    }
    (got, None)
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
    assert_eq!(decoder.buffered(), 4);
    assert!(decoder.next(&mut second, LIMIT).expect("valid").is_some());
    assert!(decoder.partial.is_none());
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

const FORBIDDEN_CLOSE: &str = "close code that may not be sent";

/// The same however the bytes are split, and as tungstenite has it.
pub(crate) fn check(bytes: &[u8]) {
    let (got, violation) = decode(bytes, &[]);
    let every: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(decode(bytes, &every), (got.clone(), violation));
    // It also takes lengths in a longer form than need be; RFC 6455 5.2 forbids them.
    if violation == Some(Violation::Protocol("length not in its shortest form")) {
        return;
    }
    // It reads nothing after a close; here the socket's driver sees to that.
    let closed = got.iter().position(|got| matches!(got, Got::Close(_)));
    let (want, refused) = match oracle(bytes) {
        // It looks at the text of each fragment, we at that of a whole message.
        (want, Some(tungstenite::Error::Utf8(_))) => return assert!(got.starts_with(&want)),
        // It gives a close with a code of its own for one with a forbidden code.
        (mut want, refused) if violation == Some(Violation::Protocol(FORBIDDEN_CLOSE)) => {
            want.pop_if(|last| *last == Got::Close(Some(code::PROTOCOL)));
            (want, refused)
        }
        (want, refused) => (want, refused),
    };
    // It refuses a frame when it has it whole, we when we have its header.
    assert!(refused.is_none() || violation.is_some(), "{refused:?}");
    assert_eq!(got[..closed.map_or(got.len(), |at| at + 1)], want);
}

/// What tungstenite makes of `bytes`: messages, and why it refused the rest.
fn oracle(bytes: &[u8]) -> (Vec<Got>, Option<tungstenite::Error>) {
    struct Wire<'a>(&'a [u8]);
    impl std::io::Read for Wire<'_> {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            if self.0.is_empty() {
                return Err(std::io::ErrorKind::WouldBlock.into());
            }
            std::io::Read::read(&mut self.0, buf)
        }
    }
    impl std::io::Write for Wire<'_> {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            Ok(buf.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let config =
        WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let mut oracle = WebSocketContext::new(Role::Server, Some(config));
    let mut wire = Wire(bytes);
    let mut got = Vec::new();
    loop {
        match oracle.read(&mut wire) {
            Ok(Message::Text(text)) => got.push(Got::Text(text.to_string())),
            Ok(Message::Binary(bytes)) => got.push(Got::Binary(bytes.to_vec())),
            Ok(Message::Ping(bytes)) => got.push(Got::Ping(bytes.to_vec())),
            Ok(Message::Pong(_)) => got.push(Got::Pong),
            Ok(Message::Close(frame)) => {
                got.push(Got::Close(frame.map(|frame| frame.code.into())));
                return (got, None);
            }
            Ok(Message::Frame(_)) => {}
            Err(tungstenite::Error::Io(_)) => return (got, None),
            Err(error) => return (got, Some(error)),
        }
    }
}
