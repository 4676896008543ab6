//! The links that this node dials: each carries what is broadcast here to one peer.
//!
//! One task a peer, for as long as discovery lists it or it is linked to us. It never delivers
//! anything: what comes back on such a link is the peer's heartbeat, and what the peer wants.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::Inner;
use super::codec::{Frame, GOODBYE_BYTES, HEARTBEAT_BYTES, decode};
use super::handshake::{Dialer, Refusal, Remote};
use super::inbound::read_handshake;
use super::metrics::count;
use super::peers::{Peer, Who};
use super::transport::BoxStream;
use super::words::confirmation;
use crate::backoff::Backoff;
use crate::queue::Item;

/// Bytes that are put together for one write.
const BATCH: usize = 256 << 10;
/// A payload from this size on is written as it is, not copied.
const COPY_BELOW: usize = 64 << 10;
/// A link that lived this long counts as having worked.
const WORKED: Duration = Duration::from_secs(2);
/// How often an address that leads to a node already linked is looked at again.
const ALIAS_CHECK: Duration = Duration::from_secs(1);

/// Failures in a row after which a peer is complained about, once.
const WARN_AFTER: u32 = 10;

/// Dials `addr` unless that is being done already; if it is, does not wait for the next try.
pub(super) fn ensure(inner: &Arc<Inner>, addr: SocketAddr) {
    if inner.leaving.is_cancelled() {
        return;
    }
    let Some((peer, new)) = inner.peers.ensure(addr, inner.config.peer_buffer) else {
        warn!(%addr, "too many peers: not linked");
        return;
    };
    if new {
        inner.outbound_tasks.spawn(keep(inner.clone(), peer));
    }
}

/// Wakes the task that dials `addr`, or starts it.
pub(super) fn dial_now(inner: &Arc<Inner>, addr: SocketAddr) {
    ensure(inner, addr);
    inner.peers.each_node(|p| {
        if p.addr == addr && !p.seen.lock().linked {
            p.wake.notify_one();
        }
    });
}

async fn keep(inner: Arc<Inner>, peer: Arc<Peer>) {
    let t = inner.config.timing;
    let mut backoff = Backoff::new(t.retry_min, t.retry_max);
    let mut failures = 0_u32;
    while !inner.leaving.is_cancelled() {
        let dialled = tokio::select! {
            d = dial(&inner, &peer, failures) => d,
            () = inner.leaving.cancelled() => break,
        };
        let mut pause = match dialled {
            Ok(Dialled::Node(stream, remote)) => {
                let since = Instant::now();
                failures = 0;
                carry(&inner, &peer, stream, &remote).await;
                inner.peers.release(&remote.instance, peer.addr);
                if since.elapsed() > WORKED {
                    backoff.reset();
                }
                backoff.pause()
            }
            Ok(Dialled::Alias) => ALIAS_CHECK,
            Ok(Dialled::Myself) => Duration::MAX,
            Err(error) => {
                failures = failures.wrapping_add(1);
                if failures == WARN_AFTER {
                    warn!(addr = %peer.addr, %error, "a peer cannot be linked; trying on");
                }
                debug!(addr = %peer.addr, %error, "no link yet");
                backoff.pause()
            }
        };
        loop {
            count(&inner.metrics.dropped, "stale", peer.queue.expire());
            if inner.peers.forget_unwanted(peer.addr) {
                count(&inner.metrics.dropped, "gone", peer.queue.close());
                return;
            }
            tokio::select! {
                () = inner.leaving.cancelled() => break,
                () = peer.wake.notified() => {
                    // Only a pause between tries is cut short; "myself" does not change.
                    if peer.seen.lock().who != Who::Myself { pause = Duration::ZERO; }
                }
                () = tokio::time::sleep(pause) => pause = Duration::ZERO,
            }
            if pause.is_zero() {
                let alias_of = Some(peer.seen.lock().clone()).filter(|s| s.who == Who::Alias);
                match alias_of.and_then(|s| s.instance) {
                    Some(instance) if inner.peers.claimed(&instance) => pause = ALIAS_CHECK,
                    _ => break,
                }
            }
        }
    }
    count(&inner.metrics.dropped, "gone", peer.queue.close());
}

enum Dialled {
    Node(BoxStream, Remote),
    Alias,
    Myself,
}

#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("no answer in time")]
    Timeout,
    #[error("refused: {0}")]
    Refused(#[from] Refusal),
}

/// Try number `n` since the last link.
async fn dial(inner: &Inner, peer: &Peer, n: u32) -> Result<Dialled, DialError> {
    let bound = inner.config.timing.handshake;
    let connect = inner.transport.connect(peer.addr);
    let mut stream = timeout(bound, connect).await.map_err(|_| DialError::Timeout)??;
    let shake = async {
        let token = inner.config.keys.for_try(n, Instant::now());
        let (dialer, hello) = Dialer::start(&inner.config.identity, token, rand::random());
        stream.write_all(&hello).await?;
        let mut buf = BytesMut::new();
        let got = read_handshake(&mut stream, &mut buf).await?;
        let (proving, proof) = dialer.challenge(got)?;
        stream.write_all(&proof).await?;
        let got = read_handshake(&mut stream, &mut buf).await?;
        Ok::<_, DialError>(proving.welcome(got)?)
    };
    let remote = match timeout(bound, shake).await {
        Err(_) => return Err(DialError::Timeout),
        Ok(Err(DialError::Refused(r))) => {
            count(&inner.metrics.refused, r.reason(), 1);
            if inner.may_log_refusal() {
                warn!(addr = %peer.addr, reason = r.reason(), "a peer failed the handshake");
            }
            return Err(r.into());
        }
        Ok(other) => other?,
    };
    let mut seen = peer.seen.lock();
    seen.instance = Some(remote.instance);
    seen.name.clone_from(&remote.name);
    seen.left = false;
    if remote.instance == inner.config.identity.instance {
        seen.who = Who::Myself;
        return Ok(Dialled::Myself);
    }
    if !inner.peers.claim(remote.instance, peer.addr) {
        seen.who = Who::Alias;
        return Ok(Dialled::Alias);
    }
    seen.who = Who::Node;
    drop(seen);
    Ok(Dialled::Node(stream, remote))
}

/// Writes to the peer until the link ends.
async fn carry(inner: &Inner, peer: &Peer, stream: BoxStream, remote: &Remote) {
    let (read, write) = tokio::io::split(stream);
    let in_flight = AtomicU64::new(0);
    let (heard, confirm) = watch::channel(0);
    info!(peer = remote.name, addr = %peer.addr, "link up, outbound");
    let reason = tokio::select! {
        r = listen(inner, peer, read, &heard) => r,
        r = speak(inner, peer, write, confirm, &in_flight) => r,
        () = inner.stop.cancelled() => "closed",
    };
    // What waits for the next link is everything: the peer may want other things by then.
    peer.heard.reset();
    let left = {
        let mut seen = peer.seen.lock();
        seen.linked = false;
        seen.left
    };
    if left {
        count(&inner.metrics.dropped, "gone", peer.queue.close());
    } else {
        peer.queue.lost();
    }
    count(&inner.metrics.dropped, "cut", in_flight.load(Ordering::Relaxed));
    count(&inner.metrics.ended, reason, 1);
    info!(peer = remote.name, addr = %peer.addr, reason, "link down, outbound");
}

/// Hears the peer's heartbeats and what it wants; ends when there are none. `heard` is how far it has
/// come.
async fn listen(
    inner: &Inner,
    peer: &Peer,
    mut read: impl AsyncRead + Unpin,
    heard: &watch::Sender<u64>,
) -> &'static str {
    let mut buf = BytesMut::new();
    loop {
        if buf.is_empty() {
            buf = BytesMut::new();
        }
        match timeout(inner.config.timing.silence, read.read_buf(&mut buf)).await {
            Err(_) => return "silent",
            Ok(Ok(0)) => return "closed",
            Ok(Err(_)) => return "broken",
            Ok(Ok(_)) => {}
        }
        loop {
            match decode(&mut buf) {
                Ok(Some(Frame::Goodbye)) => return "goodbye",
                Ok(Some(Frame::Interest(words))) if inner.routes() => {
                    if let Some(reason) = peer.heard.hear(&words, &inner.marker) {
                        count(&inner.metrics.fallbacks, reason, 1);
                    }
                    heard.send_replace(words.number);
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return "broken",
            }
        }
    }
}

/// Writes heartbeats, what waits, and how far the peer has been heard; when this node leaves, what is
/// left and a goodbye.
async fn speak(
    inner: &Inner,
    peer: &Peer,
    mut write: impl AsyncWrite + Unpin,
    mut confirm: watch::Receiver<u64>,
    in_flight: &AtomicU64,
) -> &'static str {
    let mut heartbeat = tokio::time::interval(inner.config.timing.heartbeat);
    heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    // The first frame makes the link count at the other end.
    if write.write_all(&HEARTBEAT_BYTES).await.is_err() {
        return "broken";
    }
    if inner.routes() {
        // It asks to be told.
        confirm.mark_changed();
    }
    peer.queue.open();
    peer.seen.lock().linked = true;
    let mut batch = Vec::new();
    loop {
        let leaving = tokio::select! {
            () = peer.queue.ready() => false,
            Ok(()) = wait(&mut confirm) => false,
            () = inner.leaving.cancelled() => true,
            _ = heartbeat.tick() => {
                if write.write_all(&HEARTBEAT_BYTES).await.is_err() { return "broken" }
                false
            }
        };
        loop {
            // These pass what waits: a join at the other end waits for them.
            if confirm.has_changed().unwrap_or(false) {
                let number = *confirm.borrow_and_update();
                if write.write_all(&confirmation(number)).await.is_err() {
                    return "broken";
                }
            }
            count(&inner.metrics.dropped, "stale", peer.queue.take(BATCH, &mut batch));
            if batch.is_empty() {
                break;
            }
            in_flight.store(batch.len() as u64, Ordering::Relaxed);
            if write_batch(&mut write, &batch).await.is_err() {
                return "broken";
            }
            in_flight.store(0, Ordering::Relaxed);
            inner.metrics.sent.inc_by(batch.len() as u64);
            inner.metrics.writes.inc();
            batch.clear();
            if batch.capacity() > 1024 {
                batch = Vec::new();
            }
        }
        if leaving {
            let said = write.write_all(&GOODBYE_BYTES).await.is_ok();
            if !said || write.shutdown().await.is_err() {
                return "broken";
            }
            // The peer closes once it has read everything; closing first could lose it.
            return std::future::pending().await;
        }
    }
}

/// Ends when a number is to be confirmed, and leaves it so.
async fn wait(confirm: &mut watch::Receiver<u64>) -> Result<(), watch::error::RecvError> {
    confirm.changed().await?;
    confirm.mark_changed();
    Ok(())
}

async fn write_batch(write: &mut (impl AsyncWrite + Unpin), batch: &[Item]) -> std::io::Result<()> {
    let copied = |f: &Item| if f.payload.len() < COPY_BELOW { f.size() } else { f.head.len() };
    let mut buf = BytesMut::with_capacity(batch.iter().map(copied).sum());
    for f in batch {
        buf.put_slice(&f.head);
        if f.payload.len() < COPY_BELOW {
            buf.put_slice(&f.payload);
        } else {
            write.write_all_buf(&mut buf).await?;
            write.write_all(&f.payload).await?;
        }
    }
    write.write_all_buf(&mut buf).await?;
    write.flush().await
}
