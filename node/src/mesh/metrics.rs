//! Counters of the mesh. Labels are closed sets: never a peer's name or address.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why something was dropped or refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    reason: &'static str,
}

/// A counter per reason.
pub type ByReason = Family<Reason, Counter>;

/// Counts `n` under `reason`.
pub fn count(family: &ByReason, reason: &'static str, n: u64) {
    if n > 0 {
        family.get_or_create(&Reason { reason }).inc_by(n);
    }
}

/// The counted events of one mesh.
#[derive(Clone, Default)]
pub struct MeshMetrics {
    /// Broadcasts that did not reach a peer: `full` (no room, the oldest went), `stale` (the link
    /// did not come back in time), `cut` (being written when the link broke), `gone` (the peer
    /// left), `too_long`.
    pub dropped: ByReason,
    /// Connections refused: `token`, `cluster`, `version`, `malformed`, `timeout`, `busy`.
    pub refused: ByReason,
    /// Links that ended: `goodbye`, `closed`, `silent`, `broken`, `replaced`, `unlisted`.
    pub ended: ByReason,
    /// Broadcasts written to peers.
    pub sent: Counter,
    /// Broadcasts that came from peers.
    pub received: Counter,
    /// Broadcasts not sent to a peer, because nobody there is on the topic.
    pub unwanted: Counter,
    /// Times that a peer was to be sent everything again though its link stayed: `told` (it said so:
    /// it wants very many topics, or was too slow to tell), `topics` (more than are kept of a
    /// peer), `unknown` (a word of a later version).
    pub fallbacks: ByReason,
    /// Topics of joins that went on before every peer had confirmed them.
    pub unconfirmed: Counter,
    /// Writes to peers; `sent` over `writes` is how well they coalesce.
    pub writes: Counter,
}

impl MeshMetrics {
    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry;
        r.register("mesh_dropped", "Broadcasts that did not reach a peer", self.dropped.clone());
        r.register("mesh_refused", "Mesh connections refused", self.refused.clone());
        r.register("mesh_links_ended", "Mesh links that ended", self.ended.clone());
        r.register("mesh_sent", "Broadcasts written to peers", self.sent.clone());
        r.register("mesh_received", "Broadcasts that came from peers", self.received.clone());
        let help = "Broadcasts not sent to a peer that has nobody on the topic";
        r.register("mesh_unwanted", help, self.unwanted.clone());
        let help = "Times that a peer was to be sent everything again";
        r.register("mesh_fallbacks", help, self.fallbacks.clone());
        let help = "Topics that were joined before every peer had confirmed them";
        r.register("mesh_unconfirmed", help, self.unconfirmed.clone());
        r.register("mesh_writes", "Writes to peers", self.writes.clone());
    }
}
