//! Reads what is posted: not for longer than a request of the session may take, nor for a session that has
//! ended, and no more at once for one session than two of its largest messages.

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
    /// It took too long.
    Late,
    /// It is larger than a message may be.
    TooLarge,
    /// The client has gone.
    Broken,
}

/// Bytes of bodies that are being read, by their sessions, wherever these are.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<Session, usize>>);

/// What is held of a body.
struct Held<'a> {
    plane: &'a Plane,
    session: Session,
    bytes: usize,
}

impl Held<'_> {
    /// Takes room for so many bytes more; whether the session has it, which may hold `most`.
    fn grow(&mut self, bytes: usize, most: usize) -> bool {
        let mut uploads = self.plane.polls.uploads.0.lock();
        let all = uploads.entry(self.session).or_default();
        let fits = bytes <= most.saturating_sub(*all);
        if fits {
            *all += bytes;
            self.bytes += bytes;
        } else {
            self.plane.metrics.drop("longpoll", 1);
        }
        fits
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut all) = self.plane.polls.uploads.0.lock().entry(self.session) {
            *all.get_mut() = all.get().saturating_sub(self.bytes);
            if *all.get() == 0 {
                all.remove();
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
        if !held.grow(part.len(), limit.saturating_mul(2)) {
            return Err(Unread::Gone);
        }
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
