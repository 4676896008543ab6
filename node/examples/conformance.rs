//! The app by which the node is tested from outside, by the same cases that a Phoenix passes:
//! `conformance --listen 127.0.0.1:4000`. Prints `ready`; SIGTERM or `POST /drain` drains.

use std::{net::SocketAddr, time::Duration};

use axum::{Json, Router, extract::State, routing::post};
use clap::Parser;
use http::{HeaderMap, StatusCode, header};
use sluice_node::{cluster, hub::Hub, server::Builder};
use sluice_node_api::{
    admin::{DrainMode, DrainRequest, DrainStatus},
    config::NodeConfig,
};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

#[path = "conformance/app.rs"]
mod app;

/// The conformance app: one node alone, or several with each other's mesh addresses as peers.
#[derive(Parser)]
struct Args {
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:4000")]
    listen: String,
    /// Where other nodes connect.
    #[arg(long, requires = "secret")]
    mesh: Option<SocketAddr>,
    /// The mesh addresses of other nodes; may be given again.
    #[arg(long = "peer", num_args = 1.., value_name = "ADDR", requires = "mesh")]
    peers: Vec<SocketAddr>,
    /// What all nodes of a cluster share.
    #[arg(long)]
    secret: Option<String>,
    /// Where `POST /drain` is served.
    #[arg(long, requires = "admin_token")]
    admin: Option<SocketAddr>,
    /// The bearer token of the admin address.
    #[arg(long)]
    admin_token: Option<String>,
}

/// Four sockets every 400 ms, however long it takes.
const DRAIN: DrainRequest = DrainRequest {
    mode: DrainMode::Batched,
    initial_delay_seconds: 0.0,
    wait_seconds: 0.0,
    batch_size: 4,
    batch_interval_seconds: 0.4,
    ttl_seconds: 3600.0,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut term = signal(SignalKind::terminate())?;
    let mut config = NodeConfig::default();
    config.listen.http = args.listen;
    config.socket.max_connects_per_second = 10_000;
    let mut builder = Builder::new(&config).name("conformance");
    if let Some(secret) = &args.secret {
        builder = builder.secret(secret.as_bytes());
    }
    for mount in app::mounts() {
        builder = builder.mount(mount);
    }
    let shutdown = CancellationToken::new();
    let (hub, _) = builder.start(shutdown.clone()).await?;
    let mut links = None;
    if let (Some(mesh), Some(secret)) = (args.mesh, args.secret) {
        let listener = TcpListener::bind(mesh).await?;
        let mesh = cluster::join(&hub, listener, &args.peers, secret, mesh.to_string())?;
        cluster::linked(&mesh, &args.peers, Duration::from_secs(10)).await;
        links = Some(mesh);
    }
    if let (Some(address), Some(token)) = (args.admin, args.admin_token) {
        let routes = Router::new().route("/drain", post(drain)).with_state((hub.clone(), token));
        let listener = TcpListener::bind(address).await?;
        tokio::spawn(async move { axum::serve(listener, routes).await });
    }
    println!("ready");

    term.recv().await;
    hub.start_drain(DRAIN);
    hub.drained().await;
    shutdown.cancel();
    hub.stopped().await;
    if let Some(links) = links {
        links.leave(Duration::from_secs(2)).await;
    }
    Ok(())
}

async fn drain(
    State((hub, token)): State<(Hub, String)>,
    headers: HeaderMap,
) -> Result<Json<DrainStatus>, StatusCode> {
    let said = headers.get(header::AUTHORIZATION).map(|value| value.as_bytes());
    if said != Some(format!("Bearer {token}").as_bytes()) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    Ok(Json(hub.start_drain(DRAIN)))
}
