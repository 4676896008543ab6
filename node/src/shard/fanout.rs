//! A broadcast on its way to a node's sockets: encoded once for each serializer that is in use.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::{
    frame,
    pubsub::{Broadcast, Kind},
    serializer::{Unfit, Version},
};

/// A broadcast and its frames (`P-BC-3`).
pub(crate) struct Fanout {
    broadcast: Broadcast,
    v1: OnceLock<Result<Bytes, Unfit>>,
    v2: OnceLock<Result<Bytes, Unfit>>,
}

impl Fanout {
    pub(crate) fn new(broadcast: Broadcast) -> Self {
        Self { broadcast, v1: OnceLock::new(), v2: OnceLock::new() }
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
