//! What a socket has sent and the node has not taken yet. A transport waits while a join settles
//! (`P-JOIN-2`); it is read on meanwhile, as far as there is room, so that a client that goes, or takes
//! its join back, is heard at once. It waits, too, while what it and others have published is written.

use std::{collections::VecDeque, rc::Rc};

use super::{Shard, conn::Conn};
use crate::{
    frame::{self, Decoder},
    interest::Ready,
    longpoll::Posted,
    message::Incoming,
    serializer::{Undecodable, Version},
};

/// Bytes of messages that are held before no more is read.
const MAX_HELD: usize = 64 << 10;
/// Held messages that are looked at when a join begins, for one that takes it back.
pub(super) const MAX_HEEDED: usize = 100;
/// What a held message costs beside its bytes.
const OVERHEAD: usize = size_of::<Posted>();

/// What a connection has read and not used up.
#[derive(Default)]
pub(super) struct Input {
    pub(super) decoder: Decoder,
    /// The relayed join that must settle first.
    pub(super) joining: Option<Ready>,
    /// The frames broke the protocol: what follows means nothing.
    pub(super) broken: bool,
    /// What waits.
    held: Option<Box<Held>>,
}

#[derive(Default)]
struct Held {
    messages: VecDeque<Posted>,
    bytes: usize,
    /// The client has closed after them, with this code.
    closed: Option<Option<u16>>,
}

impl Input {
    /// Whether a join must settle before anything is taken.
    pub(super) fn waits(&self, conn: &Conn) -> bool {
        self.joining.is_some() || conn.talk.is_joining()
    }

    /// Whether something is held.
    pub(super) fn holds(&self) -> bool {
        self.held.is_some()
    }

    /// Whether more may be read. A relayed join waits for no backend: it is not read on meanwhile.
    pub(super) fn has_room(&self) -> bool {
        self.joining.is_none()
            && self.held.as_ref().is_none_or(|held| held.bytes < MAX_HELD && held.closed.is_none())
    }

    /// Memory of all that is not taken, in bytes.
    pub(super) fn weight(&self) -> usize {
        self.decoder.buffered() + self.held.as_ref().map_or(0, |held| held.bytes)
    }

    /// Gives back what nobody will read: the socket is closing.
    pub(super) fn forget(&mut self) {
        self.held = None;
        self.decoder.forget();
    }

    fn hold(&mut self, message: Posted) {
        let held = self.held.get_or_insert_default();
        held.bytes += message.bytes.len() + OVERHEAD;
        held.messages.push_back(message);
    }
}

impl Posted {
    /// As a message of the protocol.
    pub(super) fn read(&self, version: Version) -> Result<Incoming<'_>, Undecodable> {
        if self.binary {
            return version.decode_binary(&self.bytes);
        }
        version.decode(std::str::from_utf8(&self.bytes).map_err(|_| Undecodable)?)
    }
}

impl Shard {
    /// Holds a message until the join has settled.
    pub(super) fn hold(&self, conn: &Conn, input: &mut Input, message: Posted) {
        self.heed(conn, &message);
        input.hold(message);
    }

    /// A message comes while a join settles: the join ends if that takes it back.
    pub(super) fn heed(&self, conn: &Conn, message: &Posted) {
        if let Some(channels) = conn.talk.channels()
            && let Ok(message) = message.read(conn.version)
        {
            channels.heed(&message);
        }
    }

    /// The client closes. What it has sent before is taken first.
    pub(super) fn closed(&self, conn: &Rc<Conn>, input: &mut Input, code: Option<u16>) {
        if let Some(held) = &mut input.held {
            held.closed = Some(code);
            if let Some(channels) = conn.talk.channels() {
                channels.withdraw();
            }
            return;
        }
        conn.peer_closed.set(true);
        self.end(conn, code.unwrap_or(1005), frame::close(code));
    }

    /// Takes what was held, up to a join that must settle first, or until enough is published.
    pub(super) fn resume(&self, conn: &Rc<Conn>, input: &mut Input) {
        let open = || conn.closing.get().is_none() && !conn.dead.get();
        while open() && !input.waits(conn) && !self.is_long() {
            let Some(mut held) = input.held.take() else { return };
            let Some(message) = held.messages.pop_front() else {
                if let Some(code) = held.closed {
                    self.closed(conn, input, code);
                }
                return;
            };
            held.bytes -= message.bytes.len() + OVERHEAD;
            input.held = Some(held);
            self.receive(conn, input, message.read(conn.version));
        }
        if let Some(held) = input.held.as_ref().filter(|_| input.waits(conn)) {
            held.messages.iter().take(MAX_HEEDED).for_each(|message| self.heed(conn, message));
            if let (Some(_), Some(channels)) = (held.closed, conn.talk.channels()) {
                channels.withdraw();
            }
        }
    }
}
