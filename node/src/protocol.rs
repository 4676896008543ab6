//! The protocol of one socket, sans-I/O: a message in, [`Effect`]s out, in the order in which they
//! must happen.
//!
//! A [`Session`] never sees a socket, an encoding or a clock. Its driver carries out the effects,
//! and hands over no message between [`Effect::Subscribe`] and [`Session::subscribed`]: a transport
//! waits while a join settles (`P-JOIN-2`).

use std::{borrow::Cow, sync::Arc, time::Instant};

use bytes::Bytes;
use serde_json::json;
use smallvec::SmallVec;

use crate::{
    auth::Identity,
    message::{Body, EMPTY, Incoming, Outgoing, Payload, Ref, Status, UNMATCHED},
    paces::Paces,
    pubsub::{Broadcast, Kind},
    relay::Rules,
};

#[cfg(test)]
mod tests;

/// What the driver of a [`Session`] must do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send a message to the client.
    Send(Outgoing),
    /// Subscribe the socket to the topic, then call [`Session::subscribed`].
    Subscribe(Arc<str>),
    /// The socket no longer subscribes the topic.
    Unsubscribe(Arc<str>),
    /// Broadcast to every node; `to_sender`: to this socket too.
    Publish {
        /// What to broadcast.
        broadcast: Broadcast,
        /// Whether this socket receives it too (`P-BC-2`).
        to_sender: bool,
    },
    /// A rule refused what the client wants: count it under this word.
    Reject(&'static str),
}

impl From<Outgoing> for Effect {
    fn from(message: Outgoing) -> Self {
        Self::Send(message)
    }
}

/// One channel of a socket.
#[derive(Debug)]
struct Joined {
    topic: Arc<str>,
    /// The join's `join_ref` as it came: `phx_close` carries it.
    join_ref: Ref,
    /// The same, or the join's `ref` if it was null: later replies carry it (`P-JOIN-4`).
    effective: Ref,
}

/// A channel that was relayed.
pub(crate) struct Relinquished {
    pub(crate) topic: Arc<str>,
    /// The join's `join_ref` as it came.
    pub(crate) join_ref: Ref,
    /// The same, or the join's `ref` if it was null.
    pub(crate) effective: Ref,
}

#[derive(Debug)]
struct Joining {
    join_ref: Ref,
    reference: Ref,
    response: Bytes,
}

/// The channels of one socket.
#[derive(Debug)]
pub struct Session {
    channels: SmallVec<[Joined; 1]>,
    joining: Option<Box<Joining>>,
    max_channels: usize,
    identity: Option<Arc<Identity>>,
    /// Made with the first message that a rule bounds.
    paces: Option<Paces>,
}

impl Session {
    /// A socket without channels, that may join `max_channels` (`P-CON-11`).
    pub fn new(max_channels: usize) -> Self {
        Self { channels: SmallVec::new(), joining: None, max_channels, identity: None, paces: None }
    }

    /// The client bears this token.
    pub fn identify(&mut self, identity: Option<Arc<Identity>>) {
        self.identity = identity;
    }

    /// The client's token.
    pub(crate) fn identity(&self) -> Option<Arc<Identity>> {
        self.identity.clone()
    }

    /// What is left of the socket's allowances.
    pub(crate) fn paces(&mut self) -> Paces {
        self.paces.get_or_insert_default().clone()
    }

    /// It may join so many channels from now on.
    pub(crate) fn limit(&mut self, max_channels: usize) {
        self.max_channels = max_channels;
    }

    /// Forgets a topic that is joined: the socket stays subscribed, and its next join, its close and
    /// its end are for whoever takes it over.
    pub(crate) fn give_up(&mut self, topic: &str) -> Option<Relinquished> {
        let at = self.channels.iter().position(|joined| *joined.topic == *topic)?;
        let Joined { topic, join_ref, effective, .. } = self.channels.swap_remove(at);
        Some(Relinquished { topic, join_ref, effective })
    }

    /// How many channels are joined.
    pub fn channels(&self) -> usize {
        self.channels.len()
    }

    /// Takes one message of the client, at `now`.
    pub fn receive(
        &mut self,
        message: &Incoming<'_>,
        rules: &Rules,
        now: Instant,
        effects: &mut Vec<Effect>,
    ) {
        if message.topic == "phoenix" {
            return effects.push(match message.event.as_ref() {
                "heartbeat" => message.reply(Ref::NULL, Status::Ok, EMPTY).into(),
                _ => message.refuse(Ref::NULL, UNMATCHED).into(),
            });
        }
        let at = self.channels.iter().position(|joined| *joined.topic == *message.topic);
        match (message.event.as_ref(), at) {
            ("phx_join", at) => self.join(message, at, rules, effects),
            ("phx_leave", None) => {
                effects.push(message.reply(message.join_ref.clone(), Status::Ok, EMPTY).into());
            }
            (_, None) => effects.push(message.refuse(Ref::NULL, UNMATCHED).into()),
            (_, Some(at)) if self.channels[at].is_before(message) => {}
            ("phx_leave", Some(at)) => self.leave(message, at, effects),
            (event, Some(at)) if is_asked_about(event, &message.topic, rules) => {
                self.expel(message, at, effects);
            }
            (_, Some(at)) => {
                let pace =
                    |rate| self.paces.get_or_insert_default().take(&message.topic, rate, now);
                push(message, &self.channels[at], rules, pace, effects);
            }
        }
    }

    fn join(
        &mut self,
        message: &Incoming<'_>,
        at: Option<usize>,
        rules: &Rules,
        effects: &mut Vec<Effect>,
    ) {
        let Some(rule) = rules.find(&message.topic) else {
            effects.push(message.refuse(Ref::NULL, UNMATCHED).into());
            return self.replaced_by_nothing(at, effects);
        };
        if !rule.admits(self.identity.as_deref(), &message.topic) {
            effects.push(Effect::Reject("unauthorized"));
            effects.push(message.refuse(message.join_ref.clone(), "unauthorized").into());
            return self.replaced_by_nothing(at, effects);
        }
        let joined = |topic| Joined {
            topic,
            join_ref: message.join_ref.clone(),
            effective: message.join_ref.or(&message.reference),
        };
        if let Some(at) = at {
            // P-JOIN-5: the socket stays subscribed; the old channel closes after the reply.
            let topic = self.channels[at].topic.clone();
            let old = std::mem::replace(&mut self.channels[at], joined(topic));
            let response = rule.join_response().clone();
            effects.push(message.reply(message.join_ref.clone(), Status::Ok, response).into());
            return effects.push(old.close());
        }
        if self.channels.len() >= self.max_channels {
            let reason = "too many channels joined";
            effects.push(Effect::Reject("channels"));
            return effects.push(message.refuse(message.join_ref.clone(), reason).into());
        }
        self.joining = Some(Box::new(Joining {
            join_ref: message.join_ref.clone(),
            reference: message.reference.clone(),
            response: rule.join_response().clone(),
        }));
        effects.push(Effect::Subscribe(message.topic.as_ref().into()));
    }

    /// The subscription that [`Effect::Subscribe`] asked for is made: the join is accepted.
    pub fn subscribed(&mut self, topic: Arc<str>, effects: &mut Vec<Effect>) {
        let Some(joining) = self.joining.take() else { return };
        let Joining { join_ref, reference, response } = *joining;
        let effective = join_ref.or(&reference);
        self.channels.push(Joined { topic: topic.clone(), join_ref: join_ref.clone(), effective });
        let body = Body::Reply(Status::Ok, Kind::Json, response);
        effects.push(Effect::Send(Outgoing { join_ref, reference, topic, body }));
    }

    /// A join that is refused ends the channel that it would have replaced all the same (`P-JOIN-5`):
    /// who may not join a topic any more must not go on hearing it.
    fn replaced_by_nothing(&mut self, at: Option<usize>, effects: &mut Vec<Effect>) {
        let Some(at) = at else { return };
        let old = self.remove(at);
        effects.push(Effect::Unsubscribe(old.topic.clone()));
        effects.push(old.close());
    }

    fn remove(&mut self, at: usize) -> Joined {
        let joined = self.channels.swap_remove(at);
        if self.channels.is_empty() {
            self.channels.shrink_to_fit();
        }
        joined
    }

    fn leave(&mut self, message: &Incoming<'_>, at: usize, effects: &mut Vec<Effect>) {
        let joined = self.remove(at);
        effects.push(Effect::Unsubscribe(joined.topic.clone()));
        effects.push(message.reply(joined.effective.clone(), Status::Ok, EMPTY).into());
        effects.push(joined.close());
    }

    /// Ends a channel whose client is to join anew, as clients do after an error (`P-ERR-1`).
    fn expel(&mut self, message: &Incoming<'_>, at: usize, effects: &mut Vec<Effect>) {
        let joined = self.channels.swap_remove(at);
        let reason = "the rules have changed: join again";
        effects.push(Effect::Unsubscribe(joined.topic.clone()));
        effects.push(message.refuse(joined.effective.clone(), reason).into());
        let payload = json!({ "reason": reason }).to_string();
        effects.push(joined.exit("phx_error", payload.into()));
    }
}

/// Whether the rules have come to want a backend asked, which a relay can't.
fn is_asked_about(event: &str, topic: &str, rules: &Rules) -> bool {
    rules.need_channels() && rules.find(topic).is_some_and(|rule| rule.asks_about(event))
}

impl Joined {
    fn is_before(&self, message: &Incoming<'_>) -> bool {
        message.is_stale(&self.join_ref, &self.effective)
    }

    /// `phx_close` (`P-LEAVE-1`).
    fn close(self) -> Effect {
        self.exit("phx_close", EMPTY)
    }

    fn exit(self, event: &'static str, payload: Bytes) -> Effect {
        Effect::Send(Outgoing {
            join_ref: self.join_ref.clone(),
            reference: self.join_ref,
            topic: self.topic,
            body: Body::Event(Cow::Borrowed(event), Kind::Json, payload),
        })
    }
}

/// An event of a client on a channel that it has joined; `pace` takes it out of the allowance.
fn push(
    message: &Incoming<'_>,
    joined: &Joined,
    rules: &Rules,
    pace: impl FnOnce(u32) -> bool,
    effects: &mut Vec<Effect>,
) {
    let join_ref = joined.effective.clone();
    let Some(rule) = rules.find(&message.topic) else {
        return effects.push(message.refuse(join_ref, UNMATCHED).into());
    };
    let (kind, bytes) = match message.payload {
        Payload::Json(json) => (Kind::Json, json.as_bytes()),
        Payload::Binary(bytes) => (Kind::Binary, bytes),
    };
    let in_pace = rule.check_pace(pace);
    if let Err(refusal) = in_pace.and_then(|()| rule.check(&message.event, kind, bytes)) {
        effects.push(Effect::Reject(refusal.word));
        return effects.push(message.refuse(join_ref, &refusal.reason).into());
    }
    let (event, payload) = (message.event.as_ref().into(), Bytes::copy_from_slice(bytes));
    let broadcast = Broadcast { topic: joined.topic.clone(), event, kind, payload };
    effects.push(Effect::Publish { broadcast, to_sender: rule.include_sender() });
    // P-BC-5: the broadcast precedes the reply, which is JSON for binary too (P-BIN-8).
    effects.push(message.reply(join_ref, Status::Ok, EMPTY).into());
}
