//! Asks a session, wherever it is, and hears the answer. Every wait is bounded; the questions that
//! wait are, by the connections that ask, and by their bytes.
//!
//! A letter may be lost, as on a connection to Redis that breaks, or because the other node
//! is still connecting anew: a question is repeated until it is known to have arrived. Silence
//! counts only while the other node could be heard: with Redis away its sessions are as alive as
//! its sockets. Nothing that was asked leaves late, when the client has long been told that it was
//! lost.

use std::{collections::HashMap, future::pending, time::Duration};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout, timeout_at},
};

use super::{
    letter::{Letter, MAX_LETTER, send},
    question::{Answer, Question},
    served::{Served, here},
    token::Session,
    unread::Answers,
    upload::Uploads,
};
use crate::{plane::Plane, pubsub::Instance};

/// After so long without a sign of life a session's node is taken for dead (`P-LP-8`).
pub(crate) const DEAD: Duration = Duration::from_secs(2);
/// Between two times that the same is asked, until it is known to have arrived.
const AGAIN: Duration = Duration::from_millis(500);
/// Bytes of all questions that are not known to have arrived.
const MAX_BYTES: usize = 64 << 20;
/// Replies to one question that may wait: more than come, however often it is asked.
const REPLIES: usize = 16;

/// Questions to other nodes that wait, and those of other nodes.
#[derive(Default)]
pub(crate) struct Polls {
    waiting: Mutex<Waiting>,
    pub(super) served: Served,
    /// What is being read of posts, whether they are for sessions here or elsewhere.
    pub(super) uploads: Uploads,
    /// What is being written to their clients.
    pub(super) answers: Answers,
}

#[derive(Default)]
struct Waiting {
    next: u64,
    bytes: usize,
    replies: HashMap<u64, mpsc::Sender<Reply>>,
}

/// What comes back.
pub(super) enum Reply {
    Known,
    Answer(Answer),
}

impl Polls {
    /// Whether nothing that was asked of other nodes waits.
    pub(crate) fn is_quiet(&self) -> bool {
        self.waiting.lock().replies.is_empty()
    }

    /// So much may wait for clients: bodies that are read may take part of it.
    pub(crate) fn set(&self, buffered: usize) {
        self.uploads.set(buffered);
    }

    /// Ends when all that other nodes have asked is answered.
    pub(crate) async fn served(&self) {
        self.served.all_answered().await;
    }

    /// Another node has replied; whoever does not wait any more misses nothing.
    pub(super) fn reply(&self, number: u64, reply: Reply) {
        let waiting = self.waiting.lock();
        if let Some(sender) = waiting.replies.get(&number) {
            let _ = sender.try_send(reply);
        }
    }
}

/// Asks a session, wherever it is.
pub(crate) async fn ask(plane: &Plane, session: Session, question: Question) -> Answer {
    let at = (session.shard, session.slot, session.id);
    if session.node == plane.instance {
        return here(plane, at, question, pending()).await;
    }
    let window = question.window();
    let (is_poll, unasked) = match &question {
        Question::Poll(_) => (true, Answer::Messages(Vec::new())),
        Question::Post(..) => (false, Answer::Late),
    };
    let mut asked = Asked::new(plane, session.node);
    let letter = Letter::question(asked.number, at, &question).seal_question(&question, plane);
    drop(question);
    if letter.as_ref().is_some_and(|letter| letter.len() > MAX_LETTER) {
        return Answer::TooLarge;
    }
    let Some(letter) = letter.filter(|letter| asked.hold(letter.len())) else {
        return Answer::Gone;
    };
    match asked.knock(letter, window, is_poll).await {
        Knocked::Known => asked.answer(window + DEAD).await,
        Knocked::Answer(answer) => answer,
        Knocked::Unasked => unasked,
        Knocked::Silent => Answer::Gone,
    }
}

/// A question to another node; it is taken back when nobody waits any more.
struct Asked<'a> {
    plane: &'a Plane,
    node: Instance,
    number: u64,
    bytes: usize,
    replies: mpsc::Receiver<Reply>,
    /// It is a poll that may wait there, and take what comes for a later one.
    polls: bool,
}

/// What became of a question.
enum Knocked {
    Known,
    Answer(Answer),
    /// It could not be asked even once.
    Unasked,
    Silent,
}

impl<'a> Asked<'a> {
    fn new(plane: &'a Plane, node: Instance) -> Self {
        let (sender, replies) = mpsc::channel(REPLIES);
        let mut waiting = plane.polls.waiting.lock();
        waiting.next += 1;
        let number = waiting.next;
        waiting.replies.insert(number, sender);
        Self { plane, node, number, bytes: 0, replies, polls: false }
    }

    /// Whether there is room for a letter of so many bytes.
    fn hold(&mut self, bytes: usize) -> bool {
        let mut waiting = self.plane.polls.waiting.lock();
        let fits = waiting.bytes + bytes <= MAX_BYTES;
        if fits {
            waiting.bytes += bytes;
            self.bytes = bytes;
        } else {
            self.plane.metrics.drop("longpoll", 1);
        }
        fits
    }

    /// The letter is not needed any more.
    fn release(&mut self) {
        self.plane.polls.waiting.lock().bytes -= std::mem::take(&mut self.bytes);
    }

    /// Asks until there is a sign of life, or too much silence.
    async fn knock(&mut self, letter: Bytes, window: Duration, is_poll: bool) -> Knocked {
        let end = Instant::now() + window;
        let (mut asked, mut silence, mut dead) = (false, Duration::ZERO, DEAD);
        while silence < dead {
            if self.plane.interest.is_up() {
                send(self.plane, self.node, letter.clone(), AGAIN);
                (asked, self.polls) = (true, is_poll);
                silence += AGAIN;
            } else if Instant::now() >= end || self.plane.shutdown.is_cancelled() {
                return if asked { Knocked::Silent } else { Knocked::Unasked };
            } else {
                // The other node may need longer than this one to be back.
                dead = 2 * DEAD;
            }
            match timeout(AGAIN, self.replies.recv()).await {
                Ok(Some(Reply::Known)) => {
                    self.release();
                    return Knocked::Known;
                }
                Ok(Some(Reply::Answer(answer))) => {
                    self.polls = false;
                    return Knocked::Answer(answer);
                }
                Ok(None) => return Knocked::Silent,
                Err(_) => {}
            }
        }
        Knocked::Silent
    }

    /// Waits for the answer; when this node ends, not for longer than the other needs to give it.
    async fn answer(mut self, bound: Duration) -> Answer {
        let shutdown = self.plane.shutdown.clone();
        let mut end = Instant::now() + bound;
        let mut leaves = false;
        loop {
            tokio::select! {
                reply = timeout_at(end, self.replies.recv()) => match reply {
                    Ok(Some(Reply::Known)) => {}
                    Ok(Some(Reply::Answer(answer))) => {
                        self.polls = false;
                        return answer;
                    }
                    Ok(None) | Err(_) => return Answer::Gone,
                },
                () = shutdown.cancelled(), if !leaves => {
                    leaves = true;
                    end = end.min(Instant::now() + DEAD);
                    self.enough();
                }
            }
        }
    }

    /// Tells the session not to wait any longer.
    fn enough(&self) {
        if self.polls {
            Letter::Enough(self.number).send(self.plane, self.node, DEAD);
        }
    }
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        self.release();
        self.plane.polls.waiting.lock().replies.remove(&self.number);
        self.enough();
    }
}
