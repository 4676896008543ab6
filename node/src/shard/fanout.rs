//! A broadcast on its way to a node's sockets: encoded once for each serializer that is in use.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{frame, pubsub::Broadcast, serializer::Version};

/// A broadcast and its frames (`P-BC-3`).
pub(crate) struct Fanout {
    broadcast: Broadcast,
    v1: OnceLock<Bytes>,
    v2: OnceLock<Bytes>,
}

impl Fanout {
    pub(crate) fn new(broadcast: Broadcast) -> Self {
        Self { broadcast, v1: OnceLock::new(), v2: OnceLock::new() }
    }

    pub(crate) fn topic(&self) -> &Arc<str> {
        &self.broadcast.topic
    }

    /// About how many bytes it takes.
    pub(crate) fn len(&self) -> usize {
        self.broadcast.payload.len() + self.broadcast.topic.len() + self.broadcast.event.len()
    }

    /// The frame for sockets of `version`.
    pub(crate) fn frame(&self, version: Version) -> &Bytes {
        let frame = match version {
            Version::V1 => &self.v1,
            Version::V2 => &self.v2,
        };
        frame.get_or_init(|| {
            let mut message = Vec::new();
            version.encode_broadcast(&self.broadcast, &mut message);
            frame::text(&message)
        })
    }
}
