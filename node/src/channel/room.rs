//! The room that what waits in mailboxes has: of one socket for all its channels together, and of the node for
//! those of all sockets. What is taken is given back when it is dropped, wherever that is.
//!
//! Never asks how many channels or sockets there are: each socket may take no more than the node has left, so
//! that some is left however many fill theirs.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use prometheus_client::metrics::gauge::Gauge;

use crate::memory::signed;

/// Bytes that may wait for the channels of a socket together; one larger message passes when it is alone.
const OF_A_SOCKET: usize = 16 << 20;

/// Of a node.
pub(crate) struct NodeRoom {
    most: AtomicUsize,
    held: Gauge,
}

/// Of a socket.
#[derive(Default)]
pub(crate) struct SocketRoom(AtomicUsize);

/// Taken of a node's.
pub(crate) struct OfNode {
    room: Arc<NodeRoom>,
    bytes: usize,
}

/// Taken of a socket's.
pub(super) struct OfSocket {
    room: Arc<SocketRoom>,
    bytes: usize,
}

impl NodeRoom {
    /// Without a bound until one is set; `held` shows what is taken.
    pub(crate) fn new(held: Gauge) -> Arc<Self> {
        Arc::new(Self { most: AtomicUsize::new(usize::MAX), held })
    }

    /// How much there is, when so much may wait for clients.
    pub(crate) fn set(&self, buffered: usize) {
        self.most.store(buffered / 2, Ordering::Relaxed);
    }

    fn left(&self) -> usize {
        let held = usize::try_from(self.held.get()).unwrap_or(0);
        self.most.load(Ordering::Relaxed).saturating_sub(held)
    }

    /// Takes so much, whether or not there is as much.
    fn take(self: &Arc<Self>, bytes: usize) -> (OfNode, usize) {
        let before = self.held.inc_by(signed(bytes));
        (OfNode { room: self.clone(), bytes }, usize::try_from(before).unwrap_or(0))
    }

    /// Takes so much if there is as much, or nothing else is taken.
    pub(crate) fn claim(self: &Arc<Self>, bytes: usize) -> Option<OfNode> {
        let (taken, before) = self.take(bytes);
        let most = self.most.load(Ordering::Relaxed);
        (before == 0 || before.saturating_add(bytes) <= most).then_some(taken)
    }

    /// Takes what may not be refused.
    pub(super) fn owe(self: &Arc<Self>, bytes: usize) -> OfNode {
        self.take(bytes).0
    }
}

impl SocketRoom {
    /// Takes so much if the socket may have as much, or has nothing else.
    pub(super) fn claim(self: &Arc<Self>, bytes: usize, node: &NodeRoom) -> Option<OfSocket> {
        let most = OF_A_SOCKET.min(node.left());
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let taken = OfSocket { room: self.clone(), bytes };
        (before == 0 || before.saturating_add(bytes) <= most).then_some(taken)
    }

    /// Takes what may not be refused.
    pub(super) fn owe(self: &Arc<Self>, bytes: usize) -> OfSocket {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        OfSocket { room: self.clone(), bytes }
    }
}

impl Drop for OfNode {
    fn drop(&mut self) {
        self.room.held.dec_by(signed(self.bytes));
    }
}

impl Drop for OfSocket {
    fn drop(&mut self) {
        self.room.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_no_more_than_its_bound_and_one_larger_message_when_it_is_alone() {
        let (node, socket) = (NodeRoom::new(Gauge::default()), Arc::<SocketRoom>::default());
        let large = socket.claim(2 * OF_A_SOCKET, &node).expect("alone");
        assert!(socket.claim(1, &node).is_none());
        let owed = socket.owe(OF_A_SOCKET);
        drop(large);
        assert!(socket.claim(1, &node).is_none());
        drop(owed);
        assert!(socket.claim(OF_A_SOCKET, &node).is_some());
    }

    #[test]
    fn however_many_sockets_take_what_they_can_there_is_room_for_one_more() {
        const SIZE: usize = 1000;
        let node = NodeRoom::new(Gauge::default());
        node.set(2_000_000);
        let mut taken = Vec::new();
        let sockets = Vec::from_iter((0..50).map(|_| Arc::<SocketRoom>::default()));
        for _ in 0..1000 {
            for socket in &sockets {
                let claimed = socket.claim(SIZE, &node);
                taken.extend(claimed.map(|of| (of, node.claim(SIZE).expect("as much is left"))));
            }
        }
        assert!(node.held.get() <= 1_000_000);
        let late = Arc::<SocketRoom>::default();
        assert!(late.claim(SIZE, &node).is_some() && node.claim(SIZE).is_some());
        assert!(node.held.get() > 900_000, "it is made use of: {}", node.held.get());
        taken.clear();
        assert_eq!(node.held.get(), 0);
        let large = node.claim(5_000_000).expect("alone");
        assert!(node.claim(1).is_none());
        drop((node.owe(7), large));
        assert_eq!(node.held.get(), 0);
    }
}
