//! Sockets that the connect callback has named: a broadcast of `disconnect` on the name closes them
//! (`P-CON-10`), wherever in the cluster it is made.
//!
//! A name is a topic of this node, but no channel: nothing else is delivered. A `disconnect` is for all
//! nodes, so the others need not know of it.

use std::{rc::Rc, sync::Arc};

use super::{Shard, conn::Conn, fanout::Fanout};
use crate::{arrivals::DISCONNECT, frame::code};

impl Shard {
    /// Names a socket that has just opened.
    pub(super) fn name(&self, conn: &Conn, name: Arc<str>) {
        let name = self.plane.interest.acquire_name(name, self.id);
        self.table.borrow_mut().hold(name.clone());
        self.named.borrow_mut().entry(name.clone()).or_default().push(conn.slot);
        conn.name.replace(Some(name));
    }

    /// The socket closes: it has no name any more.
    pub(super) fn unname(&self, conn: &Conn) {
        let Some(name) = conn.name.take() else { return };
        let mut named = self.named.borrow_mut();
        if let Some(slots) = named.get_mut(&name) {
            slots.retain(|slot| *slot != conn.slot);
            if slots.is_empty() {
                named.remove(&name);
            }
        }
        if self.table.borrow_mut().unhold(&name) {
            self.plane.interest.release(&name, self.id);
        }
    }

    /// Closes the sockets that a broadcast is about, if it is a `disconnect`.
    pub(super) fn disconnect(&self, fanout: &Fanout) {
        if fanout.event() != DISCONNECT {
            return;
        }
        let slots = self.named.borrow().get(fanout.topic()).cloned().unwrap_or_default();
        let conns: Vec<Rc<Conn>> = {
            let conns = self.conns.borrow();
            slots.iter().filter_map(|slot| conns.get(*slot as usize).cloned()).collect()
        };
        for conn in conns {
            self.close(&conn, code::AWAY);
        }
    }
}
