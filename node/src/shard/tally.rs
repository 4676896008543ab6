//! Counts of one shard, handed to the shared metrics once a turn: a delivery touches no atomic.

use std::cell::Cell;

use crate::hub::HubMetrics;

#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) frames_in: Cell<u64>,
    pub(super) bytes_in: Cell<u64>,
    pub(super) deliveries: Cell<u64>,
    frames_out: Cell<u64>,
    bytes_out: Cell<u64>,
}

impl Tally {
    pub(super) fn wrote(&self, frames: u64, bytes: u64) {
        self.frames_out.set(self.frames_out.get() + frames);
        self.bytes_out.set(self.bytes_out.get() + bytes);
    }

    pub(super) fn publish(&self, metrics: &HubMetrics) {
        metrics.frames_in.inc_by(self.frames_in.take());
        metrics.bytes_in.inc_by(self.bytes_in.take());
        metrics.deliveries.inc_by(self.deliveries.take());
        metrics.frames_out.inc_by(self.frames_out.take());
        metrics.bytes_out.inc_by(self.bytes_out.take());
    }
}
