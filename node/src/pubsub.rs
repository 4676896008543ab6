//! What crosses between the part of a node that holds sockets and the part that talks to other
//! nodes: a [`Broadcast`], the [`Adapter`] that carries it, and the [`Local`] side that receives.
//!
//! Nothing here does I/O or knows a socket.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use futures::future::BoxFuture;

/// What a [`Broadcast`] carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// One JSON object, encoded.
    #[default]
    Json,
    /// Bytes, for sockets that speak V2 (`P-BIN-4`).
    Binary,
}

impl Kind {
    /// The byte that stands for it between nodes.
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Json => 0,
            Self::Binary => 1,
        }
    }

    /// What a byte from another node stands for.
    pub fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            0 => Some(Self::Json),
            1 => Some(Self::Binary),
            _ => None,
        }
    }
}

/// One event on one topic, on its way to every subscriber (`P-BC-1`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broadcast {
    /// The exact topic.
    pub topic: Arc<str>,
    /// The event's name.
    pub event: Arc<str>,
    /// What the payload is.
    pub kind: Kind,
    /// The payload.
    pub payload: Bytes,
}

/// A run of a node's process: 16 random bytes.
pub type Instance = [u8; 16];

/// What the parts of one node say to the same parts of another; no client sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Of presence.
    Presence(Bytes),
    /// Of long-poll sessions.
    Poll(Bytes),
}

impl Signal {
    /// The byte that stands for its kind between nodes, and its content.
    pub fn parts(&self) -> (u8, &Bytes) {
        match self {
            Self::Presence(bytes) => (1, bytes),
            Self::Poll(bytes) => (2, bytes),
        }
    }

    /// From such parts; `None` for a kind that this version does not know.
    pub fn from_parts(kind: u8, bytes: Bytes) -> Option<Self> {
        match kind {
            1 => Some(Self::Presence(bytes)),
            2 => Some(Self::Poll(bytes)),
            _ => None,
        }
    }
}

/// Carries broadcasts to the other nodes and brings theirs to [`Local::deliver`].
pub trait Adapter: Send + Sync + 'static {
    /// Sends to the other nodes. Never blocks: what finds no room is dropped and counted
    /// (`P-PS-3`, at most once). One caller's broadcasts keep their order (`P-PS-4`).
    fn send(&self, broadcast: &Broadcast);

    /// Sends a signal to one other node, or to all. As [`Adapter::send`]; an adapter that knows no
    /// nodes carries none. What has not left by `until` is dropped, and never late.
    fn signal(&self, to: Option<Instance>, signal: &Signal, until: Option<Instant>) {
        let _ = (to, signal, until);
    }

    /// Whether what is said now leaves for the other nodes, and what they say is heard. While it
    /// is not so, their silence means nothing.
    fn is_up(&self) -> bool {
        true
    }

    /// This node has its first subscriber of `topic`. The future ends when broadcasts made on
    /// other nodes will arrive here, or when waiting any longer would be worse than joining.
    fn subscribe(&self, topic: &Arc<str>) -> BoxFuture<'static, ()>;

    /// This node's last subscriber of `topic` is gone.
    fn unsubscribe(&self, topic: &Arc<str>);

    /// What other nodes broadcast on topics that match these patterns is for this node, subscribed or
    /// not; what matches others no longer. Said once all topics that had subscribers before are
    /// subscribed, and on each change. An adapter that can't do it carries what is subscribed.
    fn set_patterns(&self, patterns: &[Arc<str>]) {
        let _ = patterns;
    }
}

/// The subscribers on this node.
pub trait Local: Send + Sync + 'static {
    /// Hands a broadcast that came from another node to every subscriber here.
    fn deliver(&self, broadcast: Broadcast);

    /// Another node has sent a signal.
    fn signal(&self, from: Instance, signal: Signal) {
        let _ = (from, signal);
    }

    /// Another node is cut off, or silent; it may come back.
    fn departed(&self, instance: Instance) {
        let _ = instance;
    }
}
