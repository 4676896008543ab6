//! What a node costs: memory of an idle joined connection, memory after a burst, CPU time of a
//! connect with its join and of a delivery, beside the system calls alone.
//!
//! ```sh
//! cargo build --release -p sluice-node --bin channel-node
//! cargo run --release -p sluice-node --example load -- --node target/release/channel-node
//! ```
//!
//! Several `--node` compare several programs in one run. Each is started for itself, on loopback.
//! Only its own CPU time counts, not that of the clients.

#[path = "load/client.rs"]
mod client;
#[path = "load/floor.rs"]
mod floor;
#[path = "load/program.rs"]
mod program;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use clap::Parser;
use serde_json::json;

use crate::{client::Clients, program::Program};

/// How long any step may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures nodes.
#[derive(Clone, Parser)]
struct Args {
    /// A program to measure; may be repeated.
    #[arg(long = "node", required = true)]
    nodes: Vec<PathBuf>,
    /// Connections; each needs a file descriptor here and in the node.
    #[arg(long, default_value_t = 8000)]
    connections: usize,
    /// Connections that share a topic.
    #[arg(long, default_value_t = 100)]
    room: usize,
    /// Messages that one member of each topic pushes at once.
    #[arg(long, default_value_t = 50)]
    messages: usize,
    /// Bytes of text in a message.
    #[arg(long, default_value_t = 512)]
    bytes: usize,
    /// Shards of the node.
    #[arg(long, default_value_t = 1)]
    shards: usize,
    /// Seconds of rest before memory is read after the burst.
    #[arg(long, default_value_t = 5)]
    rest: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.connections == 0 || args.room == 0 {
        bail!("--connections and --room are at least 1");
    }
    let (connect, delivery) = floor::measure(&args)?;
    let report = json!({"floor": {"connect_join_us": connect, "delivery_us": delivery}});
    println!("{report}");
    for node in &args.nodes {
        let report = measure(node.clone(), &args).await;
        println!("{}", report.with_context(|| format!("measuring {}", node.display()))?);
    }
    Ok(())
}

async fn measure(path: PathBuf, args: &Args) -> anyhow::Result<serde_json::Value> {
    let program = Program::start(&path, args.shards)?;
    let fresh = program.usage()?;
    let clients = Clients::connect(program.address, args);
    clients.joined.until(args.connections as u64).await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = program.usage()?;
    let begun = Instant::now();
    clients.burst();
    let deliveries = (args.connections * args.messages) as u64;
    clients.delivered.until(deliveries).await?;
    let took = begun.elapsed();
    let busy = program.usage()?;
    tokio::time::sleep(Duration::from_secs(args.rest)).await;
    let rested = program.usage()?;
    let per = |micros: f64, count: u64| micros / count as f64;
    let joins = args.connections as u64;
    Ok(json!({
        "node": path.display().to_string(),
        "connections": args.connections,
        "rss_fresh_kib": fresh.rss_kib,
        "rss_idle_kib": idle.rss_kib,
        "idle_connection_bytes": (idle.rss_kib.saturating_sub(fresh.rss_kib)) * 1024 / joins,
        "rss_in_burst_kib": busy.rss_kib,
        "rss_after_burst_kib": rested.rss_kib,
        "after_burst_over_idle": rested.rss_kib as f64 / idle.rss_kib as f64,
        "connect_join_us": per(idle.cpu_us - fresh.cpu_us, joins),
        "delivery_us": per(busy.cpu_us - idle.cpu_us, deliveries),
        "deliveries_per_second": deliveries as f64 / took.as_secs_f64(),
    }))
}
