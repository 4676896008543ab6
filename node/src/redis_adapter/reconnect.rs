//! Keeps a connection to Redis up: connects, lets it work until it breaks, and begins anew after a
//! pause, until the node leaves. What goes over the connection is the caller's.

use std::time::Duration;

use tracing::{info, warn};

use super::Inner;
use super::failure::Failure;
use crate::backoff::Backoff;

/// `work` answers why its connection broke; nothing when there is no more to do.
pub(super) async fn keep<C, D, W>(
    inner: &Inner,
    role: &'static str,
    connect: impl Fn() -> D,
    work: impl Fn(C) -> W,
) where
    D: Future<Output = Result<C, Failure>>,
    W: Future<Output = Option<Failure>>,
{
    let new = || Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let (mut backoff, mut told) = (new(), false);
    loop {
        let connected = tokio::select! {
            c = connect() => c,
            () = inner.leaving.cancelled() => return,
        };
        match connected {
            Ok(connection) => {
                info!(role, "connected to Redis");
                (backoff, told) = (new(), false);
                let Some(error) = work(connection).await else { return };
                inner.metrics.lost_connections.inc();
                *inner.failed.lock() = Some(error.kind);
                warn!(role, %error, "lost Redis; what is local goes on");
            }
            Err(error) => {
                *inner.failed.lock() = Some(error.kind);
                if !told {
                    told = true;
                    warn!(role, %error, "no Redis; trying on");
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = inner.leaving.cancelled() => return,
        }
    }
}
