//! What clients have sent and the node has not taken: messages that are not whole, and those held while a join
//! settles. A socket's own is bounded by its largest message; that of all sockets counts with what waits for
//! them, and who has sent most for longest is closed when both together are too much.

use std::rc::Rc;

use tokio::time::Instant;

use super::{READ, Shard, conn::Conn, input::Input};
use crate::frame::code;

impl Shard {
    /// Counts what is held of a socket; looks at once whether that is too much, if it is much more.
    pub(super) fn weigh(&self, conn: &Rc<Conn>, input: &Input) {
        let now = input.weight();
        if now == conn.unfinished.get() || conn.closing.get().is_some() || conn.dead.get() {
            return;
        }
        self.recount(conn, now);
        // Not a lock for each read: what is less is told with the next turn.
        if self.ledger.untold() > READ {
            self.account();
        }
    }

    /// So many bytes are held of a socket now.
    pub(super) fn recount(&self, conn: &Conn, now: usize) {
        let before = conn.unfinished.replace(now);
        if before == 0 && now > 0 {
            conn.begun.set(Instant::now());
        }
        self.ledger.change(before, now);
    }

    /// Closes the socket of a client that has sent more than there is room for; gives how many messages that
    /// costs.
    pub(super) fn turn_away(&self, conn: &Rc<Conn>) -> u64 {
        let dropped = conn.clear();
        self.plane.metrics.drop("memory", dropped);
        self.plane.metrics.drop("unfinished", 1);
        self.close(conn, code::BUSY);
        dropped + 1
    }
}
