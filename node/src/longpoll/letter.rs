//! What nodes write to each other about long-poll sessions (`P-LP-7`), by the mesh or through
//! Redis. Letters may be lost, and then nobody is told so.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::{
    body::Posted,
    question::{Answer, Question},
};
use crate::{
    mesh::codec::MAX_FRAME,
    plane::Plane,
    pubsub::{Instance, Signal},
};

/// Longest wait that is done for another node.
const LONGEST: Duration = Duration::from_secs(60);

/// Most bytes of a letter: with its two kinds it is a frame between nodes.
pub(super) const MAX_LETTER: usize = MAX_FRAME - 2;
/// What is in a letter beside the messages of a client, generously.
const ENVELOPE: usize = 16 << 10;
/// What comes before the letter, when more follows it.
const BULK: usize = 1 + 4;

/// Where a session is on its node: shard, slot, and what tells it from an earlier one there.
pub(super) type At = (u16, u32, u64);

/// A letter. Its number is of the node that asks.
#[derive(Serialize, Deserialize)]
pub(super) enum Letter {
    Poll {
        number: u64,
        at: At,
        millis: u64,
    },
    Post {
        number: u64,
        at: At,
        millis: u64,
        messages: Vec<(bool, String)>,
    },
    /// The same with the lengths of the messages, which follow it as they are: for more than would fit in
    /// base64. Nodes of earlier versions don't know it, as they did not get what is so large.
    Bulk {
        number: u64,
        at: At,
        millis: u64,
        messages: Vec<(bool, usize)>,
    },
    /// The question has arrived.
    Known(u64),
    Answer(u64, Answer),
    /// Nobody waits for the poll any more: answer it now.
    Enough(u64),
}

impl Letter {
    /// A question to the session at a place.
    pub(super) fn question(number: u64, at: At, question: &Question) -> Self {
        let millis = u64::try_from(question.window().as_millis()).unwrap_or(u64::MAX);
        match question {
            Question::Poll(_) => Self::Poll { number, at, millis },
            Question::Post(messages, _) if is_bulky(messages) => {
                let length = |one: &Posted| (one.binary, one.bytes.len());
                Self::Bulk { number, at, millis, messages: messages.iter().map(length).collect() }
            }
            Question::Post(messages, _) => {
                let text = |one: &Posted| (one.binary, STANDARD.encode(&one.bytes));
                Self::Post { number, at, millis, messages: messages.iter().map(text).collect() }
            }
        }
    }

    /// A question as it travels: with the messages themselves, if it has their lengths alone.
    pub(super) fn seal_question(&self, question: &Question, plane: &Plane) -> Option<Bytes> {
        let sealed = self.seal(plane)?;
        let (Self::Bulk { .. }, Question::Post(messages, _)) = (self, question) else {
            return Some(sealed);
        };
        let bytes = messages.iter().map(|one| one.bytes.len()).sum::<usize>();
        let mut bulk = BytesMut::with_capacity(BULK + sealed.len() + bytes);
        // No JSON begins so.
        bulk.put_u8(0);
        bulk.put_u32(u32::try_from(sealed.len()).ok()?);
        bulk.put_slice(&sealed);
        messages.iter().for_each(|one| bulk.put_slice(&one.bytes));
        Some(bulk.freeze())
    }

    /// Reads a letter, and what follows it.
    pub(super) fn open(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let Some((0, bulk)) = bytes.split_first() else {
            return Some((serde_json::from_slice(bytes).ok()?, &[]));
        };
        let (length, bulk) = bulk.split_first_chunk()?;
        let (letter, messages) = bulk.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        Some((serde_json::from_slice(letter).ok()?, messages))
    }

    /// As it travels; counted if it can't.
    pub(super) fn seal(&self, plane: &Plane) -> Option<Bytes> {
        let sealed = serde_json::to_vec(self).map(Bytes::from);
        sealed.inspect_err(|_| plane.metrics.drop("longpoll", 1)).ok()
    }

    /// Sends it; after `life` it is of no use any more.
    pub(super) fn send(&self, plane: &Plane, to: Instance, life: Duration) {
        if let Some(letter) = self.seal(plane) {
            send(plane, to, letter, life);
        }
    }
}

/// Sends a letter that is sealed already.
pub(super) fn send(plane: &Plane, to: Instance, letter: Bytes, life: Duration) {
    let until = Instant::now().checked_add(life);
    plane.interest.signal(Some(to), &Signal::Poll(letter), until);
}

/// The question for which another node would wait so many milliseconds.
pub(super) fn window(millis: u64) -> Duration {
    Duration::from_millis(millis).min(LONGEST)
}

/// Whether these messages are too many for base64.
fn is_bulky(messages: &[Posted]) -> bool {
    let encoded = messages.iter().map(|one| one.bytes.len().div_ceil(3).saturating_mul(4));
    encoded.fold(ENVELOPE, usize::saturating_add) > MAX_LETTER
}

/// The messages of a [`Letter::Bulk`], which must be all that follows it.
pub(super) fn bulk(lengths: Vec<(bool, usize)>, mut rest: &[u8]) -> Option<Vec<Posted>> {
    let posted = |(binary, length): (bool, usize)| {
        let (bytes, after) = rest.split_at_checked(length)?;
        rest = after;
        Some(Posted { binary, bytes: Bytes::copy_from_slice(bytes) })
    };
    let messages = lengths.into_iter().map(posted).collect::<Option<_>>()?;
    rest.is_empty().then_some(messages)
}

/// The messages of a [`Letter::Post`].
pub(super) fn messages(texts: Vec<(bool, String)>) -> Vec<Posted> {
    let posted = |(binary, text): (bool, String)| {
        Some(Posted { binary, bytes: STANDARD.decode(text).ok()?.into() })
    };
    texts.into_iter().filter_map(posted).collect()
}
