//! What a node costs: memory of an idle joined connection, memory after a burst, CPU time of a
//! connect with its join and of a delivery, beside a bare epoll server in the same run. `cargo e2e load` builds and
//! runs it; each line that it prints is JSON.
//!
//! Several `--node` compare several programs in one run. Each is started for itself, on loopback.
//! Only its own CPU time counts, not that of the clients.

#[path = "load/client.rs"]
mod client;
#[path = "load/files.rs"]
mod files;
#[path = "load/floor.rs"]
mod floor;
#[path = "load/program.rs"]
mod program;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::bail;
use clap::{Parser, ValueEnum};
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
    /// Connections; each needs an open file here and in the node.
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
    /// Seconds of rest before memory is read after the burst: the allocator gives back within ten.
    #[arg(long, default_value_t = 13)]
    rest: u64,
    /// Be the floor.
    #[arg(long, hide = true)]
    serve_floor: Option<Floor>,
}

/// How the bare epoll server writes what waits for a connection.
#[derive(Clone, Copy, ValueEnum)]
enum Floor {
    /// Each message in a call of its own.
    OneByOne,
    /// All in one call.
    Together,
}

impl Floor {
    fn word(self) -> &'static str {
        match self {
            Self::OneByOne => "one-by-one",
            Self::Together => "together",
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.connections == 0 || args.room == 0 {
        bail!("--connections and --room are at least 1");
    }
    match args.serve_floor {
        Some(how) => floor::serve(&args, how),
        None => {
            files::raise(&args)?;
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(compare(&args))
        }
    }
}

async fn compare(args: &Args) -> anyhow::Result<()> {
    for how in [Floor::OneByOne, Floor::Together] {
        let name = format!("bare epoll, messages {}", how.word());
        println!("{}", measure(&name, Program::floor(how)?, args).await?);
    }
    for node in &args.nodes {
        let program = Program::start(node, args.shards)?;
        println!("{}", measure(&node.display().to_string(), program, args).await?);
    }
    Ok(())
}

async fn measure(name: &str, program: Program, args: &Args) -> anyhow::Result<serde_json::Value> {
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
        "program": name,
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
