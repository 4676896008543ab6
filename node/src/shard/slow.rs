//! Clients that read more slowly than their topics speak. What waits for one is bounded by bytes and
//! by age. Past that, broadcasts whose topic rule says so are dropped, and the client is told; one
//! for which other things wait too long, or too many, is given up.

use std::{rc::Rc, sync::Arc};

use tokio::time::Instant;

use super::{Shard, conn::Conn, outbox::Excess};
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
            self.give_up(conn);
        }
    }

    /// Drops broadcasts that may be; whether something else has waited for too long.
    pub(super) fn shed(&self, conn: &Rc<Conn>, excess: Excess) -> bool {
        let shed = conn.shed(excess);
        if shed.dropped > 0 {
            let reason = if excess == Excess::Superseded { "superseded" } else { "oldest" };
            self.plane.metrics.drop(reason, shed.dropped);
            self.mark(conn);
        }
        shed.late
    }

    /// Closes the socket of a client that reads too slowly; what waits for it is dropped.
    fn give_up(&self, conn: &Rc<Conn>) {
        self.plane.metrics.drop("slow", conn.clear());
        self.close(conn, code::POLICY);
    }

    /// Looks at the sockets whose kernel buffer is full.
    pub(super) fn check_blocked(&self) {
        let now = Instant::now();
        let mut blocked = std::mem::take(&mut *self.blocked.borrow_mut());
        blocked.retain(|conn| {
            conn.watched.set(conn.blocked.get() && !conn.dead.get());
            conn.watched.get()
        });
        for conn in &blocked {
            let open = conn.closing.get().is_none();
            if open && conn.is_stuck(now) && self.shed(conn, Excess::Age) {
                self.give_up(conn);
            }
        }
        self.blocked.borrow_mut().append(&mut blocked);
    }
}
