//! What a topic rule says of clients that read too slowly.

use serde::{Deserialize, Serialize};

/// What becomes of a client that takes the broadcasts of a topic more slowly than they come: when
/// more than 256 KiB wait for it, or something for 10 seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum SlowConsumer {
    /// Its socket is closed with 1008: it comes back, and misses what was broadcast meanwhile.
    #[default]
    Disconnect,
    /// The oldest broadcasts that wait for it are dropped, and it is told how many by an event
    /// `sluice:dropped`, `{"count": 3}`. Replies are never dropped.
    DropOldest,
    /// As soon as it takes no more, only the last broadcast of each event of a topic waits for it: for
    /// what is a state, such as a price or a position. It is told how many were dropped as with
    /// `DropOldest`.
    LatestOnly,
}

impl SlowConsumer {
    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
