//! Sockets whose topics are channels, of a program or of the stock node: carries out what [`channel::session`] decides,
//! and what channels say.
//!
//! A channel is a task of this shard. It speaks through the shard's inbox only, so that what it
//! broadcasts and what it replies keep their order (`P-BC-5`).
//!
//! [`channel::session`]: crate::channel::session

use std::{
    cell::RefCell,
    rc::Rc,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    Shard,
    conn::Conn,
    fanout::Fanout,
    inbox::{Address, Said},
};
use crate::{
    channel::{
        Accept, Connect, End, Payload, Router,
        ctx::{Inner, Socket},
        mailbox::{Mail, Mailbox, Order, mailbox},
        room::SocketRoom,
        router::Route,
        session::{Effect, Key, Session},
        task::Start,
    },
    frame,
    message::{Incoming, Outgoing, Ref},
    plane::Plane,
    pubsub::Kind,
    stock::StockChannel,
};

/// The channels of one socket.
pub(crate) struct Channels {
    /// The program's; without one all topics are for the channel of the stock node.
    router: Option<Router>,
    socket: Arc<Socket>,
    /// What may wait for all of them.
    room: Arc<SocketRoom>,
    session: RefCell<Session>,
    handles: RefCell<Vec<Handle>>,
}

/// A running channel.
struct Handle {
    key: Key,
    topic: Arc<str>,
    mailbox: Mailbox,
    intercept: &'static [&'static str],
}

impl Channels {
    /// Of a program.
    pub(super) fn program(
        router: &Router,
        connect: &Arc<Connect>,
        accept: &Accept,
        max_channels: usize,
    ) -> Self {
        Self::new(Some(router.clone()), Socket::new(connect.clone(), accept), max_channels)
    }

    /// Of the stock node.
    pub(super) fn stock(socket: Socket, max_channels: usize) -> Self {
        Self::new(None, socket, max_channels)
    }

    fn new(router: Option<Router>, socket: Socket, max_channels: usize) -> Self {
        Self {
            router,
            socket: Arc::new(socket),
            room: Arc::default(),
            session: RefCell::new(Session::new(max_channels)),
            handles: RefCell::default(),
        }
    }

    pub(super) fn session(&self) -> &RefCell<Session> {
        &self.session
    }

    /// The channel that a topic is for, by the program's routes or the node's rules.
    fn route(&self, topic: &str, plane: &Plane) -> Option<Route> {
        match &self.router {
            Some(router) => router.find(topic).cloned(),
            None => {
                let found = plane.rules.read().find(topic).is_some();
                found.then(Route::to::<StockChannel>)
            }
        }
    }

    /// The socket is gone or closing: its channels end (`P-ERR-5`).
    pub(super) fn hang_up(&self) {
        for handle in self.handles.take() {
            handle.mailbox.order(Order::Stop(End::Disconnected));
        }
    }

    /// Takes the join under way back if the client leaves its topic, or joins it anew.
    pub(super) fn heed(&self, message: &Incoming<'_>) {
        if self.session.borrow().is_taken_back(message) {
            self.withdraw();
        }
    }

    /// Nobody waits for the join under way any more.
    pub(super) fn withdraw(&self) {
        let Some(key) = self.session.borrow().joining() else { return };
        let handles = self.handles.borrow();
        if let Some(handle) = handles.iter().find(|handle| handle.key == key) {
            handle.mailbox.order(Order::Withdraw);
        }
    }

    /// Hands a broadcast to the channel if it intercepts the event (`P-BC-4`); whether it had room.
    pub(super) fn intercept(&self, fanout: &Fanout, plane: &Plane) -> Option<bool> {
        // The stock node intercepts nothing.
        self.router.as_ref()?;
        let (handles, broadcast) = (self.handles.borrow(), fanout.broadcast());
        let handle = handles.iter().find(|handle| handle.topic == broadcast.topic)?;
        handle.intercept.contains(&fanout.event()).then(|| {
            let Some(kept) = fanout.kept(&plane.mailed) else { return false };
            let payload = Payload::from_parts(broadcast.kind, broadcast.payload.clone());
            handle.mailbox.push(Mail::Out { event: broadcast.event.clone(), payload, _kept: kept })
        })
    }

    fn remove(&self, key: Key) -> Option<Handle> {
        let mut handles = self.handles.borrow_mut();
        let at = handles.iter().position(|handle| handle.key == key)?;
        Some(handles.swap_remove(at))
    }

    /// Queues a mail for a channel; false when its mailbox is full. What is for a channel that has
    /// just ended is lost.
    fn deliver(&self, key: Key, mail: Mail) -> bool {
        let handles = self.handles.borrow();
        let handle = handles.iter().find(|handle| handle.key == key);
        handle.is_none_or(|handle| handle.mailbox.push(mail) || handle.mailbox.is_gone())
    }
}

impl Shard {
    /// A message of the client.
    pub(super) fn converse(&self, conn: &Rc<Conn>, channels: &Channels, message: &Incoming<'_>) {
        let mut effects = Vec::new();
        // No other message needs to know.
        let routed =
            message.event == "phx_join" && channels.route(&message.topic, &self.plane).is_some();
        channels.session.borrow_mut().receive(message, routed, &mut effects);
        for effect in effects {
            match effect {
                Effect::Start { key, topic, join_ref, replaces } => {
                    let payload = Payload::of(message.payload);
                    self.start_channel(conn, channels, (key, join_ref), topic, payload, replaces);
                }
                Effect::Deliver(key) => {
                    let (event, payload) = (message.event.as_ref(), Payload::of(message.payload));
                    let (event, reference) = (event.to_owned(), message.reference.clone());
                    if !channels.deliver(key, Mail::In { event, payload, reference }) {
                        self.plane.metrics.drop("mailbox", 1);
                        let mut effects = Vec::new();
                        channels.session.borrow().busy(key, message, &mut effects);
                        effects.into_iter().for_each(|effect| self.perform(conn, effect));
                    }
                }
                Effect::Leave(key, reference) => {
                    channels.deliver(key, Mail::Leave(reference));
                }
                Effect::Stop(key) => {
                    if let Some(old) = channels.remove(key) {
                        old.mailbox.order(Order::Abort(End::Replaced));
                    }
                }
                effect => self.perform(conn, effect),
            }
        }
    }

    fn start_channel(
        &self,
        conn: &Rc<Conn>,
        channels: &Channels,
        (key, join_ref): (Key, Ref),
        topic: Arc<str>,
        payload: Payload,
        replaces: Option<Key>,
    ) {
        let Some(route) = channels.route(&topic, &self.plane) else { return };
        let (topic, ready) = self.plane.interest.acquire(topic, self.id);
        self.table.borrow_mut().hold(topic.clone());
        conn.held.replace(Some(topic.clone()));
        let after = replaces.and_then(|old| channels.remove(old)).map(|old| old.mailbox);
        if let Some(old) = &after {
            old.order(Order::Abort(End::Replaced));
        }
        let (mailbox, mails) = mailbox(channels.room.clone(), self.plane.mailed.clone());
        let inner = Inner {
            plane: self.plane.clone(),
            address: Address { shard: self.id, slot: conn.slot, id: conn.id, key },
            topic: topic.clone(),
            socket: channels.socket.clone(),
            join_ref,
            mailbox: mailbox.clone(),
            joined: AtomicBool::new(false),
            stock: channels.router.is_none(),
        };
        let start = Start { inner: Arc::new(inner), mails, payload, after, ready };
        let intercept = route.intercept;
        channels.handles.borrow_mut().push(Handle { key, topic, mailbox, intercept });
        tokio::task::spawn_local((route.start)(start));
    }

    /// A channel speaks.
    pub(super) fn said(&self, address: Address, said: Said) {
        let conn = self.conns.borrow().get(address.slot as usize).cloned();
        let Some(conn) = conn.filter(|conn| conn.id == address.id) else { return };
        let Some(channels) = conn.talk.channels() else { return };
        if conn.dead.get() || conn.closing.get().is_some() {
            return;
        }
        let mut effects = Vec::new();
        let mut session = channels.session.borrow_mut();
        let waiting = session.is_joining();
        match said {
            Said::Send(message) => session.says(address.key, message, &mut effects),
            Said::Joined(response) => session.joined(address.key, response, &mut effects),
            Said::Refused(response) => session.refused(address.key, response, &mut effects),
            Said::Close => {
                // What is broadcast from now on is not for it, but for a channel that comes after.
                channels.remove(address.key);
                session.closed(address.key, &mut effects);
            }
            Said::Ended => {
                channels.remove(address.key);
                session.ended(address.key, &mut effects);
            }
        }
        let settled = waiting && !session.is_joining();
        drop(session);
        effects.into_iter().for_each(|effect| self.perform(&conn, effect));
        if settled {
            conn.wake();
            self.take_posts(&conn);
        }
    }

    fn perform(&self, conn: &Rc<Conn>, effect: Effect) {
        match effect {
            Effect::Send(message) => self.say(conn, &message),
            Effect::Subscribe(topic) => {
                conn.held.take();
                self.subscribe(conn, &topic);
            }
            Effect::Forget(topic) => {
                conn.held.take();
                if self.table.borrow_mut().unhold(&topic) {
                    self.plane.interest.release(&topic, self.id);
                }
            }
            Effect::Unsubscribe(topic) => self.unsubscribe(conn, &topic),
            Effect::Reject(word) => self.plane.metrics.reject(word),
            Effect::Drop(word) => self.plane.metrics.drop(word, 1),
            // Only a message of the client brings these.
            Effect::Start { .. } | Effect::Deliver(_) | Effect::Leave(..) | Effect::Stop(_) => {}
        }
    }

    pub(super) fn subscribe(&self, conn: &Conn, topic: &Arc<str>) {
        self.table.borrow_mut().subscribe(conn.slot, topic);
        self.plane.metrics.channels.inc();
    }

    pub(super) fn unsubscribe(&self, conn: &Conn, topic: &Arc<str>) {
        self.plane.metrics.channels.dec();
        if self.table.borrow_mut().unsubscribe(conn.slot, topic) {
            self.plane.interest.release(topic, self.id);
        }
    }

    /// Encodes and queues a message.
    pub(super) fn say(&self, conn: &Rc<Conn>, message: &Outgoing) {
        let mut bytes = Vec::new();
        match conn.version.encode(message, &mut bytes) {
            Ok(Kind::Json) => self.send(conn, frame::text(&bytes)),
            Ok(Kind::Binary) => self.send(conn, frame::binary(&bytes)),
            Err(unfit) => self.plane.metrics.drop(unfit.reason(), 1),
        }
    }
}
