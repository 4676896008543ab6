//! One broadcast to all who have joined a topic, over loopback: from the hub until the last of them has read it, the
//! reading included. What a node alone costs is measured by `cargo e2e load`.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use divan::{Bencher, counter::ItemsCount};
use sluice_node::{
    hub::Hub,
    pubsub::{Broadcast, Kind},
    serializer::Version,
    server,
};
use sluice_node_api::config::{ChannelRule, LiveConfig, NodeConfig};
use tokio_util::sync::CancellationToken;

const HANDSHAKE: &[u8] = b"GET /socket/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
    upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const JOIN: &[u8] = br#"["1","1","room:1","phx_join",{}]"#;
const REPLY: &str = r#"["1","1","room:1","phx_reply",{"status":"ok","response":{}}]"#;

fn main() {
    divan::main();
}

fn joined(address: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let join = [&[0x81, 0x80 | JOIN.len() as u8, 0, 0, 0, 0], JOIN].concat();
    stream.write_all(HANDSHAKE)?;
    stream.write_all(&join)?;
    let mut said = Vec::new();
    while !said.ends_with(REPLY.as_bytes()) {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        said.push(byte[0]);
    }
    Ok(stream)
}

/// Broadcasts of 512 bytes, sixteen at a time, to so many clients on two shards.
#[divan::bench(args = [1, 100, 2000])]
fn broadcasts(bencher: Bencher<'_, '_>, clients: usize) {
    const AT_ONCE: usize = 16;
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let shutdown = CancellationToken::new();
    let (hub, address) = runtime.block_on(start(shutdown.clone()));
    let mut streams: Vec<_> = (0..clients).map(|_| joined(address).expect("joined")).collect();
    let payload = format!(r#"{{"text":"{}"}}"#, "x".repeat(512));
    let broadcast = Broadcast {
        topic: "room:1".into(),
        event: "message".into(),
        kind: Kind::Json,
        payload: payload.into(),
    };
    let mut text = Vec::new();
    Version::V2.encode_broadcast(&broadcast, &mut text).expect("it fits");
    let mut read = vec![0; sluice_node::frame::text(&text).len() * AT_ONCE];
    bencher.counter(ItemsCount::new(clients * AT_ONCE)).bench_local(|| {
        for _ in 0..AT_ONCE {
            hub.broadcast(broadcast.clone());
        }
        for stream in &mut streams {
            stream.read_exact(&mut read).expect("all of them");
        }
    });
    shutdown.cancel();
}

async fn start(shutdown: CancellationToken) -> (Hub, SocketAddr) {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let live = LiveConfig { channels: vec![ChannelRule::room()], ..LiveConfig::default() };
    server::start(&config, "bench".into(), Arc::new(live), 2, shutdown).await.expect("a free port")
}
