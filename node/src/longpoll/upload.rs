//! Reads what is posted: not for longer than a request of the session may take, nor for a session that has
//! ended, and no more at once for one session than two of its largest messages, nor than the node has left, so
//! that some is left however many post.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::Duration,
};

use axum::body::Body;
use bytes::Bytes;
use futures::TryStreamExt;
use parking_lot::Mutex;
use tokio::{
    sync::oneshot,
    time::{sleep, timeout},
};

use super::{
    ask::ask,
    question::{Answer, Question},
    token::Session,
};
use crate::{plane::Plane, shard::inbox::Task};

/// Most bodies are there at once: for one that is not by then its session is asked.
const PATIENCE: Duration = Duration::from_millis(100);
/// Between two times that another node is asked whether its session lives.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Why a body is not read to its end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// The session has ended, or has too many bodies read already.
    Gone,
    /// All sessions together have too much read already.
    Full,
    /// It took too long.
    Late,
    /// It is larger than a message may be.
    TooLarge,
    /// The client has gone.
    Broken,
}

/// Bytes of bodies that are being read, wherever their sessions are.
pub(super) struct Uploads(Mutex<Reading>);

struct Reading {
    sessions: HashMap<Session, usize>,
    all: usize,
    /// That all may be.
    most: usize,
}

impl Default for Uploads {
    /// Without a bound for all until one is set.
    fn default() -> Self {
        Self(Mutex::new(Reading { sessions: HashMap::new(), all: 0, most: usize::MAX }))
    }
}

impl Uploads {
    /// How much all may be, when so much may wait for clients.
    pub(super) fn set(&self, buffered: usize) {
        self.0.lock().most = buffered / 2;
    }
}

/// What is held of a body.
struct Held<'a> {
    plane: &'a Plane,
    session: Session,
    bytes: usize,
}

impl Held<'_> {
    /// Takes room for so many bytes more of a session that may hold `most`.
    fn grow(&mut self, bytes: usize, most: usize) -> Result<(), Unread> {
        let taken = self.take(bytes, most);
        match taken {
            Ok(()) => self.bytes += bytes,
            Err(_) => self.plane.metrics.drop("longpoll", 1),
        }
        taken
    }

    fn take(&self, bytes: usize, most: usize) -> Result<(), Unread> {
        let mut reading = self.plane.polls.uploads.0.lock();
        let own = reading.sessions.get(&self.session).copied().unwrap_or_default();
        if bytes > most.saturating_sub(own) {
            return Err(Unread::Gone);
        }
        let all = reading.all.saturating_add(bytes);
        // A session alone may have all it may; others as much as is left after it.
        if all > own + bytes && own + bytes > reading.most.saturating_sub(all) {
            return Err(Unread::Full);
        }
        reading.all = all;
        reading.sessions.insert(self.session, own + bytes);
        Ok(())
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut reading = self.plane.polls.uploads.0.lock();
        reading.all = reading.all.saturating_sub(self.bytes);
        if let Entry::Occupied(mut own) = reading.sessions.entry(self.session) {
            *own.get_mut() = own.get().saturating_sub(self.bytes);
            if *own.get() == 0 {
                own.remove();
            }
        }
    }
}

/// Reads a body of at most `limit` bytes for a session, within `window`.
pub(super) async fn read(
    plane: &Plane,
    session: Session,
    window: Duration,
    limit: usize,
    body: Body,
) -> Result<Bytes, Unread> {
    tokio::select! {
        biased;
        read = timeout(window, whole(plane, session, limit, body)) => read.unwrap_or(Err(Unread::Late)),
        () = ended(plane, session, window) => Err(Unread::Gone),
    }
}

async fn whole(plane: &Plane, session: Session, limit: usize, body: Body) -> Result<Bytes, Unread> {
    let mut held = Held { plane, session, bytes: 0 };
    let (mut parts, mut all) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.try_next().await.map_err(|_| Unread::Broken)? {
        if part.len() > limit - all.len() {
            return Err(Unread::TooLarge);
        }
        held.grow(part.len(), limit.saturating_mul(2))?;
        all.extend_from_slice(&part);
    }
    Ok(all.into())
}

/// Ends with the session.
async fn ended(plane: &Plane, session: Session, window: Duration) {
    sleep(PATIENCE).await;
    if session.node != plane.instance {
        // Another node tells nobody of its sessions' ends: it is asked, by a post of nothing.
        let nothing = || Question::Post(Vec::new(), window);
        while ask(plane, session, nothing()).await != Answer::Gone {
            sleep(ASK_AGAIN).await;
        }
        return;
    }
    let Some(shard) = plane.shards.get(usize::from(session.shard)) else { return };
    let (sender, ended) = oneshot::channel();
    shard.inbox.push(Task::Uploads((session.slot, session.id), sender));
    // The session says nothing: it drops the sender when it ends.
    let _: Result<(), _> = ended.await;
}
