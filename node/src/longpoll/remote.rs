//! Brings a request to the session it is for, on this node or through the mesh (`P-LP-7`), and the
//! answer back. Every wait is bounded; the questions that wait are, by the connections that ask.

use std::{collections::HashMap, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{body::Posted, token::Session};
use crate::{
    plane::Plane,
    pubsub::{Instance, Signal},
    shard::inbox::Task,
};

/// After so long without a sign of life a session's node is taken for dead (`P-LP-8`).
pub(crate) const DEAD: Duration = Duration::from_secs(2);
/// Longest wait that is done for another node.
const LONGEST: Duration = Duration::from_secs(60);

/// What is asked of a session.
pub(crate) enum Question {
    /// What there is to say, now or within a time.
    Poll(Duration),
    /// Take these messages, within a time.
    Post(Vec<Posted>, Duration),
}

/// What a session answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Messages, oldest first; none when the time is over.
    Messages(Vec<String>),
    /// The messages are taken.
    Taken,
    /// They were not in time (`P-LP-4`).
    Late,
    /// There is no such session.
    Gone,
}

/// What nodes say to each other.
#[derive(Serialize, Deserialize)]
enum Letter {
    Poll {
        number: u64,
        at: (u16, u32, u64),
        millis: u64,
    },
    Post {
        number: u64,
        at: (u16, u32, u64),
        millis: u64,
        messages: Vec<(bool, String)>,
    },
    /// The question has arrived.
    Known(u64),
    Answer(u64, Answer),
}

enum Reply {
    Known,
    Answer(Answer),
}

/// Questions to other nodes that wait.
#[derive(Default)]
pub(crate) struct Polls(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    next: u64,
    replies: HashMap<u64, mpsc::Sender<Reply>>,
}

/// Takes the question back when nobody waits any more.
struct Asked<'a>(&'a Polls, u64);

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.0.0.lock().replies.remove(&self.1);
    }
}

/// Asks a session, wherever it is.
pub(crate) async fn ask(plane: &Plane, session: Session, question: Question) -> Answer {
    if session.node == plane.instance {
        return here(plane, (session.shard, session.slot, session.id), question).await;
    }
    let (sender, mut replies) = mpsc::channel(2);
    let number = {
        let mut waiting = plane.polls.0.lock();
        waiting.next += 1;
        let number = waiting.next;
        waiting.replies.insert(number, sender);
        number
    };
    let _asked = Asked(&plane.polls, number);
    let at = (session.shard, session.slot, session.id);
    let (letter, window) = match question {
        Question::Poll(window) => (Letter::Poll { number, at, millis: millis(window) }, window),
        Question::Post(messages, window) => {
            let messages =
                messages.iter().map(|one| (one.binary, STANDARD.encode(&one.bytes))).collect();
            (Letter::Post { number, at, millis: millis(window), messages }, window)
        }
    };
    send(plane, session.node, &letter);
    let mut bound = DEAD;
    loop {
        match timeout(bound, replies.recv()).await {
            Ok(Some(Reply::Known)) => bound = window + DEAD,
            Ok(Some(Reply::Answer(answer))) => return answer,
            Ok(None) | Err(_) => return Answer::Gone,
        }
    }
}

/// Asks a session of this node.
async fn here(plane: &Plane, (shard, slot, id): (u16, u32, u64), question: Question) -> Answer {
    let Some(shard) = plane.shards.get(usize::from(shard)) else { return Answer::Gone };
    match question {
        Question::Poll(window) => {
            let (sender, mut messages) = oneshot::channel();
            if !shard.inbox.push(Task::Poll((slot, id), sender)) {
                return Answer::Gone;
            }
            let late = timeout(window, &mut messages).await;
            let came = match late {
                Ok(came) => came.ok(),
                Err(_) => {
                    messages.close();
                    // It may have come at the last moment.
                    return Answer::Messages(messages.try_recv().unwrap_or_default());
                }
            };
            came.map_or(Answer::Gone, Answer::Messages)
        }
        Question::Post(messages, window) => {
            let (sender, taken) = oneshot::channel();
            if !shard.inbox.push(Task::Post((slot, id), messages, sender)) {
                return Answer::Gone;
            }
            match timeout(window, taken).await {
                Ok(Ok(())) => Answer::Taken,
                Ok(Err(_)) => Answer::Gone,
                Err(_) => Answer::Late,
            }
        }
    }
}

/// A letter of another node.
pub(crate) fn receive(plane: &Arc<Plane>, from: Instance, letter: &[u8]) {
    let Ok(letter) = serde_json::from_slice::<Letter>(letter) else {
        return plane.metrics.drop("longpoll", 1);
    };
    let (number, at, question) = match letter {
        Letter::Poll { number, at, millis } => (number, at, Question::Poll(window(millis))),
        Letter::Post { number, at, millis, messages } => {
            let posted = |(binary, text): (bool, String)| {
                Some(Posted { binary, bytes: STANDARD.decode(text).ok()?.into() })
            };
            let messages = messages.into_iter().filter_map(posted).collect();
            (number, at, Question::Post(messages, window(millis)))
        }
        Letter::Known(number) => return reply(plane, number, Reply::Known),
        Letter::Answer(number, answer) => return reply(plane, number, Reply::Answer(answer)),
    };
    let plane = plane.clone();
    tokio::spawn(async move {
        send(&plane, from, &Letter::Known(number));
        let answer = here(&plane, at, question).await;
        send(&plane, from, &Letter::Answer(number, answer));
    });
}

fn reply(plane: &Plane, number: u64, reply: Reply) {
    let waiting = plane.polls.0.lock();
    if let Some(sender) = waiting.replies.get(&number) {
        // It has room for both replies; whoever does not wait any more misses nothing.
        let _ = sender.try_send(reply);
    }
}

fn send(plane: &Plane, to: Instance, letter: &Letter) {
    match serde_json::to_vec(letter) {
        Ok(letter) => plane.interest.signal(Some(to), &Signal::Poll(Bytes::from(letter))),
        Err(_) => plane.metrics.drop("longpoll", 1),
    }
}

fn millis(window: Duration) -> u64 {
    u64::try_from(window.as_millis()).unwrap_or(u64::MAX)
}

fn window(millis: u64) -> Duration {
    Duration::from_millis(millis).min(LONGEST)
}
