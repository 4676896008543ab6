//! Who the other nodes are and how each link stands. Never does I/O; every lock is short.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use sluice_node_api::admin::PeerStatus;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::MAX_PEERS;
use super::handshake::Instance;
use super::heard::Heard;
use crate::queue::Queue;

/// An address that this node dials.
pub(super) struct Peer {
    pub(super) addr: SocketAddr,
    pub(super) queue: Queue,
    /// What it wants.
    pub(super) heard: Heard,
    pub(super) seen: Mutex<Seen>,
    /// Dial now, or look whether this peer is still wanted.
    pub(super) wake: Notify,
}

/// What the last handshake with a [`Peer`] told.
#[derive(Clone, Default)]
pub(super) struct Seen {
    pub(super) who: Who,
    pub(super) name: String,
    pub(super) instance: Option<Instance>,
    pub(super) linked: bool,
    /// It said goodbye: what is broadcast from now on is not for it.
    pub(super) left: bool,
}

/// Who answers at an address.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Who {
    /// Nobody has yet.
    #[default]
    Unknown,
    /// Another node.
    Node,
    /// This very process.
    Myself,
    /// A node that is linked by another address.
    Alias,
}

/// A link that another node has to us.
pub(super) struct Inbound {
    pub(super) id: u64,
    pub(super) name: String,
    pub(super) address: SocketAddr,
    /// Ends the link.
    pub(super) cancel: CancellationToken,
    /// Cancelled when the link delivers nothing any more.
    pub(super) done: CancellationToken,
}

/// All of them.
#[derive(Default)]
pub(super) struct Peers {
    outbound: RwLock<BTreeMap<SocketAddr, Arc<Peer>>>,
    inbound: Mutex<HashMap<Instance, Inbound>>,
    listed: Mutex<BTreeSet<SocketAddr>>,
    claims: Mutex<HashMap<Instance, SocketAddr>>,
}

impl Peers {
    /// Replaces what discovery lists and wakes the peers it lists no longer.
    pub(super) fn set_listed(&self, view: BTreeSet<SocketAddr>) {
        *self.listed.lock() = view.clone();
        for (addr, peer) in self.outbound.read().iter() {
            if !view.contains(addr) {
                peer.wake.notify_one();
            }
        }
    }

    /// The peer at `addr`, and whether it is new.
    pub(super) fn ensure(&self, addr: SocketAddr, limit: usize) -> Option<(Arc<Peer>, bool)> {
        let mut all = self.outbound.write();
        if let Some(peer) = all.get(&addr) {
            return Some((peer.clone(), false));
        }
        if all.len() >= MAX_PEERS {
            return None;
        }
        let peer = Arc::new(Peer {
            addr,
            queue: Queue::new(limit),
            heard: Heard::default(),
            seen: Mutex::default(),
            wake: Notify::new(),
        });
        all.insert(addr, peer.clone());
        Some((peer, true))
    }

    /// Forgets the peer at `addr` unless discovery lists it or it is linked to us.
    pub(super) fn forget_unwanted(&self, addr: SocketAddr) -> bool {
        let mut all = self.outbound.write();
        let wanted = self.listed.lock().contains(&addr)
            || self.inbound.lock().values().any(|i| i.address == addr);
        if !wanted {
            all.remove(&addr);
        }
        !wanted
    }

    /// Takes `instance` for the link to `addr`; false while another address has it. Two links to
    /// one node would deliver everything twice.
    pub(super) fn claim(&self, instance: Instance, addr: SocketAddr) -> bool {
        *self.claims.lock().entry(instance).or_insert(addr) == addr
    }

    /// Whether any link has `instance`.
    pub(super) fn claimed(&self, instance: &Instance) -> bool {
        self.claims.lock().contains_key(instance)
    }

    /// Gives `instance` free again.
    pub(super) fn release(&self, instance: &Instance, addr: SocketAddr) {
        let mut claims = self.claims.lock();
        if claims.get(instance) == Some(&addr) {
            claims.remove(instance);
        }
    }

    /// Puts an inbound link in force; the one it replaces.
    pub(super) fn arrive(&self, instance: Instance, link: Inbound) -> Option<Inbound> {
        self.inbound.lock().insert(instance, link)
    }

    /// Takes the inbound link `id` out, and wakes its peer to see whether it is still wanted; false
    /// when another link is in its place.
    pub(super) fn depart(&self, instance: &Instance, id: u64) -> bool {
        let mut all = self.inbound.lock();
        let Some(link) = all.get(instance).filter(|i| i.id == id) else { return false };
        let address = link.address;
        all.remove(instance);
        drop(all);
        if let Some(peer) = self.outbound.read().get(&address) {
            peer.wake.notify_one();
        }
        true
    }

    /// The node `instance` is leaving.
    pub(super) fn said_goodbye(&self, instance: &Instance) {
        for peer in self.outbound.read().values() {
            let mut seen = peer.seen.lock();
            if seen.instance.as_ref() == Some(instance) {
                seen.left = true;
            }
        }
    }

    /// Calls `f` for each peer that may be another node.
    pub(super) fn each_node(&self, mut f: impl FnMut(&Peer)) {
        for peer in self.outbound.read().values() {
            f(peer);
        }
    }

    /// Bytes that wait for peers.
    pub(super) fn queued_bytes(&self) -> usize {
        self.outbound.read().values().map(|p| p.queue.bytes()).sum()
    }

    /// How many linked peers are sent only what they want, and how many topics these want together.
    pub(super) fn routed(&self) -> (usize, usize) {
        let outbound = self.outbound.read();
        let known = outbound.values().filter_map(|peer| peer.heard.topics());
        known.fold((0, 0), |(peers, topics), more| (peers + 1, topics + more))
    }

    /// What `/status` says of the peers: one entry a node, by address.
    pub(super) fn status(&self) -> Vec<PeerStatus> {
        let outbound = self.outbound.read();
        let inbound = self.inbound.lock();
        let mut out = Vec::with_capacity(outbound.len());
        let mut matched = BTreeSet::new();
        for (addr, peer) in outbound.iter() {
            let seen = peer.seen.lock().clone();
            if matches!(seen.who, Who::Myself | Who::Alias) {
                continue;
            }
            let link = inbound
                .iter()
                .find(|(instance, _)| seen.instance.as_ref() == Some(*instance))
                .or_else(|| inbound.iter().find(|(_, i)| !seen.linked && i.address == *addr));
            let mut name = seen.name;
            if let Some((instance, link)) = link {
                matched.insert(*instance);
                name.clone_from(&link.name);
            }
            out.push(PeerStatus {
                name,
                address: addr.to_string(),
                outbound: seen.linked,
                inbound: link.is_some(),
            });
        }
        for (instance, link) in inbound.iter() {
            if !matched.contains(instance) {
                out.push(PeerStatus {
                    name: link.name.clone(),
                    address: link.address.to_string(),
                    outbound: false,
                    inbound: true,
                });
            }
        }
        out
    }
}
