//! One open socket on its shard: the task that reads, and the state that the shard writes from.
//!
//! While nothing arrives a connection has no buffer at all.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{ErrorKind, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::Interest,
    net::TcpStream,
    sync::Notify,
    time::{Instant, timeout},
};

use super::{
    Shard,
    input::Input,
    outbox::{Excess, MAX_BYTES, Outbox, SLICES, Shed},
    poll::{MAX_ANSWER, Polled},
    slow::notice,
    table::Slot,
    talk::Talk,
    waiting::{Frame, Ledger},
};
use crate::{
    channel::{Mount, farewell::Farewell},
    frame::{Item, code},
    interest::Ready,
    listen,
    pace::Pace,
    serializer::Version,
};

/// How long a close handshake may take.
const LINGER: Duration = Duration::from_secs(5);

/// An open socket.
pub(crate) struct Conn {
    pub(super) slot: Slot,
    /// Tells it from an earlier socket in the same slot.
    pub(super) id: u64,
    pub(super) version: Version,
    pub(super) mount: Arc<Mount>,
    pub(super) talk: Talk,
    /// The topic whose join is under way.
    pub(super) held: Cell<Option<Arc<str>>>,
    /// The socket's own topic (`P-CON-10`).
    pub(super) name: Cell<Option<Arc<str>>>,
    /// Whom its end is told.
    pub(super) farewell: Cell<Option<Arc<Farewell>>>,
    /// When it is closed, whatever comes.
    pub(super) until: Cell<Option<Instant>>,
    /// When the last frame came to its end.
    pub(super) seen: Cell<Instant>,
    /// Memory of what it has sent and the node has not taken: see [`super::unfinished`].
    pub(super) unfinished: Cell<usize>,
    /// Since when there is some, or when the last message came whole.
    pub(super) begun: Cell<Instant>,
    /// What is left of its joins.
    pub(super) joins: Cell<Pace>,
    /// What is left of its messages.
    pub(super) messages: Cell<Pace>,
    /// The close code that was sent or received.
    pub(super) closing: Cell<Option<u16>>,
    /// The peer sent a close frame.
    pub(super) peer_closed: Cell<bool>,
    /// In the shard's list of sockets to write to.
    pub(super) dirty: Cell<bool>,
    /// The kernel takes no more for now.
    pub(super) blocked: Cell<bool>,
    /// In the shard's list of sockets whose frames wait.
    pub(super) watched: Cell<bool>,
    /// Nothing can be read or written any more.
    pub(super) dead: Cell<bool>,
    outbox: RefCell<Outbox>,
    /// The requests of a long-poll session, which has no stream.
    pub(super) polled: Option<Box<Polled>>,
    stream: Option<TcpStream>,
    wake: Notify,
}

/// What became of a flush.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) frames: u64,
    pub(super) bytes: u64,
}

impl Conn {
    pub(super) fn new(
        (slot, id): (Slot, u64),
        stream: Option<TcpStream>,
        version: Version,
        (mount, talk): (Arc<Mount>, Talk),
        ledger: Rc<Ledger>,
    ) -> Self {
        let most = if stream.is_some() { MAX_BYTES } else { MAX_ANSWER };
        Self {
            slot,
            id,
            version,
            mount,
            talk,
            held: Cell::default(),
            name: Cell::default(),
            farewell: Cell::default(),
            until: Cell::default(),
            seen: Cell::new(Instant::now()),
            unfinished: Cell::default(),
            begun: Cell::new(Instant::now()),
            joins: Cell::new(Pace::new(Instant::now().into_std())),
            messages: Cell::new(Pace::new(Instant::now().into_std())),
            closing: Cell::default(),
            peer_closed: Cell::default(),
            dirty: Cell::default(),
            blocked: Cell::default(),
            watched: Cell::default(),
            dead: Cell::default(),
            outbox: RefCell::new(Outbox::new(most, ledger)),
            polled: stream.is_none().then(Box::default),
            stream,
            wake: Notify::new(),
        }
    }

    /// Largest message of the client, in bytes.
    pub(super) fn max_frame(&self) -> usize {
        self.mount.max_frame.unwrap_or_default()
    }

    /// Time without an inbound frame after which it is closed.
    pub(super) fn idle_timeout(&self) -> Duration {
        match (&self.polled, self.mount.longpoll) {
            // P-LP-9.
            (Some(_), Some(window)) => window.saturating_mul(3) / 2,
            _ => self.mount.idle_timeout.unwrap_or_default(),
        }
    }

    /// The other end, if the socket still has one.
    pub(super) fn peer(&self) -> SocketAddr {
        let known = self.stream.as_ref().and_then(|stream| stream.peer_addr().ok());
        known.map_or_else(|| (Ipv4Addr::UNSPECIFIED, 0).into(), listen::plain)
    }

    /// Queues a frame; whether more waits than may.
    pub(super) fn push(&self, frame: Frame) -> bool {
        let mut outbox = self.outbox.borrow_mut();
        outbox.push(frame);
        outbox.is_over()
    }

    /// Drops broadcasts that may be dropped.
    pub(super) fn shed(&self, excess: Excess) -> Shed {
        self.outbox.borrow_mut().shed(excess, |topic, count| notice(self.version, topic, count))
    }

    pub(super) fn is_over(&self) -> bool {
        self.outbox.borrow().is_over()
    }

    pub(super) fn is_stuck(&self, now: Instant) -> bool {
        self.outbox.borrow_mut().is_stuck(now)
    }

    /// Whether what waits can't go now: the kernel takes no more, or nobody polls.
    pub(super) fn is_behind(&self) -> bool {
        match self.polled {
            Some(_) => !self.is_flushed(),
            None => self.blocked.get(),
        }
    }

    /// What memory its frames cost the node, and since when some wait.
    pub(super) fn weight(&self) -> (usize, Option<Instant>) {
        let outbox = self.outbox.borrow();
        (outbox.weight(), outbox.since())
    }

    /// Takes what waits: whole frames, if it is a session without a stream.
    pub(super) fn take_frames(&self) -> VecDeque<Frame> {
        self.outbox.borrow_mut().take()
    }

    /// Drops what waits; gives how many frames that were.
    pub(super) fn clear(&self) -> u64 {
        self.outbox.borrow_mut().clear()
    }

    /// Ends a socket that is closing without another byte.
    pub(super) fn cut(&self) {
        self.dead.set(true);
        self.take_frames();
        self.wake();
    }

    /// Lets the task look at the flags again.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Writes as much as the kernel takes: with one call, unless more than [`SLICES`] frames wait.
    pub(super) fn flush(&self) -> Written {
        let mut written = Written::default();
        let Some(stream) = self.stream.as_ref().filter(|_| !self.blocked.get() && !self.dead.get())
        else {
            return written;
        };
        let mut outbox = self.outbox.borrow_mut();
        while !outbox.is_empty() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let count = outbox.slices(&mut slices);
            match stream.try_write_vectored(&slices[..count]) {
                Ok(bytes) => {
                    written.bytes += bytes as u64;
                    written.frames += outbox.advance(bytes);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.blocked.set(true);
                    self.wake();
                    break;
                }
                Err(_) => {
                    self.dead.set(true);
                    self.wake();
                    break;
                }
            }
        }
        written
    }

    /// Reads into `buffer` what is there; `None` when nothing is.
    fn read<'a>(&self, buffer: &'a mut [u8]) -> Option<&'a mut [u8]> {
        let Some(stream) = &self.stream else { return None };
        match stream.try_read(buffer) {
            Ok(0) => self.dead.set(true),
            Ok(count) => return Some(&mut buffer[..count]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(_) => self.dead.set(true),
        }
        None
    }

    /// Waits until there is something to read, or to write again if the kernel took no more.
    async fn ready(&self, read: bool) -> bool {
        let interest = match (read, self.blocked.get()) {
            (true, false) => Interest::READABLE,
            (true, true) => Interest::READABLE | Interest::WRITABLE,
            (false, true) => Interest::WRITABLE,
            (false, false) => std::future::pending().await,
        };
        let Some(stream) = &self.stream else { return std::future::pending().await };
        match stream.ready(interest).await {
            Ok(ready) => {
                if ready.is_writable() {
                    self.blocked.set(false);
                }
                ready.is_readable() || ready.is_read_closed()
            }
            Err(_) => {
                self.dead.set(true);
                false
            }
        }
    }

    /// Ends the sending direction: the client reads what was sent, then the end.
    fn shut(&self) {
        if let Some(stream) = &self.stream {
            // It fails only if the connection is gone already.
            let _ = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
        }
    }
}

/// Takes the socket off its shard, however its task ends.
struct Leave(Rc<Shard>, Rc<Conn>);

impl Drop for Leave {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.close(&self.1, code::INTERNAL);
            self.0.flush_now(&self.1);
        }
        self.0.remove(&self.1);
    }
}

/// The life of a connection; `early` is what came with the handshake.
pub(super) async fn drive(shard: Rc<Shard>, conn: Rc<Conn>, mut early: Vec<u8>) {
    let _leave = Leave(shard.clone(), conn.clone());
    let mut input = Input::default();
    shard.feed(&conn, &mut input, &mut early);
    drop(early);
    loop {
        shard.weigh(&conn, &input);
        if conn.dead.get() {
            return;
        }
        if conn.closing.get().is_some() {
            // Boxed, so that an open connection does not carry its size.
            let _ = Box::pin(timeout(LINGER, linger(&shard, &conn, &mut input))).await;
            return;
        }
        // Sockets are read no faster than what they broadcast is written.
        while shard.is_behind() {
            tokio::task::yield_now().await;
        }
        let held = input.holds() && !input.waits(&conn);
        let long = held && shard.is_long();
        if held && !long {
            shard.resume(&conn, &mut input);
            continue;
        }
        let reading = input.has_room();
        let blocked = conn.blocked.get();
        tokio::select! {
            () = conn.wake.notified() => {}
            () = tokio::task::yield_now(), if long => {}
            () = settled(&mut input.joining), if input.joining.is_some() => shard.settle(&conn),
            readable = conn.ready(reading) => {
                if blocked {
                    shard.flush(&conn);
                }
                if readable && reading && conn.closing.get().is_none() {
                    let mut buffer = shard.buffer.borrow_mut();
                    if let Some(bytes) = conn.read(&mut buffer) {
                        shard.feed(&conn, &mut input, bytes);
                    }
                }
            }
        }
    }
}

/// Waits for the other nodes to know of a join.
async fn settled(joining: &mut Option<Ready>) {
    if let Some(ready) = joining {
        ready.await;
    }
    *joining = None;
}

/// The close handshake: sends what waits, then reads until the peer has closed too.
async fn linger(shard: &Shard, conn: &Rc<Conn>, input: &mut Input) {
    let mut shut = false;
    input.forget();
    loop {
        let sent = shard.flush_now(conn);
        if conn.dead.get() || (sent && conn.peer_closed.get()) {
            return;
        }
        if sent && input.broken && !shut {
            shut = true;
            conn.shut();
        }
        let readable = tokio::select! {
            () = conn.wake.notified() => false,
            readable = conn.ready(!conn.peer_closed.get()) => readable,
        };
        if readable {
            let mut buffer = shard.buffer.borrow_mut();
            let Some(mut bytes) = conn.read(&mut buffer) else { continue };
            while !input.broken && !conn.peer_closed.get() {
                match input.decoder.next(&mut bytes, conn.max_frame()) {
                    Ok(Some(Item::Close(_))) => conn.peer_closed.set(true),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(_) => input.broken = true,
                }
            }
            input.forget();
        }
    }
}

impl Conn {
    /// Whether nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.outbox.borrow().is_empty()
    }
}
