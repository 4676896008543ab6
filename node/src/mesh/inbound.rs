//! The links that other nodes dial to this one: each brings what is broadcast there, and takes back
//! what this node wants of it.
//!
//! Who has not proved to hold the token gets a random nonce, a few seconds and one of a bounded
//! number of places, and nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::codec::{Frame, HEARTBEAT_BYTES, MAX_HANDSHAKE_FRAME, decode, take};
use super::handshake::{Acceptor, Instance, Refusal, Remote};
use super::metrics::count;
use super::peers::Inbound;
use super::{Inner, outbound};
use crate::listen;
use crate::places::{Place, Places};

/// Connections that may be in their handshake at a time.
const MAX_PENDING: usize = 256;
/// The same, from one address: a stranger cannot take every place.
const MAX_PENDING_PER_IP: usize = 16;
/// How long a link waits for the one it replaces to deliver its last.
const REPLACE_WAIT: Duration = Duration::from_secs(1);

const IDLE_ROOM: usize = 4 << 10;
const BUSY_ROOM: usize = 64 << 10;

pub(super) async fn accept(inner: Arc<Inner>, listener: TcpListener) {
    let pending = Places::new(MAX_PENDING, MAX_PENDING_PER_IP);
    loop {
        let accepted = tokio::select! {
            a = listen::accept(&listener) => a,
            () = inner.leaving.cancelled() => return,
        };
        let (stream, from) = match accepted {
            Ok(ok) => ok,
            Err(error) => {
                // Out of file descriptors, mostly: the loop must neither end nor spin.
                warn!(%error, "cannot accept a mesh connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(place) = pending.enter(from.ip()) else {
            count(&inner.metrics.refused, "busy", 1);
            continue;
        };
        let inner2 = inner.clone();
        inner.inbound_tasks.spawn(async move {
            tokio::select! {
                () = serve(&inner2, stream, from, place) => {}
                () = inner2.stop.cancelled() => {}
            }
        });
    }
}

async fn serve(inner: &Arc<Inner>, mut stream: TcpStream, from: SocketAddr, place: Place) {
    let _ = stream.set_nodelay(true);
    let mut buf = BytesMut::new();
    let shaken = timeout(inner.config.timing.handshake, shake(inner, &mut stream, &mut buf)).await;
    let refused = match shaken {
        Ok(Ok(remote)) => {
            drop(place);
            if remote.instance != inner.config.identity.instance {
                receive(inner, stream, from, remote, buf).await;
            }
            return;
        }
        Ok(Err(HandshakeError::Refused(r))) => r.reason(),
        // Whoever connects and leaves without a word, as a probe does, is no intruder.
        Ok(Err(HandshakeError::Closed)) => return,
        Err(_) => "timeout",
    };
    count(&inner.metrics.refused, refused, 1);
    if inner.may_log_refusal() {
        warn!(%from, reason = refused, "a mesh connection was refused");
    }
}

enum HandshakeError {
    Refused(Refusal),
    Closed,
}

impl From<Refusal> for HandshakeError {
    fn from(r: Refusal) -> Self {
        Self::Refused(r)
    }
}

impl From<std::io::Error> for HandshakeError {
    fn from(e: std::io::Error) -> Self {
        match e.kind() {
            std::io::ErrorKind::InvalidData => Self::Refused(Refusal::Malformed),
            _ => Self::Closed,
        }
    }
}

/// Runs the handshake and waits for the first frame after it: a dialer that finds that it is
/// linked already by another address closes instead of sending one.
async fn shake(
    inner: &Inner,
    stream: &mut TcpStream,
    buf: &mut BytesMut,
) -> Result<Remote, HandshakeError> {
    let me = &inner.config.identity;
    let got = read_handshake(stream, buf).await?;
    let (acceptor, challenge) =
        Acceptor::hello(me, inner.config.keys.taken(Instant::now()), rand::random(), got)?;
    stream.write_all(&challenge).await?;
    let got = read_handshake(stream, buf).await?;
    let (remote, welcome) = acceptor.proof(got)?;
    stream.write_all(&welcome).await?;
    if buf.is_empty() && stream.read_buf(buf).await? == 0 {
        return Err(HandshakeError::Closed);
    }
    Ok(remote)
}

/// Reads one frame of a handshake.
pub(super) async fn read_handshake(
    stream: &mut (impl AsyncRead + Unpin),
    buf: &mut BytesMut,
) -> std::io::Result<(u8, Bytes)> {
    loop {
        match take(buf, MAX_HANDSHAKE_FRAME) {
            Ok(Some(frame)) => return Ok(frame),
            Ok(None) => {}
            Err(e) => return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, e)),
        }
        if stream.read_buf(buf).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Delivers what comes until the link ends.
async fn receive(
    inner: &Arc<Inner>,
    stream: TcpStream,
    from: SocketAddr,
    remote: Remote,
    buf: BytesMut,
) {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let (ip, port) = remote.address.unwrap_or((None, from.port()));
    let address = SocketAddr::new(ip.unwrap_or(from.ip()).to_canonical(), port);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let (cancel, done) = (CancellationToken::new(), CancellationToken::new());
    let link = Inbound {
        id,
        name: remote.name.clone(),
        address,
        cancel: cancel.clone(),
        done: done.clone(),
    };
    // However this future ends, the table tells the truth.
    let mut leave =
        Leave { inner: inner.clone(), instance: remote.instance, id, done, expected: false };
    if let Some(old) = inner.peers.arrive(remote.instance, link) {
        old.cancel.cancel();
        let _ = timeout(REPLACE_WAIT, old.done.cancelled()).await;
    }
    outbound::dial_now(inner, address);
    info!(peer = remote.name, %address, "link up, inbound");
    let (read, write) = stream.into_split();
    let reason = tokio::select! {
        r = deliver(inner, read, buf, &remote.instance, id) => r,
        r = tell(inner, write, id) => r,
        () = cancel.cancelled() => "replaced",
    };
    leave.expected = matches!(reason, "goodbye" | "replaced");
    count(&inner.metrics.ended, reason, 1);
    info!(peer = remote.name, %address, reason, "link down, inbound");
}

struct Leave {
    inner: Arc<Inner>,
    instance: Instance,
    id: u64,
    done: CancellationToken,
    /// The peer knows that the link has ended.
    expected: bool,
}

impl Drop for Leave {
    fn drop(&mut self) {
        self.inner.wanted.lock().unlink(self.id, self.expected, Instant::now());
        if self.inner.peers.depart(&self.instance, self.id) {
            self.inner.local.departed(self.instance);
        }
        self.done.cancel();
    }
}

async fn deliver(
    inner: &Inner,
    mut read: impl AsyncRead + Unpin,
    mut buf: BytesMut,
    from: &Instance,
    id: u64,
) -> &'static str {
    let mut room = IDLE_ROOM;
    loop {
        loop {
            match decode(&mut buf) {
                Ok(Some(Frame::Broadcast(b))) => {
                    inner.metrics.received.inc();
                    inner.local.deliver(b);
                }
                Ok(Some(Frame::Signal(signal))) => inner.local.signal(*from, signal),
                Ok(Some(Frame::Goodbye)) => {
                    inner.peers.said_goodbye(from);
                    return "goodbye";
                }
                Ok(Some(Frame::Confirm(number))) if inner.routes() => {
                    inner.wanted.lock().confirm(id, *from, number);
                }
                // What a peer wants it says on the link that is dialled to it.
                Ok(Some(
                    Frame::Heartbeat | Frame::Unknown(_) | Frame::Confirm(_) | Frame::Interest(_),
                )) => {}
                Ok(None) => break,
                Err(error) => {
                    warn!(%error, "a peer sent what is no frame");
                    return "broken";
                }
            }
        }
        if buf.is_empty() {
            buf = BytesMut::new();
        }
        buf.reserve(room);
        match timeout(inner.config.timing.silence, read.read_buf(&mut buf)).await {
            Err(_) => return "silent",
            Ok(Ok(0)) => return "closed",
            Ok(Err(_)) => return "broken",
            // An idle link holds a small buffer, a busy one a large one.
            Ok(Ok(n)) => room = if n < IDLE_ROOM { IDLE_ROOM } else { BUSY_ROOM },
        }
    }
}

/// Writes heartbeats and what this node wants.
async fn tell(inner: &Inner, mut write: impl AsyncWrite + Unpin, id: u64) -> &'static str {
    let mut changes = inner.wanted.lock().changes();
    let mut tick = tokio::time::interval(inner.config.timing.heartbeat);
    let mut out = BytesMut::new();
    loop {
        tokio::select! {
            _ = tick.tick() => out.put_slice(&HEARTBEAT_BYTES),
            // It has no end: what is wanted outlives the link.
            _ = changes.changed() => {}
        }
        loop {
            inner.wanted.lock().take(id, &mut out);
            if out.is_empty() {
                break;
            }
            if write.write_all_buf(&mut out).await.is_err() {
                return "broken";
            }
        }
        out = BytesMut::new();
    }
}
