//! Presence: who is on a topic, over all nodes. What changes is told to the subscribers of this
//! node as `presence_diff`, and to the other nodes, which tell theirs (`P-PRES-2`).
//!
//! [`state`] decides; here it is locked, and what it says is sent under the lock, so that the diffs
//! of a topic keep their order. Without an adapter, a node knows its own presences only.

mod follow;
pub(crate) mod state;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::Value;

pub use state::PresenceError;
use state::{Change, Meta, Owner, PORTION, Replica, State, Word, diffs};

use crate::{
    hub::PresencePage,
    plane::Plane,
    pubsub::{Broadcast, Instance, Kind, Signal},
    shard::fanout::Fanout,
};

/// What a client is told after a join (`P-PRES-1`), and of each change (`P-PRES-2`).
pub(crate) const STATE: &str = "presence_state";
const DIFF: &str = "presence_diff";

/// Whether an event is of presence.
pub(crate) fn is_own(event: &str) -> bool {
    [STATE, DIFF].contains(&event)
}

/// Between two words to the other nodes.
const BEAT: Duration = Duration::from_millis(500);
/// How long a node that is cut off may need to come back before its presences leave.
pub(crate) const GRACE: Duration = Duration::from_millis(900);

/// The presences that a node knows.
pub(crate) struct Presence(Mutex<State>);

impl Presence {
    /// Nobody is there yet; `me`: as other nodes know this one.
    pub(crate) fn new(me: Instance) -> Self {
        Self(Mutex::new(State::new(me)))
    }

    /// Tracks `key` for a channel, or replaces its meta; the new `phx_ref`. `alive` is asked under
    /// the lock: a channel that has ended must not leave a ghost.
    pub(crate) fn track(
        &self,
        plane: &Plane,
        of: (&Arc<str>, Owner),
        key: &str,
        meta: Meta,
        update: bool,
        alive: impl FnOnce() -> bool,
    ) -> Result<String, PresenceError> {
        let reference = URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>());
        let mut state = self.0.lock();
        if !alive() {
            return Err(PresenceError);
        }
        let change = state.track(of, key, meta, &reference, update)?;
        tell(plane, state.number(), vec![change]);
        Ok(reference)
    }

    /// Stops tracking `key`, or everything, for a channel.
    pub(crate) fn untrack(&self, plane: &Plane, owner: Owner, key: Option<&str>) {
        let mut state = self.0.lock();
        let changes = state.untrack(owner, key);
        if !changes.is_empty() {
            tell(plane, state.number(), changes);
        }
    }

    /// The presences of a topic.
    pub(crate) fn list(&self, topic: &str) -> Value {
        self.0.lock().list(topic)
    }

    /// The first presences of a topic after a key, at most `limit` keys.
    pub(crate) fn page(&self, topic: &str, after: Option<&str>, limit: usize) -> PresencePage {
        self.0.lock().page(topic, after, limit)
    }

    /// Another node has spoken.
    pub(crate) fn hear(&self, plane: &Plane, from: Replica, word: &[u8]) {
        let Ok(word) = serde_json::from_slice::<Word>(word) else {
            return plane.metrics.drop("presence", 1);
        };
        let mut state = self.0.lock();
        let after = match word {
            Word::Ask => None,
            Word::More(after) => Some(after),
            word => {
                let (changes, answer) = state.hear(from, word, Instant::now());
                publish(plane, &changes);
                if let Some(answer) = answer {
                    send(plane, Some(from), &answer);
                }
                return;
            }
        };
        send(plane, Some(from), &state.portion(after, PORTION));
    }

    /// Another node has been cut off since `since`, for longer than [`GRACE`].
    pub(crate) fn forget(&self, plane: &Plane, replica: Replica, since: Instant) {
        let mut state = self.0.lock();
        let changes = state.forget(replica, since);
        publish(plane, &changes);
    }

    /// Tells the other nodes how far this one is, so that they notice what they have missed.
    pub(crate) async fn beat(plane: Arc<Plane>) {
        let mut beat = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                _ = beat.tick() => {}
                () = plane.shutdown.cancelled() => return,
            }
            let state = plane.presence.0.lock();
            if state.number() > 0 {
                send(&plane, None, &Word::Beat(state.number()));
            }
        }
    }
}

/// To the subscribers here and to the other nodes.
fn tell(plane: &Plane, number: u64, changes: Vec<Change>) {
    publish(plane, &changes);
    send(plane, None, &Word::Delta(number, changes));
}

fn publish(plane: &Plane, changes: &[Change]) {
    for (topic, diff) in diffs(changes) {
        let event = DIFF.into();
        let payload = diff.to_string().into();
        let broadcast = Broadcast { topic, event, kind: Kind::Json, payload };
        plane.fan_out(&Arc::new(Fanout::new(broadcast)), None);
    }
}

fn send(plane: &Plane, to: Option<Replica>, word: &Word) {
    match serde_json::to_vec(word) {
        Ok(word) => plane.interest.signal(to, &Signal::Presence(Bytes::from(word)), None),
        Err(_) => plane.metrics.drop("presence", 1),
    }
}
