//! A shard's thread: it serves HTTP on new connections, takes over those that become sockets, and
//! runs the turns.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{Router, extract::ConnectInfo};
use futures::FutureExt;
use hyper::{server::conn::http1, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::{net::TcpStream, task::LocalSet};
use tower::Service;

use super::{
    BURST, MANY, Shard,
    conn::{self, Conn},
    inbox::Task,
    patient::Patient,
    talk::Talk,
};
use crate::{
    arrivals::Arrival,
    frame::code,
    handshake::{Opening, Ticket},
    longpoll::Answering,
    plane::Plane,
};

/// How long a client may take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request, in bytes; past it 431. A socket keeps what its connect callback saw.
const HEAD: usize = 64 << 10;
/// Unsent bytes that the kernel keeps for a socket before it takes no more.
const NOTSENT_LOWAT: u32 = 16 << 10;
/// How long shutdown waits for the close handshakes.
const LAST_CALL: Duration = Duration::from_secs(6);

/// Starts the thread of shard `id`. It ends after shutdown.
pub(crate) fn spawn(id: u16, plane: Arc<Plane>, routes: Router) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name(format!("shard-{id}")).spawn(move || {
        let _running = Running(plane.clone());
        let shard = Rc::new(Shard::new(id, plane));
        LocalSet::new().block_on(&runtime, run(shard, routes));
    })?;
    Ok(())
}

/// Counts the shard out, however its thread ends.
struct Running(Arc<Plane>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.send_modify(|running| *running = running.saturating_sub(1));
    }
}

async fn run(shard: Rc<Shard>, routes: Router) {
    tokio::task::spawn_local(shard.clone().keep_time());
    let shutdown = shard.plane.shutdown.clone();
    loop {
        tokio::select! {
            () = shard.handle().inbox.filled() => {}
            () = shard.dirtied.notified() => {}
            () = shutdown.cancelled() => break,
        }
        shard.turn_safely(&routes).await;
    }
    let _ = tokio::time::timeout(LAST_CALL, shard.close_all(&routes)).await;
}

impl Shard {
    /// A turn. A panic in it is a fault of ours; the sockets of the shard live on.
    async fn turn_safely(self: &Rc<Self>, routes: &Router) {
        let turn = AssertUnwindSafe(self.turn(routes));
        if turn.catch_unwind().await.is_err() {
            tracing::error!(shard = self.id, "a turn panicked");
        }
    }

    async fn turn(self: &Rc<Self>, routes: &Router) {
        let mut tasks = Vec::new();
        self.handle().inbox.take(&mut tasks);
        for task in tasks {
            // What a program keeps for a socket may panic as it is dropped: that costs no other task.
            let take = AssertUnwindSafe(|| self.take(task, routes));
            if catch_unwind(take).is_err() {
                tracing::error!(shard = self.id, "a task of a turn panicked");
            }
            if self.appended.get() > BURST || self.delivered.get() > MANY {
                self.flush_dirty().await;
            }
        }
        self.flush_dirty().await;
    }

    fn take(self: &Rc<Self>, task: Task, routes: &Router) {
        match task {
            Task::Socket(stream, peer) => self.admit(stream, peer, routes.clone()),
            Task::Fanout(fanout) => self.fan_out(&fanout),
            Task::OpenPoll(opening, opened) => self.open_poll(&opening, opened),
            Task::Poll(at, answer) => self.poll(at, answer),
            Task::Post(at, messages, taken) => self.post(at, messages, taken),
            Task::Uploads(at, upload) => self.upload(at, upload),
            Task::Said(address, said) => self.said(address, said),
            Task::Topics(query, answer) => {
                // Who asked may be gone.
                let _ = answer.send(query.pick(self.table.borrow().counts()));
            }
            Task::Close(count, moved) => self.move_away(count, &moved),
        }
    }

    /// Shutdown: every socket is closed with 1012, and polls of sessions elsewhere are answered.
    async fn close_all(self: &Rc<Self>, routes: &Router) {
        loop {
            let open: Vec<_> = self.conns.borrow().iter().map(|(_, conn)| conn.clone()).collect();
            if open.is_empty() && self.plane.polls.is_quiet() {
                return;
            }
            for conn in open {
                self.close(&conn, code::RESTART);
            }
            self.turn_safely(routes).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn admit(self: &Rc<Self>, stream: std::net::TcpStream, peer: SocketAddr, routes: Router) {
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            let served = Served(shard.clone());
            match TcpStream::from_std(stream) {
                Ok(stream) => http(served, stream, peer, routes).await,
                Err(error) => tracing::warn!(%error, "cannot serve a connection"),
            }
        });
    }

    /// Makes a socket of an upgraded connection.
    fn open(self: &Rc<Self>, stream: TcpStream, opening: Opening, early: Vec<u8>, served: Served) {
        let Some(conn) = self.enter(Some(stream), &opening) else { return };
        let shard = self.clone();
        tokio::task::spawn_local(async move {
            conn::drive(shard, conn, early).await;
            drop(served);
        });
    }

    /// Puts a socket on the shard; one without a stream is a long-poll session.
    pub(super) fn enter(&self, stream: Option<TcpStream>, opening: &Opening) -> Option<Rc<Conn>> {
        let id = self.next_id.get();
        self.next_id.set(id + 1);
        let conn = {
            let mut conns = self.conns.borrow_mut();
            let entry = conns.vacant_entry();
            let slot = u32::try_from(entry.key()).ok()?;
            let talk = Talk::new(opening, &self.plane.rules.read());
            let own = (opening.mount.clone(), talk);
            let conn =
                Rc::new(Conn::new((slot, id), stream, opening.version, own, self.ledger.clone()));
            entry.insert(conn.clone());
            conn
        };
        self.handle().connections.fetch_add(1, Ordering::Relaxed);
        self.plane.metrics.connections.inc();
        conn.until.set(opening.accept.until);
        conn.farewell.set(opening.accept.farewell.clone());
        self.watch(&conn, conn.left(conn.idle_timeout()));
        if let Some(name) = opening.accept.id.clone() {
            self.name(&conn, name);
        }
        // What came before it had its name here was told there.
        if opening.arrival.as_ref().is_some_and(Arrival::is_disconnected) {
            self.close(&conn, code::AWAY);
        }
        Some(conn)
    }
}

/// One TCP connection of the shard.
struct Served(Rc<Shard>);

impl Drop for Served {
    fn drop(&mut self) {
        self.0.handle().sockets.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves requests until the client goes, or becomes a channel socket.
async fn http(served: Served, stream: TcpStream, peer: SocketAddr, routes: Router) {
    let _ = stream.set_nodelay(true);
    // Without it a stalled client hides megabytes in the kernel. Not every kernel has it.
    let _ = SockRef::from(&stream).set_tcp_notsent_lowat(NOTSENT_LOWAT);
    let (ticket, answering) = (Ticket::default(), Answering::default());
    let stream = Patient::new(stream, answering.clone());
    let service = service_fn(|mut request: http::Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(ticket.clone());
        request.extensions_mut().insert(answering.clone());
        request.extensions_mut().insert(ConnectInfo(peer));
        routes.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD)
        // The buffer grows past that for what comes at once.
        .max_header_size(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = Box::pin(connection).await {
        tracing::debug!(%error, %peer, "a connection ended");
    }
    let Some((upgrade, opening)) = ticket.take() else { return };
    let Ok(upgraded) = upgrade.await else { return };
    match Upgraded::downcast::<TokioIo<Patient<TcpStream>>>(upgraded) {
        Ok(parts) => {
            let shard = served.0.clone();
            let stream = parts.io.into_inner().into_inner();
            shard.open(stream, opening, parts.read_buf.to_vec(), served);
        }
        Err(_) => tracing::error!("an upgraded connection is no TCP stream"),
    }
}
