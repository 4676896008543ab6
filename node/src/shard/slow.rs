//! Clients that read more slowly than their topics speak. What waits for one is bounded by bytes and
//! by age. Past that, broadcasts whose topic rule says so are dropped, and the client is told; one
//! for which other things wait too long, or too many, is given up.

use std::{rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{
    Shard,
    conn::Conn,
    outbox::{Excess, Shed},
};
use crate::{
    frame::{self, code},
    message::{Body, Outgoing, Ref},
    pubsub::Kind,
    serializer::Version,
};

/// What tells a client that broadcasts of a topic have been dropped.
pub(crate) const DROPPED: &str = "sluice:dropped";

/// The frame that tells so; it is as a broadcast is.
pub(super) fn notice(version: Version, topic: &Arc<str>, count: u64) -> bytes::Bytes {
    let payload = format!(r#"{{"count":{count}}}"#).into();
    let message = Outgoing {
        join_ref: Ref::NULL,
        reference: Ref::NULL,
        topic: topic.clone(),
        body: Body::Event(DROPPED.into(), Kind::Json, payload),
    };
    let mut bytes = Vec::new();
    // Only bytes can be unfit.
    let _ = version.encode(&message, &mut bytes);
    frame::text(&bytes)
}

impl Shard {
    /// More waits for a socket than may: writes at once, drops what may be dropped, and gives up a
    /// client for which that is not enough.
    pub(super) fn relieve(&self, conn: &Rc<Conn>) {
        self.flush(conn);
        for excess in [Excess::Superseded, Excess::Bytes] {
            if conn.is_over() {
                self.shed(conn, excess);
            }
        }
        if conn.is_over() {
            self.give_up(conn, "slow");
        }
    }

    /// Drops broadcasts that may be.
    pub(super) fn shed(&self, conn: &Rc<Conn>, excess: Excess) -> Shed {
        let shed = conn.shed(excess);
        if shed.dropped > 0 {
            let reason = match excess {
                Excess::Superseded => "superseded",
                Excess::Memory => "memory",
                Excess::Bytes | Excess::Age => "oldest",
            };
            self.plane.metrics.drop(reason, shed.dropped);
            self.mark(conn);
        }
        shed
    }

    /// Closes the socket of a client that reads too slowly; what waits for it is dropped.
    pub(super) fn give_up(&self, conn: &Rc<Conn>, reason: &'static str) -> u64 {
        let dropped = conn.clear();
        self.plane.metrics.drop(reason, dropped);
        self.close(conn, code::POLICY);
        dropped
    }

    /// Looks at the sockets whose frames wait.
    pub(super) fn check_behind(&self) {
        let now = Instant::now();
        let mut behind = std::mem::take(&mut *self.behind.borrow_mut());
        behind.retain(|conn| {
            conn.watched.set(conn.is_behind() && !conn.dead.get());
            conn.watched.get()
        });
        for conn in &behind {
            let stuck = conn.closing.get().is_none() && conn.is_stuck(now);
            // A session that nobody polls ends by its own time.
            if stuck && conn.polled.is_none() && self.shed(conn, Excess::Age).late {
                self.give_up(conn, "slow");
            }
        }
        self.behind.borrow_mut().append(&mut behind);
    }
}
