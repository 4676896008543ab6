//! A broadcast on its way to a node's sockets: encoded once for each serializer that is in use.

use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{inbox::Address, table::Slot};
use crate::{
    channel::room::{NodeRoom, OfNode},
    frame,
    pubsub::{Broadcast, Kind},
    serializer::{Unfit, Version},
};

/// A broadcast and its frames (`P-BC-3`).
pub(crate) struct Fanout {
    broadcast: Broadcast,
    /// The channel that has made it, and does not receive it.
    except: Option<Address>,
    v1: OnceLock<Result<Bytes, Unfit>>,
    v2: OnceLock<Result<Bytes, Unfit>>,
    /// The room that it has in mailboxes, if any waits for it.
    kept: Mutex<Weak<OfNode>>,
}

impl Fanout {
    pub(crate) fn new(broadcast: Broadcast) -> Self {
        let (v1, v2, kept) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        Self { broadcast, except: None, v1, v2, kept }
    }

    /// Not for the channel at `address` (`P-BC-2`).
    pub(crate) fn except(self, address: Address) -> Self {
        Self { except: Some(address), ..self }
    }

    /// Whether the socket `id` in `slot` of `shard` is left out: it has one channel a topic.
    pub(crate) fn leaves_out(&self, shard: u16, slot: Slot, id: u64) -> bool {
        self.except.is_some_and(|a| (a.shard, a.slot, a.id) == (shard, slot, id))
    }

    pub(crate) fn broadcast(&self) -> &Broadcast {
        &self.broadcast
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.broadcast.topic
    }

    pub(crate) fn event(&self) -> &str {
        &self.broadcast.event
    }

    /// About how many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.broadcast.payload.len() + self.broadcast.topic.len() + self.broadcast.event.len()
    }

    /// Its room in mailboxes, however many it waits in; none if the node has not as much left.
    pub(super) fn kept(&self, node: &Arc<NodeRoom>) -> Option<Arc<OfNode>> {
        let mut kept = self.kept.lock();
        if let Some(kept) = kept.upgrade() {
            return Some(kept);
        }
        let claimed = node.claim(self.len()).map(Arc::new)?;
        *kept = Arc::downgrade(&claimed);
        Some(claimed)
    }

    /// The frame for sockets of `version`, if there is one.
    pub(crate) fn frame(&self, version: Version) -> Result<&Bytes, Unfit> {
        let frame = match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        };
        let frame = frame.get_or_init(|| {
            let mut message = Vec::new();
            version.encode_broadcast(&self.broadcast, &mut message)?;
            Ok(match self.broadcast.kind {
                Kind::Json => frame::text(&message),
                Kind::Binary => frame::binary(&message),
            })
        });
        frame.as_ref().map_err(|unfit| *unfit)
    }
}
