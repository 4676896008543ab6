//! What nodes write to each other about long-poll sessions (`P-LP-7`), by the mesh or through
//! Redis. Letters may be lost, and then nobody is told so.

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{
    body::Posted,
    question::{Answer, Question},
};
use crate::{
    plane::Plane,
    pubsub::{Instance, Signal},
};

/// Longest wait that is done for another node.
const LONGEST: Duration = Duration::from_secs(60);

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
            Question::Post(messages, _) => {
                let text = |one: &Posted| (one.binary, STANDARD.encode(&one.bytes));
                Self::Post { number, at, millis, messages: messages.iter().map(text).collect() }
            }
        }
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

/// The messages of a [`Letter::Post`].
pub(super) fn messages(texts: Vec<(bool, String)>) -> Vec<Posted> {
    let posted = |(binary, text): (bool, String)| {
        Some(Posted { binary, bytes: STANDARD.decode(text).ok()?.into() })
    };
    texts.into_iter().filter_map(posted).collect()
}
