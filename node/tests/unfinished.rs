//! Messages that clients begin and do not end, through real sockets: no byte of them keeps a socket open,
//! and those of all clients together take no more memory than they may.

mod conformance;
mod plane;

use std::{sync::Arc, time::Duration};

use plane::{Node, PATIENCE};
use sluice_node::hub::{Code, Reason};
use sluice_node_api::config::{ChannelRule, Limits, LiveConfig, Socket};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

/// A socket at `path`, its handshake read.
async fn open(node: &Node, path: &str) -> TcpStream {
    let mut stream = TcpStream::connect(node.address).await.expect("taken");
    let head = format!(
        "GET {path}/websocket?vsn=2.0.0 HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("taken");
    let mut said = Vec::new();
    while !said.ends_with(b"\r\n\r\n") {
        said.push(timeout(PATIENCE, stream.read_u8()).await.expect("an answer").expect("open"));
    }
    assert!(said.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&said));
    stream
}

/// The frame of a text message, with a mask that changes nothing.
fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81, 0x80 | 127];
    bytes.extend((text.len() as u64).to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(text.as_bytes());
    bytes
}

/// The payload of the next frame, which is a short one, and its opcode.
async fn next(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let read = async {
        let (first, len) = (stream.read_u8().await?, stream.read_u8().await?);
        let mut payload = vec![0; usize::from(len)];
        stream.read_exact(&mut payload).await?;
        Ok::<_, std::io::Error>((first & 0x0f, payload))
    };
    timeout(PATIENCE, read).await.expect("a frame in time").expect("a frame")
}

#[tokio::test]
async fn p_hb_2_bytes_of_a_frame_that_does_not_end_keep_no_socket_open() {
    let node = conformance::node().await;
    let (mut read, mut write) = open(&node, "/quick").await.into_split();
    let drip = tokio::spawn(async move {
        for byte in frame(&" ".repeat(70_000)) {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    });
    let mut said = Vec::new();
    let closed = async {
        while !said.ends_with(&[0x88, 2, 0x03, 0xea]) {
            said.push(read.read_u8().await.expect("a close frame"));
        }
    };
    timeout(PATIENCE, closed).await.expect("closed with 1002, though bytes come");
    drip.abort();
}

/// The memory that may be taken.
const BOUND: u64 = 2 << 20;
/// What each client begins to send, and how much of it comes.
const WHOLE: usize = 250_000;
const PART: usize = 200_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_that_are_begun_take_no_more_than_they_may_and_who_is_not_closed_is_served() {
    let node = Node::with(Socket::default(), Vec::new()).await;
    let limits = Limits { max_buffered_bytes: Some(BOUND), ..Limits::default() };
    let channels = vec![ChannelRule::room()];
    node.hub.set_live(Arc::new(LiveConfig { channels, limits, ..LiveConfig::default() }));
    let buffered = || node.hub.metrics().buffered.get();
    let mut reader = node.joined("room:a").await;

    let padding = "x".repeat(WHOLE);
    let bytes = frame(&format!(r#"[null,"1","phoenix","heartbeat",{{"x":"{padding}"}}]"#));
    let mut streams = Vec::new();
    for n in 0..40 {
        let mut stream = open(&node, "/socket").await;
        stream.write_all(&bytes[..PART]).await.expect("taken");
        if n == 0 {
            node.until("it counts", |_| buffered() >= PART as i64).await;
        }
        streams.push(stream);
        assert!(buffered() < 2 * BOUND as i64, "{}", buffered());
    }
    reader.is_quiet().await;
    let dropped = |reason| node.hub.metrics().dropped.get_or_create(&Reason { reason }).get();
    node.until("some are closed", |_| dropped("unfinished") > 0).await;
    node.until("below it", |_| buffered() <= BOUND as i64).await;

    let (mut closed, mut served) = (0, 0);
    for stream in &mut streams {
        // One that is closed may be gone.
        let _ = stream.write_all(&bytes[PART..]).await;
        match next(stream).await {
            (8, payload) => {
                assert_eq!(payload, 1013_u16.to_be_bytes());
                closed += 1;
            }
            (1, payload) => {
                let text = String::from_utf8(payload).expect("UTF-8");
                assert!(text.contains(r#""status":"ok""#), "{text}");
                served += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(closed > 0 && served > 0, "{closed} closed, {served} served");
    assert_eq!((dropped("unfinished"), dropped("memory")), (closed, 0));
    node.until("nothing is left", |_| buffered() == 0).await;
    drop(streams);
    reader.is_quiet().await;
    let codes = || node.hub.metrics().closes.get_or_create(&Code { code: 1013 }).get();
    node.until("counted", |_| codes() == closed).await;
}
