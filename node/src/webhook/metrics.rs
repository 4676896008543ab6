//! What is counted of webhooks. Labels are fixed words: nothing that a client or a backend chooses.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::{
    counter::Counter, family::Family, gauge::Gauge, histogram::Histogram,
};
use prometheus_client::registry::Registry;

use super::call::Event;

/// Seconds, of the histogram.
const BUCKETS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    event: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Named {
    event: &'static str,
}

/// The metrics; a cheap handle.
#[derive(Clone)]
pub(super) struct Metrics {
    requests: Family<Outcome, Counter>,
    seconds: Family<Named, Histogram, fn() -> Histogram>,
    /// HTTP requests now under way.
    pub(super) in_flight: Gauge,
    /// Questions and notices that wait for their turn.
    pub(super) waiting: Gauge,
    /// 1 while the backend is left alone because it failed.
    pub(super) open: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            in_flight: Gauge::default(),
            waiting: Gauge::default(),
            open: Gauge::default(),
        }
    }
}

impl Metrics {
    pub(super) fn count(&self, event: Event, outcome: &'static str, by: u64) {
        self.requests.get_or_create(&Outcome { event: event.name(), outcome }).inc_by(by);
    }

    /// One HTTP request has ended.
    pub(super) fn took(&self, event: Event, seconds: f64) {
        self.seconds.get_or_create(&Named { event: event.name() }).observe(seconds);
    }

    pub(super) fn register(&self, registry: &mut Registry) {
        let m = self.clone();
        registry.register("webhook_requests", "Questions and notices, by outcome", m.requests);
        registry.register("webhook_duration_seconds", "What HTTP requests took", m.seconds);
        registry.register("webhook_in_flight", "HTTP requests under way", m.in_flight);
        registry.register("webhook_waiting", "Questions and notices that wait", m.waiting);
        registry.register("webhook_circuit_open", "1 while the backend is left alone", m.open);
    }
}
