//! Sockets that may stay for a time only: until the token of their client is over.

use std::{rc::Rc, time::Duration};

use tokio::time::Instant;

use super::{Shard, conn::Conn};
use crate::frame::code;

impl Conn {
    /// Whether its time is over.
    pub(super) fn is_expired(&self) -> bool {
        self.until.get().is_some_and(|until| until <= Instant::now())
    }

    /// The time after which to look at the socket again: `idle`, or sooner if its time is over then.
    pub(super) fn left(&self, idle: Duration) -> Duration {
        let until = self.until.get();
        until.map_or(idle, |at| at.saturating_duration_since(Instant::now()).min(idle))
    }
}

impl Shard {
    /// Closes a socket whose time is over. Any code but 1000 has clients come back, with a new token
    /// if they have one.
    pub(super) fn expire(&self, conn: &Rc<Conn>) {
        if self.close(conn, code::POLICY) {
            self.plane.metrics.expired.inc();
        }
    }
}
