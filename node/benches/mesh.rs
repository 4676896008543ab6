//! What a node costs as others are added, with topics that two nodes share: sent only to who wants them, and to all.
//! Each node broadcasts as much as the others, whatever their number. All of them run in this one
//! process, so that its CPU time is that of all; only the two ways of one run say something.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use sluice_node::{
    keys::Keys,
    mesh::{Mesh, MeshConfig, Timing, handshake::Identity, transport::Tcp},
    pubsub::{Adapter, Broadcast, Kind, Local},
};
use sluice_node_api::config::Routing;
use tokio::net::TcpListener;

/// Topics that a node shares with the next.
const TOPICS: usize = 100;
/// Broadcasts in a row before the others may catch up.
const BURST: usize = 50;

#[derive(Default)]
struct Counted(AtomicU64);

impl Local for Counted {
    fn deliver(&self, _: Broadcast) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

struct Node {
    mesh: Mesh,
    address: SocketAddr,
    received: Arc<Counted>,
}

async fn start(routing: Routing) -> Node {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound");
    let identity = Identity {
        cluster: "bench".into(),
        name: address.to_string(),
        instance: rand::random(),
        ip: None,
        port: address.port(),
    };
    let config = MeshConfig {
        identity,
        keys: Keys::new(Bytes::from_static(b"bench")),
        peer_buffer: 64 << 20,
        routing,
        timing: Timing::default(),
    };
    let received = Arc::new(Counted::default());
    let mesh = Mesh::start(config, listener, Arc::new(Tcp), received.clone());
    mesh.set_patterns(&[]);
    Node { mesh, address, received }
}

async fn until(mut ok: impl FnMut() -> bool) {
    while !ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Broadcasts that a node receives for each that a node makes, and the microseconds of CPU time that
/// one costs a node.
async fn measure(routing: Routing, count: usize, bursts: usize) -> (f64, f64) {
    let nodes = futures::future::join_all((0..count).map(|_| start(routing))).await;
    let all = nodes.iter().map(|node| node.address).collect();
    nodes.iter().for_each(|node| node.mesh.set_discovered(&all));
    until(|| nodes.iter().all(|node| node.mesh.linked() == count - 1)).await;
    let topics: Vec<Vec<Arc<str>>> =
        (0..count).map(|n| (0..TOPICS).map(|t| format!("room:{n}:{t}").into()).collect()).collect();
    for (n, topics) in topics.iter().enumerate() {
        for topic in topics {
            nodes[n].mesh.subscribe(topic).await;
            nodes[(n + 1) % count].mesh.subscribe(topic).await;
        }
    }
    let received = || nodes.iter().map(|n| n.received.0.load(Ordering::Relaxed)).sum::<u64>();
    let due = match routing {
        Routing::Interest => 1,
        Routing::Broadcast => count - 1,
    };
    // Not before each knows what the others want.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let payload = Bytes::from(format!(r#"{{"text":"{}"}}"#, "x".repeat(500)));
    let before = cpu();
    for burst in 1..=bursts {
        for (node, topics) in nodes.iter().zip(&topics) {
            for n in 0..BURST {
                node.mesh.send(&Broadcast {
                    topic: topics[(burst * BURST + n) % TOPICS].clone(),
                    event: "message".into(),
                    kind: Kind::Json,
                    payload: payload.clone(),
                });
            }
        }
        until(|| received() >= (burst * BURST * count * due) as u64).await;
    }
    let spent = cpu() - before;
    let each = (bursts * BURST * count) as f64;
    let result = (received() as f64 / each, spent * 1e6 / each);
    futures::future::join_all(nodes.iter().map(|n| n.mesh.leave(Duration::from_secs(1)))).await;
    result
}

/// Seconds of CPU time of this process.
fn cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn main() {
    // `cargo test` only sees that it runs.
    let bursts = if std::env::args().any(|arg| arg == "--bench") { 400 } else { 1 };
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    println!("nodes  routing    received by a node  CPU of a node");
    for count in [2, 4, 8] {
        for routing in [Routing::Broadcast, Routing::Interest] {
            let (received, cpu) = runtime.block_on(measure(routing, count, bursts));
            println!(
                "{count:5}  {:9}  {received:18.2}  {cpu:10.2} µs a broadcast",
                format!("{routing:?}")
            );
        }
    }
}
