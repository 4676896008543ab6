//! Answers to polls that are being written: one a session. Its client polls anew only when it has read the
//! one before, or has given it up.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::token::Session;
use crate::plane::Plane;

/// The answers of this node that are being written, by their sessions, wherever these are; an answer ends
/// with its sender.
#[derive(Default)]
pub(super) struct Answers(Mutex<HashMap<Session, oneshot::Sender<()>>>);

/// An answer that its client has not taken yet.
struct Answer {
    plane: Arc<Plane>,
    session: Session,
    messages: u64,
    displaced: oneshot::Receiver<()>,
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.displaced.close();
        let mut answers = self.plane.polls.answers.0.lock();
        // There may be a newer one in its place.
        if answers.get(&self.session).is_some_and(oneshot::Sender::is_closed) {
            answers.remove(&self.session);
        }
    }
}

/// What a connection is answering.
#[derive(Clone, Default)]
pub(crate) struct Answering(Arc<Mutex<Option<Answer>>>);

impl Answering {
    /// The answer to a poll follows, of so many messages. One of the same session that is not taken yet
    /// is cut.
    pub(super) fn begin(&self, plane: &Arc<Plane>, session: Session, messages: u64) {
        let (sender, displaced) = oneshot::channel();
        plane.polls.answers.0.lock().insert(session, sender);
        let plane = plane.clone();
        let before = self.0.lock().replace(Answer { plane, session, messages, displaced });
        drop(before);
    }

    /// All that was to be written is written.
    pub(crate) fn written(&self) {
        let answer = self.0.lock().take();
        drop(answer);
    }

    /// Ready when a newer answer has taken the place of this one.
    pub(crate) fn poll_displaced(&self, context: &mut Context<'_>) -> Poll<()> {
        match &mut *self.0.lock() {
            Some(answer) => Pin::new(&mut answer.displaced).poll(context).map(drop),
            None => Poll::Pending,
        }
    }

    /// The client does not take it: it is dropped.
    pub(crate) fn cut(&self) {
        let answer = self.0.lock().take();
        if let Some(answer) = answer {
            answer.plane.metrics.drop("slow", answer.messages);
        }
    }
}
