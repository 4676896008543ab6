//! The least that the same work can cost here: its system calls, made by one thread with epoll that does nothing
//! else, and keeps of a connection no more than its room. A process of its own, as a node is, so that its memory can
//! be told, with the same clients.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
};

use anyhow::Context;
use rustix::{
    buffer::spare_capacity,
    event::epoll::{self, CreateFlags, EventData, EventFlags},
};

use crate::{
    Args, Floor,
    client::{head, push},
};

const ACCEPTED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\n\
    connection: Upgrade\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const REPLY: &str = r#"["1","1","room:1","phx_reply",{"status":"ok","response":{}}]"#;
/// The listener among the events; connections are numbered.
const LISTENER: u64 = u64::MAX;
/// Bytes that one read takes at the most.
const READ: usize = 64 << 10;

/// A connection.
struct Conn {
    stream: TcpStream,
    step: Step,
    /// What the kernel did not take.
    unsent: Vec<u8>,
}

enum Step {
    /// The handshake comes next.
    Fresh,
    /// The join comes next.
    Open,
    /// In a room, with so many bytes of a push that is not whole.
    Joined { room: u32, partial: u32 },
}

/// Serves until it is killed; says first where.
pub fn serve(args: &Args, how: Floor) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    println!("{}", listener.local_addr()?);
    let poll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&poll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
    let mut server = Server { args, how, conns: Vec::new(), rooms: Vec::new(), poll: &poll };
    let (mut events, mut buffer) = (Vec::with_capacity(256), vec![0; READ]);
    loop {
        events.clear();
        epoll::wait(&poll, spare_capacity(&mut events), None)?;
        for event in &events {
            match event.data.u64() {
                LISTENER => server.accept(&listener)?,
                at => server.event(usize::try_from(at)?, event.flags, &mut buffer)?,
            }
        }
    }
}

struct Server<'a, P> {
    args: &'a Args,
    how: Floor,
    conns: Vec<Conn>,
    /// The connections of each room.
    rooms: Vec<Vec<u32>>,
    poll: &'a P,
}

impl<P: std::os::fd::AsFd> Server<'_, P> {
    fn accept(&mut self, listener: &TcpListener) -> anyhow::Result<()> {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let at = EventData::new_u64(self.conns.len() as u64);
            epoll::add(self.poll, &stream, at, EventFlags::IN)?;
            self.conns.push(Conn { stream, step: Step::Fresh, unsent: Vec::new() });
        }
    }

    fn event(&mut self, at: usize, flags: EventFlags, buffer: &mut [u8]) -> anyhow::Result<()> {
        if flags.contains(EventFlags::OUT) {
            let bytes = std::mem::take(&mut self.conns[at].unsent);
            let poll = EventData::new_u64(at as u64);
            epoll::modify(self.poll, &self.conns[at].stream, poll, EventFlags::IN)?;
            self.send(at, &bytes)?;
        }
        let conn = &mut self.conns[at];
        let read = match conn.stream.read(buffer) {
            Ok(0) => return Ok(epoll::delete(self.poll, &conn.stream)?),
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            // A client that is gone.
            Err(_) => return Ok(epoll::delete(self.poll, &conn.stream)?),
        };
        match conn.step {
            Step::Fresh => {
                conn.step = Step::Open;
                self.send(at, ACCEPTED)
            }
            Step::Open => {
                let text = String::from_utf8_lossy(&buffer[..read]);
                let digits = text.split("room:").nth(1).and_then(|rest| rest.split('"').next());
                let room: u32 = digits.context("a join names its room")?.parse()?;
                conn.step = Step::Joined { room, partial: 0 };
                let room = usize::try_from(room)?;
                if self.rooms.len() <= room {
                    self.rooms.resize_with(room + 1, Vec::new);
                }
                self.rooms[room].push(u32::try_from(at)?);
                self.send(at, &message(REPLY))
            }
            Step::Joined { room, partial } => {
                let whole = push(room as usize, 0, self.args).len();
                let bytes = partial as usize + read;
                conn.step = Step::Joined { room, partial: u32::try_from(bytes % whole)? };
                self.broadcast(at, room as usize, bytes / whole)
            }
        }
    }

    /// `count` messages to each member of a room, and as many replies to who has pushed them.
    fn broadcast(&mut self, from: usize, room: usize, count: usize) -> anyhow::Result<()> {
        let text = "x".repeat(self.args.bytes);
        let one = message(&format!(r#"[null,null,"room:{room}","message",{{"text":"{text}"}}]"#));
        let (frames, times) = match self.how {
            Floor::OneByOne => (one, count),
            Floor::Together => (one.repeat(count), 1),
        };
        for _ in 0..times {
            for member in 0..self.rooms[room].len() {
                self.send(self.rooms[room][member] as usize, &frames)?;
            }
        }
        self.send(from, &message(REPLY).repeat(count))
    }

    fn send(&mut self, at: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let conn = &mut self.conns[at];
        if !conn.unsent.is_empty() {
            conn.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let taken = match conn.stream.write(bytes) {
            Ok(taken) => taken,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            // A client that is gone.
            Err(_) => return Ok(()),
        };
        if taken < bytes.len() {
            conn.unsent.extend_from_slice(&bytes[taken..]);
            let data = EventData::new_u64(at as u64);
            epoll::modify(self.poll, &conn.stream, data, EventFlags::IN | EventFlags::OUT)?;
        }
        Ok(())
    }
}

/// A text frame of a server.
fn message(text: &str) -> Vec<u8> {
    [head(text.len(), 0).as_slice(), text.as_bytes()].concat()
}
