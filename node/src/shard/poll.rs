//! Long-poll sessions: sockets without a stream. What is to be written waits until it is polled;
//! what is posted is taken message by message, each waiting for the joins before it (`P-LP-4`).

use std::{cell::RefCell, collections::VecDeque, rc::Rc};

use tokio::{sync::oneshot, time::Instant};

use super::{
    Shard,
    conn::Conn,
    input::{Input, MAX_HEEDED},
    table::Slot,
    waiting::Frame,
};
use crate::{
    frame::{self, code},
    handshake::Opening,
    longpoll::Posted,
};

/// Bytes that may be posted and not yet taken: two of the largest messages.
const MAX_POSTED: usize = 16 << 20;
/// Requests whose messages wait.
const MAX_POSTS: usize = 64;

/// Bytes of messages in one answer, unless the first has more; the rest waits for the next poll. The answer
/// must fit between two nodes, and JSON in JSON may take twice as many. No more waits for a session: between two
/// polls it takes nothing, however fast it reads, and one poll is to take all.
pub(super) const MAX_ANSWER: usize = 4 << 20;

/// How many of these frames, at least one, go with one answer.
fn portion(frames: &VecDeque<Frame>) -> usize {
    let mut bytes = 0;
    let fits = frames.iter().take_while(|frame| {
        bytes += frame.bytes.len();
        bytes <= MAX_ANSWER
    });
    fits.count().max(1)
}

/// The requests of a session.
#[derive(Default)]
pub(super) struct Polled {
    /// The poll that waits.
    waiting: RefCell<Option<oneshot::Sender<Vec<String>>>>,
    posts: RefCell<VecDeque<Post>>,
    /// Those whose messages are being read.
    uploads: RefCell<Vec<oneshot::Sender<()>>>,
}

struct Post {
    messages: VecDeque<Posted>,
    taken: oneshot::Sender<()>,
}

impl Polled {
    /// Bytes of messages that wait to be taken.
    fn posted(&self) -> usize {
        let posts = self.posts.borrow();
        posts.iter().flat_map(|post| &post.messages).map(|message| message.bytes.len()).sum()
    }
}

impl Shard {
    /// Opens a session; gives its place.
    pub(super) fn open_poll(
        self: &Rc<Self>,
        opening: &Opening,
        opened: oneshot::Sender<(Slot, u64)>,
    ) {
        if opened.is_closed() || self.plane.shutdown.is_cancelled() {
            return;
        }
        let Some(conn) = self.enter(None, opening) else { return };
        if opened.send((conn.slot, conn.id)).is_err() {
            self.close(&conn, code::AWAY);
        }
    }

    fn polled(&self, (slot, id): (Slot, u64)) -> Option<Rc<Conn>> {
        let conn = self.conns.borrow().get(slot as usize).cloned();
        conn.filter(|conn| conn.id == id && conn.polled.is_some() && conn.closing.get().is_none())
    }

    /// A poll: it displaces one that waits (`P-LP-10`).
    pub(super) fn poll(&self, at: (Slot, u64), answer: oneshot::Sender<Vec<String>>) {
        let Some(conn) = self.polled(at) else { return };
        conn.seen.set(Instant::now());
        if let Some(polled) = &conn.polled
            && let Some(older) = polled.waiting.borrow_mut().replace(answer)
        {
            // It may be gone already.
            let _ = older.send(Vec::new());
        }
        self.answer(&conn);
    }

    /// Messages of the client begin to arrive: who reads them is told when the session ends.
    pub(super) fn upload(&self, at: (Slot, u64), upload: oneshot::Sender<()>) {
        let Some(conn) = self.polled(at) else { return };
        let Some(polled) = &conn.polled else { return };
        let mut uploads = polled.uploads.borrow_mut();
        uploads.retain(|upload| !upload.is_closed());
        if uploads.len() >= MAX_POSTS {
            return self.plane.metrics.drop("longpoll", 1);
        }
        uploads.push(upload);
    }

    /// Messages of the client.
    pub(super) fn post(&self, at: (Slot, u64), messages: Vec<Posted>, taken: oneshot::Sender<()>) {
        let Some(conn) = self.polled(at) else { return };
        let Some(polled) = &conn.polled else { return };
        if polled.posts.borrow().len() >= MAX_POSTS || polled.posted() > MAX_POSTED {
            return self.plane.metrics.drop("longpoll", 1);
        }
        if conn.talk.is_joining() {
            messages.iter().for_each(|message| self.heed(&conn, message));
        }
        polled.posts.borrow_mut().push_back(Post { messages: messages.into(), taken });
        self.take_posts(&conn);
    }

    /// Takes what was posted, up to a join that must settle first; the rest counts until then.
    pub(super) fn take_posts(&self, conn: &Rc<Conn>) {
        let Some(polled) = &conn.polled else { return };
        self.take_each(conn, polled);
        if conn.closing.get().is_none() {
            self.recount(conn, polled.posted());
        }
    }

    fn take_each(&self, conn: &Rc<Conn>, polled: &Polled) {
        while conn.closing.get().is_none() && !conn.talk.is_joining() {
            let mut posts = polled.posts.borrow_mut();
            let Some(post) = posts.front_mut() else { return };
            let Some(message) = post.messages.pop_front() else {
                if let Some(done) = posts.pop_front() {
                    // Nobody waits for it if it took too long.
                    let _ = done.taken.send(());
                }
                continue;
            };
            drop(posts);
            self.receive(conn, &mut Input::default(), message.read(conn.version));
            if conn.talk.is_joining() {
                let posts = polled.posts.borrow();
                let waiting = posts.iter().flat_map(|post| &post.messages);
                waiting.take(MAX_HEEDED).for_each(|message| self.heed(conn, message));
            }
        }
    }

    /// Gives what waits to the poll that waits, if both are there.
    pub(super) fn answer(&self, conn: &Conn) {
        let Some(polled) = &conn.polled else { return };
        let mut waiting = polled.waiting.borrow_mut();
        if waiting.as_ref().is_none_or(oneshot::Sender::is_closed) {
            return;
        }
        let mut frames = conn.take_frames();
        while !frames.is_empty() && waiting.is_some() {
            let rest = frames.split_off(portion(&frames));
            let mut unfit = 0;
            let texts = frames.iter().filter_map(|frame| {
                // P-LP-12: bytes travel as text, if they are.
                let text = std::str::from_utf8(frame::payload(&frame.bytes)).ok();
                unfit += u64::from(text.is_none());
                text.map(str::to_owned)
            });
            let texts: Vec<_> = texts.collect();
            if !texts.is_empty()
                && let Some(poll) = waiting.take()
                && poll.send(texts).is_err()
            {
                frames.extend(rest);
                break;
            }
            let bytes = frames.iter().map(|frame| frame.bytes.len() as u64).sum();
            self.tally.wrote(frames.len() as u64, bytes);
            self.plane.metrics.drop("binary_longpoll", unfit);
            frames = rest;
        }
        frames.into_iter().for_each(|frame| _ = conn.push(frame));
    }

    /// The session has ended: its poll is released at once (G-6), its posts are told.
    pub(super) fn release(&self, conn: &Rc<Conn>) {
        let Some(polled) = &conn.polled else { return };
        self.answer(conn);
        if let Some(poll) = polled.waiting.take() {
            // It may be gone already.
            let _ = poll.send(Vec::new());
        }
        polled.posts.take();
        self.recount(conn, 0);
        polled.uploads.take();
        self.remove(conn);
    }
}
