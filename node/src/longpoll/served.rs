//! Answers what is asked of the sessions of this node, by its own connections and by other nodes.
//! What another node asks twice, because it did not hear that it had arrived, is done once.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::pending,
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};
use tokio_util::task::TaskTracker;

use super::{
    ask::{DEAD, Reply},
    letter::{At, Letter, MAX_LETTER, bulk, messages, send, window},
    question::{Answer, Question},
};
use crate::{plane::Plane, pubsub::Instance, shard::inbox::Task};

/// Questions that are kept in mind; those past it are answered too.
const MAX_KEPT: usize = 65_536;

/// Who asks, and the number of the question there.
type Key = (Instance, u64);

/// Questions of other nodes.
#[derive(Default)]
pub(super) struct Served {
    kept: Mutex<HashMap<Key, Kept>>,
    /// Those that are not answered yet.
    open: TaskTracker,
}

enum Kept {
    /// It waits; what ends the wait.
    Open(Option<oneshot::Sender<()>>),
    Answered(Answer),
}

impl Served {
    /// Ends when everything is answered; for a node that ends.
    pub(super) async fn all_answered(&self) {
        self.open.close();
        self.open.wait().await;
    }

    /// A question has come; `None`: for the first time, otherwise what is to be said again.
    fn begin(&self, key: Key, enough: oneshot::Sender<()>) -> Option<Letter> {
        let mut kept = self.kept.lock();
        let full = kept.len() >= MAX_KEPT;
        match kept.entry(key) {
            Entry::Occupied(known) => Some(match known.get() {
                Kept::Open(_) => Letter::Known(key.1),
                Kept::Answered(answer) => Letter::Answer(key.1, answer.clone()),
            }),
            Entry::Vacant(new) => {
                if !full {
                    new.insert(Kept::Open(Some(enough)));
                }
                None
            }
        }
    }

    /// Keeps what to say when the same is asked once more; whether it is kept in mind. What was said
    /// to the client is not: if that was lost the session is, so that it does not go on without it.
    fn end(&self, key: Key, answer: &Answer) -> bool {
        let mut kept = self.kept.lock();
        let Some(known) = kept.get_mut(&key) else { return false };
        *known = Kept::Answered(match answer {
            Answer::Messages(messages) if !messages.is_empty() => Answer::Gone,
            other => other.clone(),
        });
        true
    }

    fn forget(&self, key: Key) {
        self.kept.lock().remove(&key);
    }

    /// Nobody waits for the answer any more.
    fn enough(&self, key: Key) {
        if let Some(Kept::Open(enough)) = self.kept.lock().get_mut(&key)
            && let Some(enough) = enough.take()
        {
            // It may just be over.
            let _ = enough.send(());
        }
    }
}

/// A letter of another node.
pub(crate) fn receive(plane: &Arc<Plane>, from: Instance, letter: &[u8]) {
    let Some((letter, rest)) = Letter::open(letter) else {
        return plane.metrics.drop("longpoll", 1);
    };
    let (number, at, question) = match letter {
        Letter::Poll { number, at, millis } => (number, at, Question::Poll(window(millis))),
        Letter::Post { number, at, millis, messages: texts } => {
            (number, at, Question::Post(messages(texts), window(millis)))
        }
        Letter::Bulk { number, at, millis, messages } => match bulk(messages, rest) {
            Some(messages) => (number, at, Question::Post(messages, window(millis))),
            None => return plane.metrics.drop("longpoll", 1),
        },
        Letter::Known(number) => return plane.polls.reply(number, Reply::Known),
        Letter::Answer(number, answer) => {
            return plane.polls.reply(number, Reply::Answer(answer));
        }
        Letter::Enough(number) => return plane.polls.served.enough((from, number)),
    };
    let (enough, told) = oneshot::channel();
    let life = question.window() + DEAD;
    if let Some(again) = plane.polls.served.begin((from, number), enough) {
        return again.send(plane, from, life);
    }
    let (plane, open) = (plane.clone(), plane.polls.served.open.token());
    tokio::spawn(async move {
        // Who asked waits for so long at the most, and may ask again until then.
        let end = Instant::now() + life;
        Letter::Known(number).send(&plane, from, DEAD);
        let enough = async {
            if told.await.is_err() {
                pending().await
            }
        };
        let answer = tokio::select! {
            biased;
            answer = here(&plane, at, question, enough) => answer,
            // Nobody is left who could answer.
            () = plane.stopped() => Answer::Gone,
        };
        let kept = plane.polls.served.end((from, number), &answer);
        answer_with(&plane, from, number, answer, life);
        drop(open);
        if kept {
            sleep_until(end).await;
            plane.polls.served.forget((from, number));
        }
    });
}

/// Answers a question. What no letter can carry is lost to the client, who is to know it: it comes back.
fn answer_with(plane: &Plane, to: Instance, number: u64, answer: Answer, life: Duration) {
    let letter = Letter::Answer(number, answer).seal(plane);
    match letter.filter(|letter| letter.len() <= MAX_LETTER) {
        Some(letter) => send(plane, to, letter, life),
        None => {
            plane.metrics.drop("longpoll", 1);
            Letter::Answer(number, Answer::Gone).send(plane, to, life);
        }
    }
}

/// Asks a session of this node; a poll ends early with `enough`.
pub(super) async fn here(
    plane: &Plane,
    (shard, slot, id): At,
    question: Question,
    enough: impl Future<Output = ()>,
) -> Answer {
    let Some(shard) = plane.shards.get(usize::from(shard)) else { return Answer::Gone };
    match question {
        Question::Poll(window) => {
            let (sender, mut messages) = oneshot::channel();
            if !shard.inbox.push(Task::Poll((slot, id), sender)) {
                return Answer::Gone;
            }
            let came = tokio::select! {
                came = timeout(window, &mut messages) => came.ok(),
                () = enough => None,
            };
            let Some(came) = came else {
                messages.close();
                // It may have come at the last moment.
                return Answer::Messages(messages.try_recv().unwrap_or_default());
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
