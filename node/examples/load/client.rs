//! Clients that cost little: raw TCP, frames made by hand, nothing parsed but lengths.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{Notify, Semaphore, watch},
    time::timeout,
};

use crate::{Args, PATIENCE};

/// Handshakes under way at a time.
const AT_ONCE: usize = 64;
const HANDSHAKE: &str = "GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nHost: load\r\n\
    Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// A count that can be waited for.
#[derive(Default)]
pub struct Count(AtomicU64, Notify);

impl Count {
    fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
        self.1.notify_one();
    }

    /// Waits until it is `want`.
    pub async fn until(&self, want: u64) -> anyhow::Result<()> {
        let reached = async {
            while self.0.load(Ordering::Relaxed) < want {
                self.1.notified().await;
            }
        };
        let got = || self.0.load(Ordering::Relaxed);
        timeout(PATIENCE, reached).await.with_context(|| format!("{} of {want} in time", got()))
    }
}

/// All clients of a run; they go when this is dropped.
pub struct Clients {
    /// Channels joined.
    pub joined: Arc<Count>,
    /// Broadcasts received.
    pub delivered: Arc<Count>,
    start: watch::Sender<bool>,
}

impl Clients {
    /// Connects and joins them in the background.
    pub fn connect(address: SocketAddr, args: &Args) -> Self {
        let (start, started) = watch::channel(false);
        let this = Self { joined: Arc::default(), delivered: Arc::default(), start };
        let at_once = Arc::new(Semaphore::new(AT_ONCE));
        for index in 0..args.connections {
            let (joined, delivered) = (this.joined.clone(), this.delivered.clone());
            let (started, at_once, args) = (started.clone(), at_once.clone(), args.clone());
            tokio::spawn(async move {
                let client = async {
                    let permit = at_once.acquire().await?;
                    let mut stream = join(address, index, index / args.room).await?;
                    joined.add(1);
                    drop(permit);
                    let room = index / args.room;
                    let pushes = || (0..args.messages).flat_map(|at| push(room, at, &args));
                    let pushes = index.is_multiple_of(args.room).then(|| pushes().collect());
                    listen(&mut stream, started, pushes, &delivered).await
                };
                if let Err(error) = client.await {
                    eprintln!("client {index}: {error:#}");
                }
            });
        }
        this
    }

    /// One client of each topic pushes its messages.
    pub fn burst(&self) {
        self.start.send_replace(true);
    }
}

/// Connections from one source address: there are too few ports for all.
const OF_ONE_SOURCE: usize = 1000;

/// The address that a client connects from, on loopback.
fn source(index: usize) -> SocketAddr {
    let [.., high, low] = u32::try_from(index / OF_ONE_SOURCE).unwrap_or(u32::MAX).to_be_bytes();
    (Ipv4Addr::new(127, 1, high, low), 0).into()
}

async fn join(address: SocketAddr, index: usize, room: usize) -> anyhow::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(source(index))?;
    let mut stream = timeout(PATIENCE, socket.connect(address)).await??;
    stream.set_nodelay(true)?;
    stream.write_all(HANDSHAKE.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if timeout(PATIENCE, stream.read_buf(&mut head)).await?? == 0 {
            bail!("refused: {}", String::from_utf8_lossy(&head));
        }
    }
    stream.write_all(&frame(&format!(r#"["1","1","room:{room}","phx_join",{{}}]"#))).await?;
    let mut frames = Frames::default();
    let mut buffer = [0; 256];
    while frames.whole == 0 {
        let read = timeout(PATIENCE, stream.read(&mut buffer)).await??;
        if read == 0 {
            bail!("closed before the join was answered");
        }
        frames.take(&buffer[..read]);
    }
    Ok(stream)
}

/// A push; in one room all are of one length.
pub fn push(room: usize, at: usize, args: &Args) -> Vec<u8> {
    let text = "x".repeat(args.bytes);
    frame(&format!(r#"["1","{:09}","room:{room}","message",{{"text":"{text}"}}]"#, at + 2))
}

/// Counts what comes; pushes when told.
async fn listen(
    stream: &mut TcpStream,
    mut started: watch::Receiver<bool>,
    mut pushes: Option<Vec<u8>>,
    delivered: &Count,
) -> anyhow::Result<()> {
    let (mut read, mut write) = stream.split();
    // The node answers each push beside the broadcast.
    let replies = pushes.is_some();
    let mut frames = Frames::default();
    let mut buffer = vec![0; 4096];
    let mut told = 0;
    let pushing = async {
        // The sender is gone when the run is over: nothing to push then.
        if started.wait_for(|started| *started).await.is_ok()
            && let Some(pushes) = pushes.take()
        {
            write.write_all(&pushes).await?;
        }
        std::io::Result::Ok(())
    };
    let counting = async {
        loop {
            let count = read.read(&mut buffer).await?;
            if count == 0 {
                return Ok(());
            }
            frames.take(&buffer[..count]);
            let whole = if replies { frames.whole / 2 } else { frames.whole };
            delivered.add(whole - told);
            told = whole;
        }
    };
    tokio::try_join!(pushing, async {
        // A node that is stopped at the end of a run resets what is open.
        let _: std::io::Result<()> = counting.await;
        Ok(())
    })?;
    Ok(())
}

/// A text frame of a client; its mask is zero, which changes nothing and is allowed.
fn frame(text: &str) -> Vec<u8> {
    [head(text.len(), 0x80).as_slice(), &[0; 4], text.as_bytes()].concat()
}

/// The head of a text frame of `len` bytes; `mask` is 0x80 where a mask follows.
pub fn head(len: usize, mask: u8) -> Vec<u8> {
    match u16::try_from(len) {
        Ok(len @ 0..126) => vec![0x81, mask | len as u8],
        Ok(len) => [&[0x81, mask | 126], len.to_be_bytes().as_slice()].concat(),
        Err(_) => [&[0x81, mask | 127], (len as u64).to_be_bytes().as_slice()].concat(),
    }
}

/// Counts frames of a server.
#[derive(Default)]
struct Frames {
    whole: u64,
    head: Vec<u8>,
    left: u64,
}

impl Frames {
    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if self.left > 0 {
                let skip = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                bytes = &bytes[skip..];
                self.left -= skip as u64;
                self.whole += u64::from(self.left == 0);
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &bytes[1..];
            let len = match *self.head.as_slice() {
                [_, len] if len < 126 => u64::from(len),
                [_, 126, high, low] => u64::from(u16::from_be_bytes([high, low])),
                [_, 127, a, b, c, d, e, f, g, h] => u64::from_be_bytes([a, b, c, d, e, f, g, h]),
                _ => continue,
            };
            self.head.clear();
            self.left = len;
            self.whole += u64::from(len == 0);
        }
    }
}
