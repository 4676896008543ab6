//! A shard: one thread with a current-thread runtime, on which a connection lives and dies. Its
//! state is unlocked. Other threads reach it by its [`inbox`] only.
//!
//! Threads are not tied to cores: in a container with less than the whole machine, the shards of
//! all containers would meet on the same few.
//!
//! A turn takes the inbox, appends frames to the sockets that should get them, then writes to each
//! of these once; what is published meanwhile leaves with the next turn, in one write a socket.

mod channels;
pub(crate) mod conn;
mod expiry;
pub(crate) mod fanout;
mod feed;
pub(crate) mod inbox;
mod input;
mod named;
pub(crate) mod outbox;
mod patient;
mod poll;
mod pressure;
mod serve;
pub(crate) mod slow;
pub(crate) mod table;
mod talk;
mod tally;
mod unfinished;
mod waiting;
mod wheel;

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use slab::Slab;
use tokio::{sync::Notify, time::MissedTickBehavior};

use self::{
    conn::Conn,
    fanout::Fanout,
    outbox::Excess,
    table::{Slot, Table},
    tally::Tally,
    waiting::{Frames, Ledger, Loss, Waiting},
    wheel::Wheel,
};
use sluice_node_api::config::SlowConsumer;

use crate::{
    frame::{self, code},
    memory::signed,
    plane::{Plane, ShardHandle},
    protocol::Effect,
};

pub(crate) use serve::spawn;

/// Bytes that one read takes at the most; one buffer serves all sockets of the shard.
const READ: usize = 64 << 10;
/// Sockets written to before other tasks run.
const SLICE: usize = 512;
/// Bytes of broadcasts that a turn appends before it writes.
const BURST: usize = 64 << 10;
/// Deliveries before it does, however small they are: nothing else runs meanwhile, and a few writes
/// for each socket are as cheap for each message as one.
const MANY: u64 = 512 << 10;

/// One shard, on its own thread.
pub(crate) struct Shard {
    id: u16,
    plane: Arc<Plane>,
    conns: RefCell<Slab<Rc<Conn>>>,
    next_id: Cell<u64>,
    table: RefCell<Table>,
    /// Sockets by the names that the connect callback gave them.
    named: RefCell<HashMap<Arc<str>, Vec<Slot>>>,
    buffer: RefCell<Box<[u8]>>,
    /// Scratch room for the effects of one message.
    effects: RefCell<Vec<Effect>>,
    /// Sockets with something to write.
    dirty: RefCell<Vec<Rc<Conn>>>,
    dirtied: Notify,
    /// Sockets whose kernel buffer is full, and sessions that nobody polls.
    behind: RefCell<Vec<Rc<Conn>>>,
    /// The memory of all that waits.
    ledger: Rc<Ledger>,
    /// What must wait before the slowest are looked for again.
    pressed: Cell<usize>,
    /// Bytes of broadcasts since the last write.
    appended: Cell<usize>,
    /// Deliveries since all was written.
    delivered: Cell<u64>,
    wheel: RefCell<Wheel<(Slot, u64)>>,
    tick: Duration,
    tally: Tally,
}

impl Shard {
    fn new(id: u16, plane: Arc<Plane>) -> Self {
        let tick = plane.shortest_idle / 60;
        Self {
            id,
            conns: RefCell::default(),
            next_id: Cell::default(),
            table: RefCell::default(),
            named: RefCell::default(),
            buffer: RefCell::new(vec![0; READ].into_boxed_slice()),
            effects: RefCell::default(),
            dirty: RefCell::default(),
            dirtied: Notify::new(),
            behind: RefCell::default(),
            ledger: Rc::default(),
            pressed: Cell::default(),
            appended: Cell::default(),
            delivered: Cell::default(),
            wheel: RefCell::default(),
            tick: tick.clamp(Duration::from_millis(50), Duration::from_secs(1)),
            tally: Tally::default(),
            plane,
        }
    }

    fn handle(&self) -> &ShardHandle {
        &self.plane.shards[usize::from(self.id)]
    }

    /// Takes a socket off the shard: its task has ended.
    fn remove(&self, conn: &Conn) {
        self.abandon(conn);
        conn.dead.set(true);
        // Lists may keep it for a while.
        conn.take_frames();
        self.recount(conn, 0);
        self.conns.borrow_mut().try_remove(conn.slot as usize);
        let handle = self.handle();
        handle.connections.fetch_sub(1, Ordering::Relaxed);
        if conn.closing.get().is_some() {
            handle.closing.fetch_sub(1, Ordering::Relaxed);
        }
        self.plane.metrics.connections.dec();
        let code = conn.closing.get().unwrap_or(1006);
        self.plane.metrics.close(code);
        if let Some(farewell) = conn.farewell.take() {
            farewell.end(code);
        }
    }

    /// Ends all channels of a socket (`P-ERR-5`).
    fn abandon(&self, conn: &Conn) {
        self.unname(conn);
        conn.talk.hang_up();
        let (count, mut unused) = self.table.borrow_mut().remove(conn.slot);
        if let Some(held) = conn.held.take()
            && self.table.borrow_mut().unhold(&held)
        {
            unused.push(held);
        }
        for topic in unused {
            self.plane.interest.release(&topic, self.id);
        }
        self.plane.metrics.channels.dec_by(signed(count));
    }

    /// Closes a socket with `code`, unless it is closing already; whether it was not.
    fn close(&self, conn: &Rc<Conn>, code: u16) -> bool {
        self.end(conn, code, frame::close(Some(code)))
    }

    fn end(&self, conn: &Rc<Conn>, code: u16, close: Bytes) -> bool {
        if conn.dead.get() || conn.closing.get().is_some() {
            return false;
        }
        conn.closing.set(Some(code));
        // Its task gives it back before it does anything else.
        self.recount(conn, 0);
        self.handle().closing.fetch_add(1, Ordering::Relaxed);
        self.abandon(conn);
        if conn.polled.is_some() {
            self.release(conn);
            return true;
        }
        conn.push(Waiting::new(&self.ledger, close, Loss::Never));
        self.mark(conn);
        conn.wake();
        true
    }

    /// Queues a frame for one socket.
    fn send(&self, conn: &Rc<Conn>, frame: Bytes) {
        if conn.dead.get() || conn.closing.get().is_some() {
            return;
        }
        let over = conn.push(Waiting::new(&self.ledger, frame, Loss::Never));
        self.mark(conn);
        if over {
            self.relieve(conn);
        }
    }

    /// The socket has something to write.
    fn mark(&self, conn: &Rc<Conn>) {
        if !conn.blocked.get() && !conn.dirty.replace(true) {
            let mut dirty = self.dirty.borrow_mut();
            dirty.push(conn.clone());
            if dirty.len() == 1 {
                self.dirtied.notify_one();
            }
        }
    }

    /// Delivers a broadcast to the subscribers on this shard.
    fn fan_out(&self, fanout: &Arc<Fanout>) {
        self.disconnect(fanout);
        let slow_consumer = self.plane.slow_consumer(fanout.broadcast());
        let mut frames = Frames::new(fanout, slow_consumer, &self.ledger);
        let (mut over, mut behind) = (Vec::new(), Vec::new());
        let table = self.table.borrow();
        let conns = self.conns.borrow();
        let mut count = 0;
        for slot in table.subscribers(fanout.topic()) {
            let Some(conn) = conns.get(*slot as usize) else { continue };
            if fanout.leaves_out(self.id, *slot, conn.id) {
                continue;
            }
            if let Some(taken) = conn.talk.intercept(fanout, &self.plane) {
                if !taken {
                    self.plane.metrics.drop("mailbox", 1);
                }
                continue;
            }
            let frame = match frames.of(conn.version) {
                Ok(frame) => frame,
                Err(unfit) => {
                    self.plane.metrics.drop(unfit.reason(), 1);
                    continue;
                }
            };
            count += 1;
            if conn.push(frame) {
                over.push(conn.clone());
            } else if slow_consumer == SlowConsumer::LatestOnly && conn.blocked.get() {
                behind.push(conn.clone());
            }
            self.mark(conn);
        }
        drop((table, conns));
        self.tally.deliveries.set(self.tally.deliveries.get() + count);
        self.appended.set(self.appended.get() + fanout.len());
        self.delivered.set(self.delivered.get() + count);
        for conn in behind {
            self.shed(&conn, Excess::Superseded);
        }
        for conn in over {
            self.relieve(&conn);
        }
    }

    /// Whether so much has been published since the last write that reading should wait for it.
    fn is_behind(&self) -> bool {
        self.appended.get() > BURST && !self.dirty.borrow().is_empty()
    }

    /// Whether there are so many deliveries to write that who has made them should let others go on.
    fn is_long(&self) -> bool {
        self.delivered.get() > MANY && !self.dirty.borrow().is_empty()
    }

    fn flush(&self, conn: &Rc<Conn>) {
        if conn.polled.is_some() {
            self.answer(conn);
        } else {
            let written = conn.flush();
            self.tally.wrote(written.frames, written.bytes);
        }
        if conn.is_behind() && !conn.watched.replace(true) {
            self.behind.borrow_mut().push(conn.clone());
        }
    }

    /// Flushes a socket that is closing; whether all is sent.
    fn flush_now(&self, conn: &Rc<Conn>) -> bool {
        self.flush(conn);
        conn.is_flushed()
    }

    /// Writes to every dirty socket; other tasks run in between.
    async fn flush_dirty(&self) {
        loop {
            self.appended.set(0);
            let slice: Vec<_> = {
                let mut dirty = self.dirty.borrow_mut();
                let from = dirty.len().saturating_sub(SLICE);
                // A panic below must leave no socket marked that is not in the list.
                dirty.drain(from..).inspect(|conn| conn.dirty.set(false)).collect()
            };
            for conn in slice {
                self.flush(&conn);
            }
            if self.dirty.borrow().is_empty() {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.delivered.set(0);
        self.dirty.borrow_mut().shrink_to(SLICE);
        self.account();
    }

    /// Closes `count` sockets with 1012, picked evenly, and counts them in `moved`.
    fn move_away(&self, count: u64, moved: &std::sync::atomic::AtomicU64) {
        let open: Vec<_> = {
            let conns = self.conns.borrow();
            let open = conns.iter().map(|(_, conn)| conn);
            open.filter(|conn| conn.closing.get().is_none()).cloned().collect()
        };
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(open.len());
        for picked in 0..count {
            if self.close(&open[picked * open.len() / count], code::RESTART) {
                moved.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Closes sockets that have been silent for too long (`P-HB-2`, `P-HB-3`), and those that have
    /// not taken a frame for too long.
    async fn keep_time(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(self.tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let check = std::panic::AssertUnwindSafe(|| {
                self.check_idle();
                self.check_behind();
                self.pressed.set(0);
                self.account();
            });
            if std::panic::catch_unwind(check).is_err() {
                tracing::error!(shard = self.id, "a check of idle sockets panicked");
            }
        }
    }

    fn check_idle(&self) {
        let mut due = Vec::new();
        self.wheel.borrow_mut().tick(&mut due);
        for (slot, id) in due {
            let conn = self.conns.borrow().get(slot as usize).cloned();
            let Some(conn) = conn.filter(|conn| conn.id == id) else { continue };
            match conn
                .idle_timeout()
                .checked_sub(conn.seen.get().elapsed())
                .filter(|left| !left.is_zero())
            {
                _ if conn.is_expired() => self.expire(&conn),
                Some(left) => self.watch(&conn, conn.left(left)),
                None => {
                    if conn.polled.is_some() {
                        // Nobody will poll what waits (`P-LP-9`).
                        self.plane.metrics.drop("slow", conn.clear());
                    }
                    self.close(&conn, code::IDLE);
                }
            }
        }
    }

    /// Looks at a socket again after `left`.
    fn watch(&self, conn: &Conn, left: Duration) {
        let ticks = left.as_nanos().div_ceil(self.tick.as_nanos());
        let ticks = u64::try_from(ticks).unwrap_or(u64::MAX);
        self.wheel.borrow_mut().insert(ticks, (conn.slot, conn.id));
    }
}
