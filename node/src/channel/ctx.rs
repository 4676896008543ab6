//! What a channel does to the world: pushes, replies, broadcasts, messages to itself.
//!
//! A [`Ctx`] may be cloned and used from any thread, for as long as it is wanted; once the channel
//! has ended it does nothing but answer what was asked before. Nothing here blocks.

use std::{
    fmt,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Map, Value};

use super::{
    behaviour::{End, ReplyTo},
    connect::{Accept, Connect, Transport},
    mailbox::{Mail, Mailbox, Order},
    payload::Payload,
};
use crate::{
    auth::Identity,
    history,
    hub::Reason,
    message::{Body, MAX_FIELD, Outgoing, Ref, Status},
    paces::Paces,
    plane::Plane,
    presence::PresenceError,
    pubsub::Broadcast,
    shard::{
        fanout::Fanout,
        inbox::{Address, Said, Task},
    },
};

/// Why something could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The join is not accepted yet.
    #[error("nothing can be sent before the join is accepted")]
    NotJoined,
    /// The payload of an event is a JSON value that is no object (`P-V2-3`).
    #[error("the payload of an event must be an object or binary")]
    NotAnObject,
    /// A name is too long to be sent with bytes (`P-BIN-5`).
    #[error("topic and event of a binary message have at most 255 bytes")]
    TooLong,
}

/// The socket that a channel belongs to.
#[derive(Debug)]
pub struct Socket {
    /// What was known when it connected.
    pub connect: Arc<Connect>,
    /// Its id (`P-CON-10`).
    pub id: Option<Arc<str>>,
    pub(crate) assigns: http::Extensions,
    /// What is left of its allowances, by the rules of the stock node.
    pub(crate) paces: Paces,
}

impl Socket {
    pub(crate) fn new(connect: Arc<Connect>, accept: &Accept) -> Self {
        let (id, assigns) = (accept.id.clone(), accept.assigns.clone());
        Self { connect, id, assigns, paces: Paces::default() }
    }

    /// One of which no more is known than its id and token.
    pub(crate) fn identified(
        connect: Arc<Connect>,
        id: Option<Arc<str>>,
        identity: Option<Arc<Identity>>,
    ) -> Self {
        let mut assigns = http::Extensions::new();
        if let Some(identity) = identity {
            assigns.insert(identity);
        }
        Self { connect, id, assigns, paces: Paces::default() }
    }

    /// A value that the connect callback has kept.
    pub fn assign<T: Clone + Send + Sync + 'static>(&self) -> Option<&T> {
        self.assigns.get()
    }

    /// How the client is connected.
    pub fn transport(&self) -> Transport {
        self.connect.transport
    }
}

/// The hands of a channel. `I` is its [`Channel::Info`](super::Channel::Info).
pub struct Ctx<I = ()> {
    inner: Arc<Inner>,
    info: PhantomData<fn(I)>,
}

pub(crate) struct Inner {
    pub(crate) plane: Arc<Plane>,
    pub(crate) address: Address,
    pub(crate) topic: Arc<str>,
    pub(crate) socket: Arc<Socket>,
    /// What replies and pushes carry.
    pub(crate) join_ref: Ref,
    pub(crate) mailbox: Mailbox,
    pub(crate) joined: AtomicBool,
    /// Whether the channel is that of the stock node.
    pub(crate) stock: bool,
}

impl Inner {
    pub(crate) fn say(&self, said: Said) {
        let shard = self.plane.shards.get(usize::from(self.address.shard));
        let task = Task::Said(self.address, said);
        if shard.is_some_and(|shard| !shard.inbox.push(task)) {
            self.plane.metrics.drop("inbox", 1);
        }
    }

    /// The join is accepted.
    pub(crate) fn accept(&self, response: Payload) {
        let say = |response| self.say(Said::Joined(response));
        match self.stock {
            true => history::accept(&self.plane, &self.topic, response, say),
            false => say(response),
        }
    }

    pub(crate) fn send(&self, reference: Ref, body: Body) {
        let (join_ref, topic) = (self.join_ref.clone(), self.topic.clone());
        self.say(Said::Send(Outgoing { join_ref, reference, topic, body }));
    }

    pub(crate) fn reply(&self, to: Ref, status: Status, response: Payload) {
        let (kind, bytes) = response.into_parts();
        self.send(to, Body::Reply(status, kind, bytes));
    }
}

impl<I> Clone for Ctx<I> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), info: PhantomData }
    }
}

impl<I> fmt::Debug for Ctx<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ctx").field("topic", &self.inner.topic).finish_non_exhaustive()
    }
}

impl<I: Send + 'static> Ctx<I> {
    pub(super) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, info: PhantomData }
    }

    /// The node.
    pub(crate) fn plane(&self) -> &Plane {
        &self.inner.plane
    }

    /// What tells this join from the others of its socket; of two the later has the larger.
    pub(crate) fn join(&self) -> u64 {
        self.inner.address.key
    }

    /// Why the channel has been told to end, if it has.
    pub(crate) fn ordered(&self) -> Option<End> {
        self.inner.mailbox.ordered().end()
    }

    /// Ends when nobody waits for the join any more: the client leaves, joins the topic anew, or has
    /// closed.
    pub(crate) async fn withdrawn(&self) {
        self.inner.mailbox.told().await;
    }

    /// The topic.
    pub fn topic(&self) -> &str {
        &self.inner.topic
    }

    /// The socket.
    pub fn socket(&self) -> &Socket {
        &self.inner.socket
    }

    /// Sends an event to this channel's client.
    ///
    /// # Errors
    ///
    /// [`SendError`], with nothing sent.
    pub fn push(&self, event: &str, payload: impl Into<Payload>) -> Result<(), SendError> {
        let payload = payload.into();
        self.check(&self.inner.topic, event, &payload)?;
        let (kind, bytes) = payload.into_parts();
        self.inner.send(Ref::NULL, Body::Event(event.to_owned().into(), kind, bytes));
        Ok(())
    }

    /// Replies to a message, now or later, once or often (`P-PUSH-4`).
    pub fn reply(&self, to: &ReplyTo, status: Status, response: impl Into<Payload>) {
        self.inner.reply(to.0.clone(), status, response.into());
    }

    /// Broadcasts to every subscriber of the topic, on all nodes, this channel included (`P-BC-1`).
    ///
    /// # Errors
    ///
    /// [`SendError`], with nothing sent.
    pub fn broadcast(&self, event: &str, payload: impl Into<Payload>) -> Result<(), SendError> {
        self.publish(&self.inner.topic, event, payload)
    }

    /// As [`Ctx::broadcast`], but not to this channel (`P-BC-2`).
    ///
    /// # Errors
    ///
    /// [`SendError`], with nothing sent.
    pub fn broadcast_from(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        let broadcast = self.message(&self.inner.topic, event, payload.into())?;
        self.inner.plane.interest.send(&broadcast);
        self.deliver(Fanout::new(broadcast).except(self.inner.address));
        Ok(())
    }

    /// As [`Ctx::broadcast`], on this node only (`P-BC-6`).
    ///
    /// # Errors
    ///
    /// [`SendError`], with nothing sent.
    pub fn broadcast_local(
        &self,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        let broadcast = self.message(&self.inner.topic, event, payload.into())?;
        self.deliver(Fanout::new(broadcast));
        Ok(())
    }

    /// Broadcasts on any topic. Event `disconnect` on the id of sockets closes these (`P-CON-10`).
    ///
    /// # Errors
    ///
    /// [`SendError`], with nothing sent.
    pub fn publish(
        &self,
        topic: &Arc<str>,
        event: &str,
        payload: impl Into<Payload>,
    ) -> Result<(), SendError> {
        let broadcast = self.message(topic, event, payload.into())?;
        self.inner.plane.interest.send(&broadcast);
        self.deliver(Fanout::new(broadcast));
        Ok(())
    }

    /// Tracks this channel under `key` (`P-PRES-5`); the meta's `phx_ref`. What the client must know
    /// at first, [`Ctx::presences`], is for the program to push, as `presence_state`.
    ///
    /// Unlike a payload, a meta keeps no number that fits neither 64 bits nor a double: such an id belongs
    /// into a text.
    ///
    /// # Errors
    ///
    /// When this channel tracks the key already, or very many (`P-PRES-8`).
    pub fn track(&self, key: &str, meta: Map<String, Value>) -> Result<String, PresenceError> {
        self.presence(key, meta, false)
    }

    /// Replaces the meta of `key`; its new `phx_ref` (`P-PRES-4`).
    ///
    /// # Errors
    ///
    /// When this channel does not track the key.
    pub fn update(&self, key: &str, meta: Map<String, Value>) -> Result<String, PresenceError> {
        self.presence(key, meta, true)
    }

    fn presence(
        &self,
        key: &str,
        meta: Map<String, Value>,
        update: bool,
    ) -> Result<String, PresenceError> {
        let Inner { plane, address, topic, joined, .. } = &*self.inner;
        let alive = || joined.load(Ordering::Acquire);
        plane.presence.track(plane, (topic, address.owner()), key, meta, update, alive)
    }

    /// Stops tracking `key`, if it is tracked. The end of the channel does that for all its keys.
    pub fn untrack(&self, key: &str) {
        let Inner { plane, address, .. } = &*self.inner;
        plane.presence.untrack(plane, address.owner(), Some(key));
    }

    /// The topic's presences on all nodes, in the form of `presence_state` (`P-PRES-1`).
    pub fn presences(&self) -> Value {
        self.inner.plane.presence.list(&self.inner.topic)
    }

    /// Sends a message to this channel; false when too much waits for it, or it has ended.
    pub fn send(&self, info: I) -> bool {
        self.counted(self.inner.mailbox.push(Mail::Info(Box::new(info))))
    }

    /// Sends a message to this channel after a time, if it lives then; false when too many wait
    /// for theirs. To be called on a tokio runtime.
    pub fn send_after(&self, after: Duration, info: I) -> bool {
        self.counted(self.inner.mailbox.push_after(after, Mail::Info(Box::new(info))))
    }

    /// Ends the channel at once, in the middle of whatever it does; to the client that is a crash
    /// (`P-ERR-3`).
    pub fn kill(&self) {
        self.inner.mailbox.order(Order::Kill);
    }

    fn counted(&self, done: bool) -> bool {
        if !done {
            self.inner.plane.metrics.drop("mailbox", 1);
        }
        done
    }

    fn check(&self, topic: &str, event: &str, payload: &Payload) -> Result<(), SendError> {
        if !self.inner.joined.load(Ordering::Acquire) {
            return Err(SendError::NotJoined);
        }
        if !payload.is_event() {
            return Err(SendError::NotAnObject);
        }
        let long = topic.len() > MAX_FIELD || event.len() > MAX_FIELD;
        if long && payload.is_binary() { Err(SendError::TooLong) } else { Ok(()) }
    }

    fn message(
        &self,
        topic: &Arc<str>,
        event: &str,
        payload: Payload,
    ) -> Result<Broadcast, SendError> {
        self.check(topic, event, &payload)?;
        let (kind, payload) = payload.into_parts();
        Ok(Broadcast { topic: topic.clone(), event: event.into(), kind, payload })
    }

    fn deliver(&self, fanout: Fanout) {
        let plane = &self.inner.plane;
        plane.metrics.broadcasts.get_or_create(&Reason { reason: "local" }).inc();
        plane.fan_out(&Arc::new(fanout), None);
    }
}
