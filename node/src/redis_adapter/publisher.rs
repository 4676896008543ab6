//! The connection that publishes. One pipeline at a time: a sender's order holds (`P-RED-3`), and
//! what gathers meanwhile goes with the next one.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisResult};

use super::failure::Failure;
use super::{Inner, PATIENCE, PING, read_url, reconnect};
use crate::mesh::metrics::count;

/// Bytes of one pipeline.
const BATCH: usize = 256 << 10;

pub(super) async fn run(inner: Arc<Inner>) {
    let inner = &*inner;
    let connect = || {
        count(&inner.metrics.dropped, "stale", inner.queue.expire());
        connect(inner)
    };
    let work = |connection| async move {
        inner.queue.open();
        inner.publisher_up.store(true, Ordering::Release);
        let end = tokio::select! {
            e = publish(inner, connection) => e,
            () = inner.stop.cancelled() => Ok(()),
        };
        inner.publisher_up.store(false, Ordering::Release);
        inner.queue.lost();
        end.err().map(Failure::from)
    };
    reconnect::keep(inner, "publisher", connect, work).await;
    count(&inner.metrics.dropped, "gone", inner.queue.close());
}

async fn connect(inner: &Inner) -> Result<MultiplexedConnection, Failure> {
    let client = read_url(&inner.config.url_file)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(PATIENCE))
        .set_response_timeout(Some(PATIENCE));
    let connect = client.get_multiplexed_async_connection_with_config(&config);
    let connected = tokio::time::timeout(PATIENCE * 2, connect).await;
    connected.map_err(|_| Failure::late())?.map_err(Failure::from)
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
            count(&inner.metrics.dropped, "stale", inner.queue.take(BATCH, &mut batch));
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
