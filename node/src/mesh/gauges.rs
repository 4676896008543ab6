//! Gauges of the mesh, read from the live state at each scrape.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Mesh;

pub(super) struct Gauges(pub(super) Mesh);

impl std::fmt::Debug for Gauges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gauges")
    }
}

impl Collector for Gauges {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let peers = self.0.peers();
        let mut links =
            encoder.encode_descriptor("mesh_links", "Links up", None, MetricType::Gauge)?;
        let outbound = peers.iter().filter(|p| p.outbound).count() as i64;
        let inbound = peers.iter().filter(|p| p.inbound).count() as i64;
        for (direction, n) in [("outbound", outbound), ("inbound", inbound)] {
            let labels = [("direction", direction)];
            ConstGauge::new(n).encode(links.encode_family(&labels)?)?;
        }
        let (routed, topics) = self.0.0.peers.routed();
        for (name, help, n) in [
            ("mesh_peers", "Other nodes known, linked or not", peers.len()),
            ("mesh_linked", "Peers linked both ways", self.0.linked()),
            ("mesh_queue_bytes", "Bytes that wait for peers", self.0.0.peers.queued_bytes()),
            ("mesh_routed", "Linked peers that are sent only what they want", routed),
            ("mesh_topics", "Topics that these want, each counted for each", topics),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(n as i64).encode(gauge)?;
        }
        Ok(())
    }
}
