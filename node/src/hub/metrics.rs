//! The data plane's Prometheus metrics. Labels are bounded: nothing that a client chooses is one.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// One label, `reason`.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Reason {
    /// A fixed word.
    pub reason: &'static str,
}

/// One label, `code`: a WebSocket close code, 1006 for a connection that ended without one, 0 for
/// a code of the client's own.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Code {
    /// The code.
    pub code: u16,
}

/// What the data plane counts.
#[derive(Clone, Debug, Default)]
pub struct HubMetrics {
    /// Channel sockets open.
    pub connections: Gauge,
    /// Connections that the node holds, long-poll sessions among them.
    pub capacity: Gauge,
    /// Channels joined.
    pub channels: Gauge,
    /// WebSocket messages received.
    pub frames_in: Counter,
    /// WebSocket messages handed to the kernel.
    pub frames_out: Counter,
    /// Bytes received on channel sockets.
    pub bytes_in: Counter,
    /// Bytes sent on channel sockets.
    pub bytes_out: Counter,
    /// Broadcasts, by where they came from: `local` or `remote`.
    pub broadcasts: Family<Reason, Counter>,
    /// Broadcasts queued for a subscriber, one each.
    pub deliveries: Counter,
    /// Messages dropped.
    pub dropped: Family<Reason, Counter>,
    /// Channel sockets ended.
    pub closes: Family<Code, Counter>,
    /// Connections and handshakes refused.
    pub refused: Family<Reason, Counter>,
    /// Channel sockets closed because their time was over.
    pub expired: Counter,
    /// Joins and messages that a topic rule refused.
    pub rejected: Family<Reason, Counter>,
    /// Topics whose history is kept.
    pub history_topics: Gauge,
    /// Bytes of it.
    pub history_bytes: Gauge,
    /// Memory of what waits for clients, in bytes: a broadcast that many sockets of a shard wait for
    /// counts once.
    pub buffered: Gauge,
    /// The most that may be.
    pub buffered_limit: Gauge,
    /// Bytes that wait in mailboxes of channels: a broadcast counts once. Half of `buffered_limit` at the most.
    pub mailed: Gauge,
    /// Drains, by what became of them.
    pub drains: Family<Reason, Counter>,
}

impl HubMetrics {
    /// Registers them all.
    pub fn register(&self, registry: &mut Registry) {
        let m = self.clone();
        registry.register("sluice_connections", "Channel sockets open", m.connections);
        registry.register("sluice_capacity", "Connections that the node holds", m.capacity);
        registry.register("sluice_channels", "Channels joined", m.channels);
        registry.register("sluice_frames_in", "WebSocket messages received", m.frames_in);
        registry.register("sluice_frames_out", "WebSocket messages sent", m.frames_out);
        registry.register("sluice_bytes_in", "Bytes received on channel sockets", m.bytes_in);
        registry.register("sluice_bytes_out", "Bytes sent on channel sockets", m.bytes_out);
        registry.register("sluice_broadcasts", "Broadcasts by origin", m.broadcasts);
        registry.register("sluice_deliveries", "Broadcasts queued for subscribers", m.deliveries);
        registry.register("sluice_dropped", "Messages dropped by reason", m.dropped);
        registry.register("sluice_closes", "Channel sockets ended by close code", m.closes);
        registry.register("sluice_refused", "Handshakes refused by reason", m.refused);
        registry.register("sluice_expired", "Sockets closed with their token over", m.expired);
        registry.register("sluice_rejected", "Joins and messages refused by rules", m.rejected);
        registry.register("sluice_history_topics", "Topics with history", m.history_topics);
        registry.register("sluice_history_bytes", "Bytes of history", m.history_bytes);
        registry.register("sluice_buffered_bytes", "Bytes held for clients", m.buffered);
        registry.register("sluice_buffered_limit_bytes", "Most of these", m.buffered_limit);
        registry.register("sluice_mailbox_bytes", "Bytes that wait for channels", m.mailed);
        registry.register("sluice_drains", "Drains by outcome", m.drains);
    }

    pub(crate) fn drop(&self, reason: &'static str, count: u64) {
        self.dropped.get_or_create(&Reason { reason }).inc_by(count);
    }

    pub(crate) fn refuse(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn reject(&self, reason: &'static str) {
        self.rejected.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn close(&self, code: u16) {
        let code = if code < 3000 { code } else { 0 };
        self.closes.get_or_create(&Code { code }).inc();
    }

    pub(crate) fn drain(&self, reason: &'static str) {
        self.drains.get_or_create(&Reason { reason }).inc();
    }
}
