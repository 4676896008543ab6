//! The least that the same work can cost here: its system calls, made by a thread that does
//! nothing else.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
};

use anyhow::Context;

use crate::{Args, PATIENCE, client::frame, program::cpu};

/// Connections of the floor: fewer, since both ends are in one process.
const CONNECTIONS: usize = 2000;

/// Microseconds of CPU of accepting a connection and answering it twice, and of writing one
/// message to a connection.
pub fn measure(args: &Args) -> anyhow::Result<(f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let message = frame(&"x".repeat(args.bytes + 50));
    let messages = args.messages;
    let count = CONNECTIONS.min(args.connections);
    let server = std::thread::spawn(move || serve(&listener, count, &message, messages));
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = TcpStream::connect(address)?;
        client.set_nodelay(true)?;
        client.set_read_timeout(Some(PATIENCE))?;
        for _ in 0..2 {
            client.write_all(&[0; 200])?;
            client.read_exact(&mut [0; 100])?;
        }
        clients.push(client);
    }
    let mut buffer = vec![0; 1 << 20];
    while clients.iter_mut().any(|client| client.read(&mut buffer).is_ok_and(|read| read > 0)) {}
    server.join().ok().context("the floor's thread panicked")?
}

fn serve(
    listener: &TcpListener,
    count: usize,
    message: &[u8],
    messages: usize,
) -> anyhow::Result<(f64, f64)> {
    let me = Path::new("/proc/thread-self");
    let begun = cpu(me)?;
    let mut streams = Vec::new();
    for _ in 0..count {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        for _ in 0..2 {
            stream.read_exact(&mut [0; 200])?;
            stream.write_all(&[0; 100])?;
        }
        streams.push(stream);
    }
    let connected = cpu(me)?;
    // No more than a socket buffer takes while nobody reads.
    let messages = messages.clamp(1, 64);
    for _ in 0..messages {
        for stream in &mut streams {
            stream.write_all(message)?;
        }
    }
    let written = cpu(me)?;
    let deliveries = (messages * count) as f64;
    Ok(((connected - begun) / count as f64, (written - connected) / deliveries))
}
