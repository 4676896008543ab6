//! The protocol of one socket whose topics are channels of a program, sans-I/O: messages and the
//! words of channels in, [`Effect`]s out, in the order in which they must happen.
//!
//! Never sees a socket, an encoding, a task or a clock. Its driver hands over no message while
//! [`Session::is_joining`]: a transport waits while a join settles (`P-JOIN-2`).

use std::{borrow::Cow, sync::Arc};

use serde_json::json;

use super::payload::Payload;
use crate::{
    message::{Body, EMPTY, Incoming, Outgoing, Ref, Status, UNMATCHED},
    protocol::Relinquished,
    pubsub::Kind,
};

#[cfg(test)]
mod tests;

/// Bytes of what a replaced channel says that wait for the reply to the join; one larger message passes when it
/// is alone.
const MAX_HELD: usize = 256 << 10;
/// What a message costs beside its payload.
const OVERHEAD: usize = 128;

/// A channel's number within its socket, never used twice.
pub(crate) type Key = u64;

/// What the driver must do next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Send a message to the client.
    Send(Outgoing),
    /// Start a channel for the join that was handed over, once the channel that it replaces has
    /// ended; then report what becomes of it.
    Start {
        key: Key,
        topic: Arc<str>,
        /// What the channel's replies and pushes carry.
        join_ref: Ref,
        replaces: Option<Key>,
    },
    /// Hand the event that was handed over to a channel.
    Deliver(Key),
    /// Hand a leave to a channel.
    Leave(Key, Ref),
    /// End a channel that was joined anew, in vain.
    Stop(Key),
    /// The join of this topic is accepted: the socket subscribes to it.
    Subscribe(Arc<str>),
    /// The join came to nothing.
    Forget(Arc<str>),
    /// The socket no longer subscribes to the topic.
    Unsubscribe(Arc<str>),
    /// The client wants more than it may: count it under this word.
    Reject(&'static str),
    /// A message does not reach the client: count it under this word.
    Drop(&'static str),
}

impl From<Outgoing> for Effect {
    fn from(message: Outgoing) -> Self {
        Self::Send(message)
    }
}

/// One channel.
#[derive(Debug)]
struct Entry {
    key: Key,
    topic: Arc<str>,
    /// The join's `join_ref` as it came: `phx_close` and `phx_error` carry it.
    join_ref: Ref,
    /// The same, or the join's `ref` if it was null: what else comes carries it (`P-JOIN-4`).
    effective: Ref,
    /// The client has left, and the channel does not know yet.
    leaving: bool,
}

#[derive(Debug)]
struct Joining {
    entry: Entry,
    reference: Ref,
    replaced: Option<Replaced>,
}

/// A channel that was joined anew, and what it has said since.
#[derive(Debug)]
struct Replaced {
    entry: Entry,
    said: Vec<Outgoing>,
    bytes: usize,
}

impl Replaced {
    fn new(entry: Entry) -> Self {
        Self { entry, said: Vec::new(), bytes: 0 }
    }

    /// Keeps a message; whether there was room.
    fn hold(&mut self, message: Outgoing) -> bool {
        let (Body::Reply(_, _, payload) | Body::Event(_, _, payload)) = &message.body;
        let bytes = self.bytes + OVERHEAD + payload.len();
        let fits = bytes <= MAX_HELD || self.said.is_empty();
        if fits {
            self.bytes = bytes;
            self.said.push(message);
        }
        fits
    }
}

/// The channels of one socket.
#[derive(Debug)]
pub(crate) struct Session {
    channels: Vec<Entry>,
    joining: Option<Joining>,
    max_channels: usize,
    next: Key,
}

impl Session {
    /// A socket without channels, that may join `max_channels` (`P-CON-11`).
    pub(crate) fn new(max_channels: usize) -> Self {
        Self { channels: Vec::new(), joining: None, max_channels, next: 0 }
    }

    /// Whether a join must settle before the next message.
    pub(crate) fn is_joining(&self) -> bool {
        self.joining.is_some()
    }

    /// The channel whose join must settle.
    pub(crate) fn joining(&self) -> Option<Key> {
        self.joining.as_ref().map(|joining| joining.entry.key)
    }

    /// Whether a message that waits takes the join back before it that must settle: by a leave, or by
    /// another join of the topic.
    pub(crate) fn is_taken_back(&self, by: &Incoming<'_>) -> bool {
        self.joining.as_ref().is_some_and(|Joining { entry, .. }| {
            *entry.topic == *by.topic
                && match by.event.as_ref() {
                    "phx_join" => true,
                    "phx_leave" => !by.is_stale(&entry.join_ref, &entry.effective),
                    _ => false,
                }
        })
    }

    /// How many channels are joined.
    pub(crate) fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Whether `topic` is joined.
    pub(crate) fn has(&self, topic: &str) -> bool {
        self.channels.iter().any(|entry| *entry.topic == *topic)
    }

    /// It may join so many from now on.
    pub(crate) fn limit(&mut self, max_channels: usize) {
        self.max_channels = max_channels;
    }

    /// Takes over a topic that something else has joined for the socket, whose next join comes here.
    pub(crate) fn adopt(&mut self, joined: Relinquished) {
        let Relinquished { topic, join_ref, effective } = joined;
        // No channel has this key.
        self.channels.push(Entry { key: 0, topic, join_ref, effective, leaving: false });
    }

    /// Takes one message of the client; `routed` tells whether a channel is there for its topic.
    pub(crate) fn receive(
        &mut self,
        message: &Incoming<'_>,
        routed: bool,
        effects: &mut Vec<Effect>,
    ) {
        if message.topic == "phoenix" {
            return effects.push(match message.event.as_ref() {
                "heartbeat" => message.reply(Ref::NULL, Status::Ok, EMPTY).into(),
                _ => message.refuse(Ref::NULL, UNMATCHED).into(),
            });
        }
        let at = self.channels.iter().position(|entry| *entry.topic == *message.topic);
        match (message.event.as_ref(), at) {
            ("phx_join", at) => self.join(message, at, routed, effects),
            ("phx_leave", None) => {
                effects.push(message.reply(message.join_ref.clone(), Status::Ok, EMPTY).into());
            }
            (_, None) => effects.push(message.refuse(Ref::NULL, UNMATCHED).into()),
            (event, Some(at)) => {
                let entry = &mut self.channels[at];
                if message.is_stale(&entry.join_ref, &entry.effective) {
                    return;
                }
                effects.push(match event {
                    // The channel ends with the first leave.
                    "phx_leave" if entry.leaving => return,
                    "phx_leave" => {
                        entry.leaving = true;
                        Effect::Leave(entry.key, message.reference.clone())
                    }
                    _ => Effect::Deliver(entry.key),
                });
            }
        }
    }

    fn join(
        &mut self,
        message: &Incoming<'_>,
        at: Option<usize>,
        routed: bool,
        effects: &mut Vec<Effect>,
    ) {
        if !routed {
            effects.push(message.refuse(Ref::NULL, UNMATCHED).into());
            // P-JOIN-5: a join ends the channel before it, whatever becomes of it.
            let Some(old) = at.map(|at| self.channels.swap_remove(at)) else { return };
            effects.push(Effect::Stop(old.key));
            effects.push(Effect::Unsubscribe(old.topic.clone()));
            return effects.push(old.close());
        }
        if at.is_none() && self.channels.len() >= self.max_channels {
            let reason = "too many channels joined";
            effects.push(Effect::Reject("channels"));
            return effects.push(message.refuse(message.join_ref.clone(), reason).into());
        }
        let replaced = at.map(|at| Replaced::new(self.channels.swap_remove(at)));
        let topic = replaced.as_ref().map(|old| old.entry.topic.clone());
        let topic = topic.unwrap_or_else(|| message.topic.as_ref().into());
        self.next += 1;
        let entry = Entry {
            key: self.next,
            topic: topic.clone(),
            join_ref: message.join_ref.clone(),
            effective: message.join_ref.or(&message.reference),
            leaving: false,
        };
        effects.push(Effect::Start {
            key: entry.key,
            topic: topic.clone(),
            join_ref: entry.effective.clone(),
            replaces: replaced.as_ref().map(|old| old.entry.key),
        });
        if replaced.is_some() {
            // After the start, so that the topic stays of interest to the node.
            effects.push(Effect::Unsubscribe(topic));
        }
        self.joining = Some(Joining { entry, reference: message.reference.clone(), replaced });
    }

    /// Channel `key` has something to say. What comes of one that was joined anew, as its last words do, waits
    /// for the reply to that join: nothing of the topic precedes it (`P-JOIN-2`).
    pub(crate) fn says(&mut self, key: Key, message: Outgoing, effects: &mut Vec<Effect>) {
        let replaced = self.joining.as_mut().and_then(|joining| joining.replaced.as_mut());
        let Some(old) = replaced.filter(|old| old.entry.key == key) else {
            return effects.push(Effect::Send(message));
        };
        if !old.hold(message) {
            effects.push(Effect::Drop("replaced"));
        }
    }

    /// The join of channel `key` is accepted.
    pub(crate) fn joined(&mut self, key: Key, response: Payload, effects: &mut Vec<Effect>) {
        let Some(joining) = self.settled(key) else { return };
        effects.push(Effect::Subscribe(joining.entry.topic.clone()));
        let entry = joining.answer(Status::Ok, response, effects);
        self.channels.push(entry);
    }

    /// The join of channel `key` is refused.
    pub(crate) fn refused(&mut self, key: Key, response: Payload, effects: &mut Vec<Effect>) {
        let Some(joining) = self.settled(key) else { return };
        effects.push(Effect::Forget(joining.entry.topic.clone()));
        joining.answer(Status::Error, response, effects);
    }

    fn settled(&mut self, key: Key) -> Option<Joining> {
        self.joining.take_if(|joining| joining.entry.key == key)
    }

    /// Channel `key` ends gracefully (`P-CLOSE-1`, `P-LEAVE-1`).
    pub(crate) fn closed(&mut self, key: Key, effects: &mut Vec<Effect>) {
        let Some(entry) = self.remove(key) else { return };
        effects.push(Effect::Unsubscribe(entry.topic.clone()));
        effects.push(entry.close());
    }

    /// Channel `key` has ended. Unless that was announced, it is an error (`P-ERR-3`).
    pub(crate) fn ended(&mut self, key: Key, effects: &mut Vec<Effect>) {
        if self.joining.as_ref().is_some_and(|joining| joining.entry.key == key) {
            return self.refused(key, json!({"reason": "join crashed"}).into(), effects);
        }
        let Some(entry) = self.remove(key) else { return };
        effects.push(Effect::Unsubscribe(entry.topic.clone()));
        effects.push(entry.exit("phx_error", json!({"reason": "channel_crash"}).into()));
    }

    /// A message finds no room in the mailbox of channel `key`: the client is told.
    pub(crate) fn busy(&self, key: Key, message: &Incoming<'_>, effects: &mut Vec<Effect>) {
        if let Some(entry) = self.channels.iter().find(|entry| entry.key == key) {
            effects.push(message.refuse(entry.effective.clone(), "too many messages wait").into());
        }
    }

    fn remove(&mut self, key: Key) -> Option<Entry> {
        let at = self.channels.iter().position(|entry| entry.key == key)?;
        Some(self.channels.swap_remove(at))
    }
}

impl Joining {
    /// The join's reply; then what the channel that it replaced has said, and that it is closed (`P-JOIN-5`).
    fn answer(self, status: Status, response: Payload, effects: &mut Vec<Effect>) -> Entry {
        let (kind, response) = response.into_parts();
        effects.push(Effect::Send(Outgoing {
            join_ref: self.entry.join_ref.clone(),
            reference: self.reference,
            topic: self.entry.topic.clone(),
            body: Body::Reply(status, kind, response),
        }));
        if let Some(old) = self.replaced {
            effects.extend(old.said.into_iter().map(Effect::Send));
            effects.push(old.entry.close());
        }
        self.entry
    }
}

impl Entry {
    fn close(&self) -> Effect {
        self.exit("phx_close", ().into())
    }

    fn exit(&self, event: &'static str, payload: Payload) -> Effect {
        Effect::Send(Outgoing {
            join_ref: self.join_ref.clone(),
            reference: self.join_ref.clone(),
            topic: self.topic.clone(),
            body: Body::Event(Cow::Borrowed(event), Kind::Json, payload.into_parts().1),
        })
    }
}
