//! The end of a node: the drain of the live configuration, then the links, then the process.
//!
//! A drain that the operator began is kept, never begun anew. Bounded by `shutdownSeconds` and at
//! most [`MARGIN`] after it; the live settings may give the drain less.

use std::time::{Duration, Instant};

use sluice_node_api::admin::{DrainPhase, DrainRequest};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use tracing::{info, warn};

use super::Node;

/// How long a node may take after `shutdownSeconds` in the worst case; a grace period needs both.
pub const MARGIN: Duration =
    INTAKE.saturating_add(SOCKETS).saturating_add(FLUSH).saturating_add(ADMIN);
/// For what waits to be sent to other nodes.
const FLUSH: Duration = Duration::from_secs(2);
/// For what a backend is to be told, if the bound leaves as much.
const NOTICES: Duration = Duration::from_secs(10);
/// For publish calls under way, which have a bound of their own.
const INTAKE: Duration = Duration::from_secs(4);
/// For sockets that are closed last, close handshakes included.
const SOCKETS: Duration = Duration::from_secs(7);
/// The same, to be told only: for a node that is to wait for nobody.
const WORD: Duration = Duration::from_millis(500);
/// For admin calls under way.
const ADMIN: Duration = Duration::from_secs(1);
/// Between two looks at how many sockets are left.
const LOOK: Duration = Duration::from_millis(50);

/// Why a node ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// SIGTERM.
    Terminate,
    /// SIGINT.
    Interrupt,
}

/// The signals that end a node.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes them over from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The next one.
    pub async fn next(&mut self) -> Cause {
        tokio::select! {
            _ = self.terminate.recv() => Cause::Terminate,
            _ = self.interrupt.recv() => Cause::Interrupt,
        }
    }
}

/// How long the sockets that are closed last may take.
fn closing(bound: Duration) -> Duration {
    if bound.is_zero() { WORD } else { SOCKETS }
}

impl Node {
    /// Drains, leaves and ends. Everything in it is bounded.
    pub async fn shut_down(self, cause: Cause) {
        let began = Instant::now();
        self.admin.set_leaving();
        let left = self.hub.counts().connections;
        let bound = self.drain_bound();
        info!(?cause, sockets = left, ?bound, "shutting down");
        self.drain();
        if timeout(bound, self.emptied()).await.is_err() {
            warn!(sockets = self.hub.counts().connections, "closing the sockets that are left");
        }
        // No more publishes first, then no sockets: what they said last still goes to the others.
        self.stop_intake.cancel();
        self.intake.close();
        let _ = timeout(INTAKE, self.intake.wait()).await;
        self.stop_sockets.cancel();
        let _ = timeout(closing(self.shutdown_bound), self.hub.stopped()).await;
        // Within what is left of the bound, if that is more: see [`MARGIN`].
        let left = self.shutdown_bound.saturating_sub(began.elapsed()).clamp(FLUSH, NOTICES);
        let told = async {
            if let Some(webhook) = &self.webhook {
                webhook.flush(left).await;
            }
        };
        tokio::join!(self.links.leave(FLUSH), told);
        self.stop_admin.cancel();
        self.last.close();
        let _ = timeout(ADMIN, self.last.wait()).await;
        info!("ended");
    }

    /// How long the drain may take.
    fn drain_bound(&self) -> Duration {
        let given = self.live.config().drain.timeout_seconds;
        let given = given.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
        given.map_or(self.shutdown_bound, |given| given.min(self.shutdown_bound))
    }

    fn drain(&self) {
        let settings = &self.live.config().drain;
        let under_way = self.hub.drain_status().phase != DrainPhase::None;
        let kept = self.admin.drain_asked().filter(|_| under_way);
        let request = kept.unwrap_or(DrainRequest {
            mode: settings.mode,
            initial_delay_seconds: settings.initial_delay_seconds,
            wait_seconds: settings.wait_seconds,
            batch_size: settings.batch_size,
            batch_interval_seconds: settings.batch_interval_seconds,
            ttl_seconds: 0.0,
        });
        // This process ends before the drain is given up.
        let ttl_seconds = self.shutdown_bound.as_secs_f64() + 60.0;
        self.hub.start_drain(DrainRequest { ttl_seconds, ..request });
    }

    /// Ends when no socket is left; the drain takes no new ones.
    async fn emptied(&self) {
        while self.hub.counts().connections > 0 {
            tokio::time::sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_that_is_to_wait_for_nobody_waits_for_no_close_handshake() {
        assert!(closing(Duration::ZERO) < Duration::from_secs(1));
        assert_eq!(closing(Duration::from_secs(1)), SOCKETS);
    }
}
