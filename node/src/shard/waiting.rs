//! Frames that wait for sockets of a shard, and the memory that they take.
//!
//! A broadcast's frame is one for all sockets of the shard: a delivery is a pointer in a queue, touches no
//! atomic, and the memory of the frame counts once.

use std::{cell::Cell, rc::Rc, sync::Arc};

use bytes::Bytes;
use prometheus_client::metrics::gauge::Gauge;
use sluice_node_api::config::SlowConsumer;

use super::fanout::Fanout;
use crate::{
    memory::signed,
    serializer::{Unfit, Version},
};

/// A frame that waits.
pub(crate) struct Waiting {
    pub(crate) bytes: Bytes,
    pub(crate) loss: Loss,
    ledger: Rc<Ledger>,
}

/// One place in a queue.
pub(crate) type Frame = Rc<Waiting>;

/// What a frame is worth to a client that is slow.
#[derive(Clone)]
pub(crate) enum Loss {
    /// It must arrive.
    Never,
    /// A broadcast of this topic that may be dropped.
    Broadcast(Arc<str>),
    /// The same, and of no worth when a later one of its topic and event waits too.
    Latest(Arc<str>, Arc<str>),
    /// Tells that so many broadcasts of a topic were.
    Told(Arc<str>, u64),
}

impl Waiting {
    pub(crate) fn new(ledger: &Rc<Ledger>, bytes: Bytes, loss: Loss) -> Frame {
        let frame = Self { bytes, loss, ledger: ledger.clone() };
        ledger.change(0, frame.size());
        Rc::new(frame)
    }

    /// Bytes of memory.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.ledger.change(self.size(), 0);
    }
}

/// Bytes of memory that a shard holds for its clients: frames, room in queues, and what they have sent and is
/// not taken.
#[derive(Default)]
pub(crate) struct Ledger {
    held: Cell<usize>,
    /// What the other shards know of.
    told: Cell<usize>,
}

impl Ledger {
    pub(crate) fn held(&self) -> usize {
        self.held.get()
    }

    /// So many bytes in place of so many.
    pub(crate) fn change(&self, before: usize, now: usize) {
        self.held.set(self.held.get() + now - before);
    }

    /// Bytes more than the other shards know of.
    pub(super) fn untold(&self) -> usize {
        self.held().saturating_sub(self.told.get())
    }

    /// Tells the other shards; gives what all of them hold.
    pub(super) fn publish(&self, all: &Gauge) -> usize {
        let change = signed(self.held()) - signed(self.told.replace(self.held()));
        let sum = if change == 0 { all.get() } else { all.inc_by(change) + change };
        usize::try_from(sum).unwrap_or(0)
    }
}

/// The frames of a broadcast on one shard, each made when a socket first needs it.
pub(super) struct Frames<'a> {
    fanout: &'a Fanout,
    ledger: &'a Rc<Ledger>,
    loss: Loss,
    made: [Option<Result<Frame, Unfit>>; 2],
}

impl<'a> Frames<'a> {
    pub(super) fn new(fanout: &'a Fanout, policy: SlowConsumer, ledger: &'a Rc<Ledger>) -> Self {
        let (topic, event) = (fanout.topic(), &fanout.broadcast().event);
        let loss = match policy {
            SlowConsumer::Disconnect => Loss::Never,
            SlowConsumer::DropOldest => Loss::Broadcast(topic.clone()),
            SlowConsumer::LatestOnly => Loss::Latest(topic.clone(), event.clone()),
        };
        Self { fanout, ledger, loss, made: [None, None] }
    }

    /// The one for a socket of `version`, if there is one.
    pub(super) fn of(&mut self, version: Version) -> Result<Frame, Unfit> {
        let made = &mut self.made[version as usize];
        let frame = made.get_or_insert_with(|| {
            let bytes = self.fanout.frame(version)?.clone();
            Ok(Waiting::new(self.ledger, bytes, self.loss.clone()))
        });
        frame.clone()
    }
}
