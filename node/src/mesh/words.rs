//! What two nodes say to each other of their interest in topics, as bytes. Without I/O.
//!
//! A body of [`Words`] is `what (u8) · number (u64 BE) · names`, each name `length (u16 BE) ·
//! name`; of a confirmation `number (u64 BE)`. What this version does not know is told from what is
//! broken: a newer node may say more.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::codec::{CONFIRM, CodecError, INTEREST};

/// Bytes of a frame without names: length, kind, what, number.
const BARE: usize = 4 + 1 + 1 + 8;

/// What is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Send everything from here on, and forget what was said before.
    Everything,
    /// These topics have subscribers here.
    On,
    /// These have none any more.
    Off,
    /// Topics that match these patterns are wanted, whether or not anybody subscribes them, and none
    /// that match others.
    Patterns,
    /// That was all: send only what is wanted.
    Whole,
    /// A word of a later version.
    Unknown,
}

impl What {
    fn to_byte(self) -> u8 {
        match self {
            Self::Everything => 0,
            Self::On => 1,
            Self::Off => 2,
            Self::Patterns => 3,
            Self::Whole => 4,
            Self::Unknown => u8::MAX,
        }
    }

    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Everything,
            1 => Self::On,
            2 => Self::Off,
            3 => Self::Patterns,
            4 => Self::Whole,
            _ => Self::Unknown,
        }
    }
}

/// One word of a node on what it wants, and how far it has come with that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Words {
    /// What it says.
    pub what: What,
    /// The number of the last change that is in it.
    pub number: u64,
    /// Well formed.
    names: Bytes,
}

impl Words {
    /// Reads a body.
    ///
    /// # Errors
    /// [`CodecError::Short`], [`CodecError::NotUtf8`].
    pub(super) fn decode(mut body: Bytes) -> Result<Self, CodecError> {
        let what = What::from_byte(body.try_get_u8().map_err(|_| CodecError::Short)?);
        let number = body.try_get_u64().map_err(|_| CodecError::Short)?;
        if what == What::Unknown {
            return Ok(Self { what, number, names: Bytes::new() });
        }
        let mut rest = &body[..];
        while !rest.is_empty() {
            let (name, after) = split(rest).ok_or(CodecError::Short)?;
            std::str::from_utf8(name).map_err(|_| CodecError::NotUtf8)?;
            rest = after;
        }
        Ok(Self { what, number, names: body })
    }

    /// The topics or patterns.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let mut rest = &self.names[..];
        std::iter::from_fn(move || {
            let (name, after) = split(rest)?;
            rest = after;
            std::str::from_utf8(name).ok()
        })
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(u16::from_be_bytes(*length).into())
}

/// Appends a frame with [`Words`]. A name of more than 65,535 bytes is left out: a broadcast on it
/// can't be sent either.
pub(super) fn put<'a>(
    out: &mut BytesMut,
    what: What,
    number: u64,
    names: impl Iterator<Item = &'a str>,
) {
    let start = out.len();
    out.reserve(BARE);
    out.put_u32(0);
    out.put_u8(INTEREST);
    out.put_u8(what.to_byte());
    out.put_u64(number);
    for name in names {
        if let Ok(length) = u16::try_from(name.len()) {
            out.put_u16(length);
            out.put_slice(name.as_bytes());
        }
    }
    let length = out.len() - start - 4;
    out[start..start + 4].copy_from_slice(&(length as u32).to_be_bytes());
}

/// A confirmation on the wire: everything that was said up to `number` is in force. The first one, of
/// 0, asks to be told.
pub(super) fn confirmation(number: u64) -> [u8; 13] {
    let mut out = [0, 0, 0, 9, CONFIRM, 0, 0, 0, 0, 0, 0, 0, 0];
    out[5..].copy_from_slice(&number.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::codec::{Frame, decode, frame};
    use super::*;

    #[test]
    fn a_confirmation_is_read_back_and_a_longer_one_too() {
        let mut buf = BytesMut::from(&confirmation(7 << 40)[..]);
        buf.extend_from_slice(&frame(CONFIRM, &[0, 0, 0, 0, 0, 0, 0, 3, 99]));
        buf.extend_from_slice(&frame(CONFIRM, &[1]));
        assert_eq!(decode(&mut buf), Ok(Some(Frame::Confirm(7 << 40))));
        assert_eq!(decode(&mut buf), Ok(Some(Frame::Confirm(3))));
        assert_eq!(decode(&mut buf), Err(CodecError::Short));
    }

    #[test]
    fn a_word_of_a_later_version_is_told_from_a_broken_one() {
        let said = |body: &[u8]| decode(&mut BytesMut::from(&frame(INTEREST, body)[..]));
        let unknown = Words { what: What::Unknown, number: 1, names: Bytes::new() };
        let later = [&[77, 0, 0, 0, 0, 0, 0, 0, 1][..], b"whatever"].concat();
        assert_eq!(said(&later), Ok(Some(Frame::Interest(unknown))));
        assert_eq!(said(&[1, 0, 0]), Err(CodecError::Short));
        assert_eq!(said(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2, b'x']), Err(CodecError::Short));
        assert_eq!(said(&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 255]), Err(CodecError::NotUtf8));
    }

    proptest! {
        #[test]
        fn what_is_said_is_heard(
            names in proptest::collection::vec(".{0,40}", 0..20), number: u64, what in 0..=4u8,
        ) {
            let mut buf = BytesMut::from(&b"x"[..]);
            put(&mut buf, What::from_byte(what), number, names.iter().map(String::as_str));
            buf.advance(1);
            let Ok(Some(Frame::Interest(words))) = decode(&mut buf) else { panic!("no words") };
            prop_assert_eq!((words.what, words.number), (What::from_byte(what), number));
            prop_assert_eq!(words.names().collect::<Vec<_>>(), names);
            prop_assert!(buf.is_empty());
        }

        #[test]
        fn any_body_is_words_or_not(body in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(words) = Words::decode(body.into()) {
                words.names().for_each(drop);
            }
        }
    }
}
