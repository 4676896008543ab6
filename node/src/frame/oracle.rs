//! The decoder held against itself and against tungstenite: what the tests and the fuzzer ask of any
//! bytes. Not in the program.

use tokio_tungstenite::tungstenite::{
    self, Message,
    protocol::{Role, WebSocketConfig, WebSocketContext},
};

use super::*;

/// Longest message.
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

const FORBIDDEN_CLOSE: &str = "close code that may not be sent";
/// Bad gateway, which IANA registers and tungstenite does not know.
const UNKNOWN_CLOSE: Got = Got::Close(Some(1014));
const PROTOCOL_CLOSE: Got = Got::Close(Some(code::PROTOCOL));

/// The same however the bytes are split, and as tungstenite has it.
pub(crate) fn check(bytes: &[u8]) {
    let (mut got, mut violation) = decode(bytes, &[]);
    let every: Vec<usize> = (0..bytes.len()).collect();
    assert_eq!(decode(bytes, &every), (got.clone(), violation));
    // It reads nothing after a close; here the socket's driver sees to that.
    if let Some(closed) = got.iter().position(|got| matches!(got, Got::Close(_))) {
        got.truncate(closed + 1);
        violation = None;
    }
    // It also takes lengths in a longer form than need be, those of control frames too; RFC 6455 5.2
    // and 5.5 forbid them.
    let long = ["length not in its shortest form", "control frame over 125 bytes"];
    if long.map(|reason| Some(Violation::Protocol(reason))).contains(&violation) {
        return;
    }
    let (mut want, refused) = oracle(bytes);
    // It looks at the text of each fragment, we at that of a whole message.
    if matches!(refused, Some(tungstenite::Error::Utf8(_))) {
        return assert!(got.starts_with(&want));
    }
    // It gives a close with a code of its own for one whose code it does not know or that is forbidden.
    if got.last() == Some(&UNKNOWN_CLOSE) {
        assert_eq!(want.pop(), Some(PROTOCOL_CLOSE));
        want.push(UNKNOWN_CLOSE);
    } else if violation == Some(Violation::Protocol(FORBIDDEN_CLOSE)) {
        assert_eq!(want.pop(), Some(PROTOCOL_CLOSE));
    }
    // It refuses a frame when it has it whole, we when we have its header.
    assert!(refused.is_none() || violation.is_some(), "{refused:?}");
    assert_eq!(got, want);
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
