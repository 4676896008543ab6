//! The connection that publishes. One pipeline at a time: a sender's order holds (`P-RED-3`), and
//! what gathers meanwhile goes with the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};
use tracing::{info, warn};

use super::{Inner, PATIENCE, PING, read_url};
use crate::backoff::Backoff;
use crate::mesh::metrics::count;

/// Bytes of one pipeline.
const BATCH: usize = 256 << 10;

pub(super) async fn run(inner: Arc<Inner>) {
    let new = || Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    let (mut backoff, mut told) = (new(), false);
    loop {
        let connected = tokio::select! {
            c = connect(&inner) => c,
            () = inner.leaving.cancelled() => break,
        };
        match connected {
            Ok(connection) => {
                info!("publishing through Redis");
                (backoff, told) = (new(), false);
                inner.queue.open();
                inner.publisher_up.store(true, Ordering::Release);
                let end = tokio::select! {
                    e = publish(&inner, connection) => e,
                    () = inner.stop.cancelled() => Ok(()),
                };
                inner.publisher_up.store(false, Ordering::Release);
                inner.queue.lost();
                let Err(error) = end else { break };
                inner.metrics.lost_connections.inc();
                warn!(error = %what(&error), "lost Redis; what is local goes on");
            }
            Err(error) if !told => {
                told = true;
                warn!(error, "no Redis to publish through; trying on");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = inner.leaving.cancelled() => break,
        }
        count(&inner.metrics.dropped, "stale", inner.queue.expire());
    }
    count(&inner.metrics.dropped, "gone", inner.queue.close());
}

/// An error without its detail, which may quote what was sent.
pub(super) fn what(error: &redis::RedisError) -> String {
    format!("{:?}", error.kind())
}

async fn connect(inner: &Inner) -> Result<MultiplexedConnection, String> {
    let client = read_url(&inner.config.url_file)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    match tokio::time::timeout(PATIENCE * 2, connect).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(what(&error)),
        Err(_) => Err("no answer in time".into()),
    }
}

/// Ends when a sign of life is due.
async fn quiet(inner: &Inner) {
    tokio::select! {
        () = tokio::time::sleep(PING) => {}
        () = inner.suspect.notified() => {}
    }
}

/// Publishes until the connection breaks, or until everything is said when this node leaves.
async fn publish(inner: &Inner, mut connection: MultiplexedConnection) -> RedisResult<()> {
    let mut batch = Vec::new();
    loop {
        let leaving = tokio::select! {
            () = inner.queue.ready() => false,
            () = inner.leaving.cancelled() => true,
            () = quiet(inner) => {
                redis::cmd("PING").query_async::<()>(&mut connection).await?;
                false
            }
        };
        loop {
            inner.queue.take(BATCH, &mut batch);
            if batch.is_empty() {
                break;
            }
            let mut pipe = redis::pipe();
            for item in &batch {
                pipe.cmd("PUBLISH").arg(&item.head[..]).arg(&item.payload[..]).ignore();
            }
            let n = batch.len() as u64;
            if let Err(error) = pipe.query_async::<()>(&mut connection).await {
                count(&inner.metrics.dropped, "cut", n);
                return Err(error);
            }
            inner.metrics.published.inc_by(n);
            batch.clear();
        }
        if leaving {
            return Ok(());
        }
    }
}
