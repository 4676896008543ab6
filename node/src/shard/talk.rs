//! What speaks for a socket: the relay, channels, or both. Which of the two a topic of the stock
//! node is for is decided here, once a join; a program's mount has channels alone.
//!
//! A topic that is joined stays with what it was joined by, whatever the rules become; the next
//! join of it goes by the rules then.

use std::{
    cell::{OnceCell, RefCell},
    sync::Arc,
};

use super::{channels::Channels, conn::Conn, fanout::Fanout};
use crate::{
    channel::{Connect, Transport, ctx::Socket},
    handshake::Opening,
    message::Incoming,
    plane::Plane,
    protocol::Session,
    relay::{Rule, Rules},
};

/// What speaks for a socket.
pub(crate) struct Talk {
    /// Relays by the node's rules: on WebSockets of the stock node.
    relay: Option<RefCell<Session>>,
    /// On the stock node made when a topic first needs it, so that a socket that is relayed pays
    /// for no more than the room of a pointer.
    channels: OnceCell<Box<Channels>>,
}

impl Talk {
    /// For a socket that opens while `rules` are in force.
    pub(super) fn new(opening: &Opening, rules: &Rules) -> Self {
        let most = opening.mount.max_channels.unwrap_or_default();
        let connect = opening.connect.as_ref();
        let channels = OnceCell::new();
        if let (Some(router), Some(connect)) = (&opening.mount.router, connect) {
            let channels = Channels::program(router, connect, &opening.accept, most);
            return Self { relay: None, channels: Box::new(channels).into() };
        }
        let polled = connect.is_some_and(|connect| connect.transport == Transport::Longpoll);
        // A long-poll session has no task that could wait for a relayed join.
        let mut relay = (!polled).then(|| Session::new(most));
        if let Some(relay) = &mut relay {
            relay.identify(opening.accept.assigns.get().cloned());
        }
        if let Some(connect) = connect.filter(|_| polled || rules.need_channels()) {
            let mut socket = Socket::new(Arc::new(connect.kept()), &opening.accept);
            if let Some(relay) = &mut relay {
                socket.paces = relay.paces();
            }
            // It can't be set yet.
            let _ = channels.set(Box::new(Channels::stock(socket, most)));
        }
        Self { relay: relay.map(RefCell::new), channels }
    }

    /// What relays, if anything does.
    pub(super) fn relay(&self) -> Option<&RefCell<Session>> {
        self.relay.as_ref()
    }

    /// Its channels, if it has any.
    pub(super) fn channels(&self) -> Option<&Channels> {
        self.channels.get().map(Box::as_ref)
    }

    /// Whether a channel's join must settle before anything else is read.
    pub(super) fn is_joining(&self) -> bool {
        self.channels().is_some_and(|channels| channels.session().borrow().is_joining())
    }

    /// The socket is gone or closing: its channels end (`P-ERR-5`).
    pub(super) fn hang_up(&self) {
        if let Some(channels) = self.channels() {
            channels.hang_up();
        }
    }

    /// Hands a broadcast to the channel that intercepts it, if one does; whether it had room.
    pub(super) fn intercept(&self, fanout: &Fanout, plane: &Plane) -> Option<bool> {
        self.channels().and_then(|channels| channels.intercept(fanout, plane))
    }
}

impl Conn {
    /// The channels that a message is for; none when it is relayed. Asked once a message: a join of
    /// a topic that changes from the one to the other is prepared here.
    pub(super) fn channels_for(&self, message: &Incoming<'_>, rules: &Rules) -> Option<&Channels> {
        let Talk { relay, channels: cell } = &self.talk;
        let (Some(relay), topic) = (relay, &*message.topic) else { return self.talk.channels() };
        if cell.get().is_none() && !rules.need_channels() {
            return None;
        }
        let count = || cell.get().map_or(0, |channels| channels.session().borrow().channels());
        let joined = cell.get().filter(|channels| channels.session().borrow().has(topic));
        if message.event != "phx_join" {
            return joined.map(Box::as_ref);
        }
        let most = self.mount.max_channels.unwrap_or_default();
        let mut relay = relay.borrow_mut();
        if joined.is_none() && !rules.find(topic).is_some_and(Rule::needs_channel) {
            relay.limit(most.saturating_sub(count()));
            return None;
        }
        let channels = cell.get_or_init(|| {
            // It was opened when no rule needed to know more of it.
            let connect = Arc::new(Connect::unknown(self.peer()));
            let mut socket = Socket::identified(connect, self.id(), relay.identity());
            socket.paces = relay.paces();
            Box::new(Channels::stock(socket, most))
        });
        let mut session = channels.session().borrow_mut();
        if let Some(old) = relay.give_up(topic) {
            session.adopt(old);
        }
        session.limit(most.saturating_sub(relay.channels()));
        Some(channels)
    }

    /// The socket's id.
    fn id(&self) -> Option<Arc<str>> {
        let name = self.name.take();
        self.name.set(name.clone());
        name
    }
}
