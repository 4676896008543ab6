//! A node alone, from the library: `relay --listen 127.0.0.1:4000`. Topics `room:*` are relayed;
//! SIGTERM or Ctrl-C drains and ends.

use std::sync::Arc;

use clap::Parser;
use sluice_node::server::Builder;
use sluice_node_api::{
    admin::{DrainMode, DrainRequest},
    config::{ChannelRule, LiveConfig, NodeConfig},
};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A realtime node that runs alone.
#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:4000")]
    listen: String,
    /// Shards; 0 is one a core.
    #[arg(long, default_value_t = 0)]
    shards: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut config = NodeConfig::default();
    config.listen.http = args.listen;
    let room = ChannelRule { announce_node: true, ..ChannelRule::room() };
    let live = Arc::new(LiveConfig { channels: vec![room], ..LiveConfig::default() });
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).name("relay").live(live).shards(args.shards);
    let (hub, address) = builder.start(shutdown.clone()).await?;
    println!("ready on ws://{address}{}/websocket", config.socket.path);

    let mut term = signal(SignalKind::terminate())?;
    tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} }
    hub.start_drain(DrainRequest {
        mode: DrainMode::Batched,
        initial_delay_seconds: 0.0,
        wait_seconds: 0.0,
        batch_size: 1000,
        batch_interval_seconds: 1.0,
        ttl_seconds: 60.0,
    });
    hub.drained().await;
    println!("drained, {} moved", hub.drain_status().moved);
    shutdown.cancel();
    hub.stopped().await;
    Ok(())
}
