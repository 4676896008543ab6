//! From bytes of a socket to effects: decoding, the protocol, and what it asks for.

use std::{rc::Rc, sync::Arc, time::Instant};

use tokio::time;

use super::{Shard, conn::Conn, fanout::Fanout, inbox::Address, input::Input};
use crate::{
    frame::{self, Item, code},
    hub::Reason,
    longpoll::Posted,
    message::Incoming,
    protocol::Effect,
    pubsub::Broadcast,
    serializer::Undecodable,
};

impl Shard {
    /// Takes bytes from a socket. From a join on that must settle first, messages are held, and from
    /// one on that is published when much is.
    pub(super) fn feed(&self, conn: &Rc<Conn>, input: &mut Input, bytes: &mut [u8]) {
        self.tally.bytes_in.set(self.tally.bytes_in.get() + bytes.len() as u64);
        let (before, now) = (self.delivered.get(), time::Instant::now());
        let mut bytes = bytes;
        while conn.closing.get().is_none() && !conn.dead.get() {
            let item = match input.decoder.next(&mut bytes, conn.max_frame()) {
                Ok(Some(item)) => item,
                Ok(None) => {
                    if input.decoder.took_fragment() {
                        conn.seen.set(now);
                    }
                    return;
                }
                Err(violation) => {
                    input.broken = true;
                    self.close(conn, violation.code());
                    return;
                }
            };
            // P-HB-2: bytes of a frame that does not end keep nobody alive.
            conn.seen.set(now);
            if matches!(item, Item::Text(_) | Item::Binary(_)) {
                conn.begun.set(now);
            }
            self.tally.frames_in.set(self.tally.frames_in.get() + 1);
            let much = self.delivered.get() > before && self.is_long();
            let hold = much || input.holds() || input.waits(conn);
            match item {
                Item::Text(text) if hold => {
                    let bytes = text.into_owned().into();
                    self.hold(conn, input, Posted { binary: false, bytes });
                }
                Item::Binary(data) if hold => {
                    let bytes = data.into_owned().into();
                    self.hold(conn, input, Posted { binary: true, bytes });
                }
                Item::Text(text) => self.receive(conn, input, conn.version.decode(&text)),
                Item::Binary(data) => {
                    self.receive(conn, input, conn.version.decode_binary(&data));
                }
                Item::Ping(data) => self.send(conn, frame::pong(&data)),
                Item::Pong => {}
                Item::Close(code) => return self.closed(conn, input, code),
            }
        }
    }

    pub(super) fn receive(
        &self,
        conn: &Rc<Conn>,
        input: &mut Input,
        message: Result<Incoming<'_>, Undecodable>,
    ) {
        let Ok(message) = message else {
            // P-ERR-4.
            self.close(conn, code::INTERNAL);
            return;
        };
        let now = Instant::now();
        if !self.may_send(conn, &message, now)
            || message.event == "phx_join" && !self.may_join(conn, &message, now)
        {
            return;
        }
        let rules = self.plane.rules.read().clone();
        if let Some(channels) = conn.channels_for(&message, &rules) {
            return self.converse(conn, channels, &message);
        }
        let Some(session) = conn.talk.relay() else { return };
        let mut effects = self.effects.take();
        session.borrow_mut().receive(&message, &rules, now, &mut effects);
        for effect in effects.drain(..) {
            self.carry_out(conn, input, effect);
        }
        self.effects.replace(effects);
    }

    /// Whether a socket may send one more message now; if not, it is told. What keeps a client that is
    /// over its limit alive, and what it ends by itself, finds room for as many again: it would come
    /// back for a heartbeat that is refused, and hear more of what it has left.
    fn may_send(&self, conn: &Rc<Conn>, message: &Incoming<'_>, now: Instant) -> bool {
        let most = conn.mount.max_messages.unwrap_or(u32::MAX);
        let heartbeat = message.topic == "phoenix" && message.event == "heartbeat";
        let seconds = if heartbeat || message.event == "phx_leave" { 2 } else { 1 };
        let mut messages = conn.messages.get();
        let may = messages.take_of(seconds, most, now);
        conn.messages.set(messages);
        if !may {
            self.plane.metrics.reject("messages");
            let reason = format!("too many messages of this socket, at most {most} a second");
            self.say(conn, &message.refuse(message.join_ref.clone(), &reason));
        }
        may
    }

    /// Whether a socket may ask for one more join now; if not, it is told.
    fn may_join(&self, conn: &Rc<Conn>, message: &Incoming<'_>, now: Instant) -> bool {
        let most = conn.mount.max_joins.unwrap_or(u32::MAX);
        let mut joins = conn.joins.get();
        let may = joins.take(most, now);
        conn.joins.set(joins);
        if !may {
            self.plane.metrics.reject("joins");
            let reason = format!("too many joins, at most {most} a second");
            self.say(conn, &message.refuse(message.join_ref.clone(), &reason));
        }
        may
    }

    fn carry_out(&self, conn: &Rc<Conn>, input: &mut Input, effect: Effect) {
        match effect {
            Effect::Send(message) => self.say(conn, &message),
            Effect::Subscribe(topic) => {
                let (topic, ready) = self.plane.interest.acquire(topic, self.id);
                self.table.borrow_mut().hold(topic.clone());
                conn.held.replace(Some(topic));
                match ready {
                    None => self.settle(conn),
                    ready => input.joining = ready,
                }
            }
            Effect::Unsubscribe(topic) => self.unsubscribe(conn, &topic),
            Effect::Reject(word) => self.plane.metrics.reject(word),
            Effect::Publish { broadcast, to_sender } => self.publish(conn, broadcast, to_sender),
        }
    }

    /// A join settles: from here on broadcasts follow its reply (`P-JOIN-2`).
    pub(super) fn settle(&self, conn: &Rc<Conn>) {
        let Some(topic) = conn.held.take() else { return };
        let Some(session) = conn.talk.relay() else { return };
        self.subscribe(conn, &topic);
        let mut effects = Vec::new();
        session.borrow_mut().subscribed(topic, &mut effects);
        for effect in effects {
            self.carry_out(conn, &mut Input::default(), effect);
        }
    }

    /// To the other nodes, then to the subscribers here (`P-PS-2`). Those on this shard are queued
    /// before this returns, so that the sender's reply follows (`P-BC-5`); but not where the rule has had
    /// history since the sender has joined: then they are queued in the order of the inbox.
    fn publish(&self, conn: &Rc<Conn>, broadcast: Broadcast, to_sender: bool) {
        self.plane.metrics.broadcasts.get_or_create(&Reason { reason: "local" }).inc();
        self.plane.interest.send(&broadcast);
        let fanout = Fanout::new(broadcast);
        // P-BC-2.
        let sender = Address { shard: self.id, slot: conn.slot, id: conn.id, key: 0 };
        let fanout = Arc::new(if to_sender { fanout } else { fanout.except(sender) });
        if self.plane.fan_out(&fanout, Some(self.id)) {
            self.fan_out(&fanout);
        }
    }
}
