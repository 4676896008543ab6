//! The bytes of a mesh link, without I/O: `length (u32 BE) · kind (u8) · body`, where the length
//! counts kind and body.
//!
//! A body of [`Frame::Broadcast`] is `payload kind (u8) · topic length (u16 BE) · event length (u16
//! BE) · topic · event · payload`. Kinds that this version does not know are skipped, so that a newer node may
//! send more. Never trusts a length: past the limit the link is closed before memory is taken.

use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use thiserror::Error;

use super::words::Words;
use crate::pubsub::{Broadcast, Kind, Signal};
use crate::queue::Item;

/// Largest frame of an authenticated link, in bytes: twice the largest message of a client.
pub const MAX_FRAME: usize = 16 << 20;
/// Largest frame of a handshake, in bytes.
pub const MAX_HANDSHAKE_FRAME: usize = 1024;

const HEADER: usize = 4;
/// Payload kind and two lengths.
const FIXED: usize = 1 + 2 + 2;
/// Payloads below this are copied out of the read buffer: a slow reader of one small payload must
/// not keep a whole buffer alive.
const COPY_BELOW: usize = 16 << 10;

const BROADCAST: u8 = 16;
const HEARTBEAT: u8 = 17;
const GOODBYE: u8 = 18;
const SIGNAL: u8 = 19;
pub(super) const INTEREST: u8 = 20;
pub(super) const CONFIRM: u8 = 21;

/// What travels on a link once it is authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A broadcast made on the sending node.
    Broadcast(Broadcast),
    /// The sender is alive. Sent every second, both ways.
    Heartbeat,
    /// The sender is leaving: everything it had to say has been said.
    Goodbye,
    /// What a part of the sending node says to the same part of this one. Its body is `kind (u8) ·
    /// content`.
    Signal(Signal),
    /// What the sending node wants, said on the link that is dialled to it.
    Interest(Words),
    /// Everything that the receiving node has said it wants, up to this number, is in force.
    Confirm(u64),
    /// A kind that this version does not know.
    Unknown(u8),
}

/// Why bytes are not frames. Each ends the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CodecError {
    /// A frame announces more bytes than the link allows.
    #[error("a frame of {0} bytes is over the limit")]
    TooLong(usize),
    /// A frame without a kind, or one whose lengths do not fit.
    #[error("a frame is cut short")]
    Short,
    /// A broadcast whose payload is of no known kind.
    #[error("a payload of unknown kind {0}")]
    Payload(u8),
    /// A topic, pattern or event that is not UTF-8.
    #[error("a topic, pattern or event is not UTF-8")]
    NotUtf8,
}

/// Takes the next whole frame, as (kind, body), from `buf`; `None` until more bytes are there.
///
/// # Errors
/// [`CodecError::TooLong`] past `limit` (kind and body), [`CodecError::Short`] without a kind.
pub fn take(buf: &mut BytesMut, limit: usize) -> Result<Option<(u8, Bytes)>, CodecError> {
    let Some(header) = buf.first_chunk::<HEADER>() else { return Ok(None) };
    let len = u32::from_be_bytes(*header) as usize;
    if len > limit {
        return Err(CodecError::TooLong(len));
    }
    if len == 0 {
        return Err(CodecError::Short);
    }
    if buf.len() < HEADER + len {
        // At most `limit`, which the peer has earned by its handshake.
        buf.reserve(HEADER + len - buf.len());
        return Ok(None);
    }
    buf.advance(HEADER);
    let kind = buf.get_u8();
    Ok(Some((kind, buf.split_to(len - 1).freeze())))
}

/// Takes the next [`Frame`] from `buf`; `None` until more bytes are there.
///
/// # Errors
/// Any [`CodecError`]; the link cannot go on after one.
pub fn decode(buf: &mut BytesMut) -> Result<Option<Frame>, CodecError> {
    let Some((kind, body)) = take(buf, MAX_FRAME)? else { return Ok(None) };
    Ok(Some(match kind {
        BROADCAST => Frame::Broadcast(decode_broadcast(body)?),
        HEARTBEAT => Frame::Heartbeat,
        GOODBYE => Frame::Goodbye,
        SIGNAL => decode_signal(body)?,
        INTEREST => Frame::Interest(Words::decode(body)?),
        CONFIRM => Frame::Confirm((&body[..]).try_get_u64().map_err(|_| CodecError::Short)?),
        other => Frame::Unknown(other),
    }))
}

fn decode_broadcast(mut body: Bytes) -> Result<Broadcast, CodecError> {
    if body.len() < FIXED {
        return Err(CodecError::Short);
    }
    let kind = body.get_u8();
    let kind = Kind::from_byte(kind).ok_or(CodecError::Payload(kind))?;
    let topic_len = usize::from(body.get_u16());
    let event_len = usize::from(body.get_u16());
    if body.len() < topic_len + event_len {
        return Err(CodecError::Short);
    }
    let topic = text(&body.split_to(topic_len))?;
    let event = text(&body.split_to(event_len))?;
    let payload = if body.len() < COPY_BELOW { Bytes::copy_from_slice(&body) } else { body };
    Ok(Broadcast { topic, event, kind, payload })
}

fn decode_signal(mut body: Bytes) -> Result<Frame, CodecError> {
    if body.is_empty() {
        return Err(CodecError::Short);
    }
    let kind = body.get_u8();
    Ok(Signal::from_parts(kind, body).map_or(Frame::Unknown(SIGNAL), Frame::Signal))
}

/// A signal ready for the wire; `None` when it does not fit a frame.
pub fn encode_signal(signal: &Signal) -> Option<Item> {
    let (kind, content) = signal.parts();
    let len = 2 + content.len();
    if len > MAX_FRAME {
        return None;
    }
    let mut head = BytesMut::with_capacity(HEADER + 2);
    head.put_u32(u32::try_from(len).ok()?);
    head.put_u8(SIGNAL);
    head.put_u8(kind);
    Some(Item { head: head.freeze(), payload: content.clone(), until: None })
}

fn text(bytes: &[u8]) -> Result<Arc<str>, CodecError> {
    std::str::from_utf8(bytes).map(Arc::from).map_err(|_| CodecError::NotUtf8)
}

/// A broadcast ready for the wire; `None` when it does not fit a frame (topic or event over 65,535
/// bytes, or the whole over [`MAX_FRAME`]).
pub fn encode(b: &Broadcast) -> Option<Item> {
    let topic_len = u16::try_from(b.topic.len()).ok()?;
    let event_len = u16::try_from(b.event.len()).ok()?;
    let len = 1 + FIXED + b.topic.len() + b.event.len() + b.payload.len();
    if len > MAX_FRAME {
        return None;
    }
    let mut head = BytesMut::with_capacity(HEADER + len - b.payload.len());
    head.put_u32(u32::try_from(len).ok()?);
    head.put_u8(BROADCAST);
    head.put_u8(b.kind.to_byte());
    head.put_u16(topic_len);
    head.put_u16(event_len);
    head.put_slice(b.topic.as_bytes());
    head.put_slice(b.event.as_bytes());
    Some(Item { head: head.freeze(), payload: b.payload.clone(), until: None })
}

/// A heartbeat on the wire.
pub const HEARTBEAT_BYTES: [u8; 5] = [0, 0, 0, 1, HEARTBEAT];
/// A goodbye on the wire.
pub const GOODBYE_BYTES: [u8; 5] = [0, 0, 0, 1, GOODBYE];

/// Wraps `body` as a frame of `kind`, for handshakes.
pub(super) fn frame(kind: u8, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER + 1 + body.len());
    out.put_u32(1 + body.len() as u32);
    out.put_u8(kind);
    out.put_slice(body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wire(e: &Item) -> Vec<u8> {
        [&e.head[..], &e.payload[..]].concat()
    }

    #[test]
    fn refuses_long_and_empty_frames() {
        let mut long = BytesMut::from(&u32::MAX.to_be_bytes()[..]);
        assert_eq!(decode(&mut long), Err(CodecError::TooLong(u32::MAX as usize)));
        let mut empty = BytesMut::from(&[0, 0, 0, 0][..]);
        assert_eq!(decode(&mut empty), Err(CodecError::Short));
    }

    #[test]
    fn a_payload_of_unknown_kind_ends_the_link() {
        let mut buf = BytesMut::from(&frame(BROADCAST, &[7, 0, 1, 0, 1, b't', b'e'])[..]);
        assert_eq!(decode(&mut buf), Err(CodecError::Payload(7)));
    }

    #[test]
    fn a_signal_is_carried_and_one_of_an_unknown_kind_skipped() {
        let signal = Signal::Presence(Bytes::from_static(b"{}"));
        let mut buf = BytesMut::from(&wire(&encode_signal(&signal).unwrap())[..]);
        buf.extend_from_slice(&frame(SIGNAL, &[200, 1]));
        buf.extend_from_slice(&frame(SIGNAL, &[]));
        assert_eq!(decode(&mut buf), Ok(Some(Frame::Signal(signal))));
        assert_eq!(decode(&mut buf), Ok(Some(Frame::Unknown(SIGNAL))));
        assert_eq!(decode(&mut buf), Err(CodecError::Short));
    }

    #[test]
    fn skips_unknown_kinds() {
        let mut buf = BytesMut::from(&frame(200, b"later")[..]);
        buf.extend_from_slice(&HEARTBEAT_BYTES);
        assert_eq!(decode(&mut buf), Ok(Some(Frame::Unknown(200))));
        assert_eq!(decode(&mut buf), Ok(Some(Frame::Heartbeat)));
        assert_eq!(decode(&mut buf), Ok(None));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(
            topic in ".{0,40}", event in ".{0,20}",
            payload in proptest::collection::vec(any::<u8>(), 0..20_000),
            cut in 200_usize..4096, binary: bool,
        ) {
            let kind = if binary { Kind::Binary } else { Kind::Json };
            let b = Broadcast { topic: topic.into(), event: event.into(), kind, payload: payload.into() };
            let bytes = [wire(&encode(&b).unwrap()), GOODBYE_BYTES.to_vec()].concat();
            let mut buf = BytesMut::new();
            let mut got = Vec::new();
            for chunk in bytes.chunks(cut) {
                buf.extend_from_slice(chunk);
                while let Some(f) = decode(&mut buf).unwrap() {
                    got.push(f);
                }
            }
            prop_assert_eq!(got, vec![Frame::Broadcast(b), Frame::Goodbye]);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn any_bytes_end_or_wait_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut buf = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buf) {}
            prop_assert!(buf.capacity() <= MAX_FRAME + 1024);
        }
    }
}
