//! Serves a folder of static files, for the page of the chat example:
//! `chat_page --listen '[::]:8080' --dir /srv`. `/healthz` answers once it serves.

use std::path::PathBuf;

use axum::{Router, routing::get};
use clap::Parser;
use tower_http::services::ServeDir;

/// Serves a folder of static files.
#[derive(Parser)]
struct Args {
    /// Address to listen on.
    #[arg(long, default_value = "[::]:8080")]
    listen: String,
    /// The folder.
    #[arg(long, default_value = "/srv")]
    dir: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let files = ServeDir::new(&args.dir);
    let routes = Router::new().route("/healthz", get(|| async { "ok" })).fallback_service(files);
    let listener = sluice_node::listen::bind(&args.listen).await?;
    println!("serving {} on http://{}", args.dir.display(), listener.local_addr()?);
    Ok(axum::serve(listener, routes).with_graceful_shutdown(stop()).await?)
}

/// Ends with SIGTERM or Ctrl-C.
async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut term) => tokio::select! { _ = term.recv() => {}, _ = tokio::signal::ctrl_c() => {} },
        Err(_) => drop(tokio::signal::ctrl_c().await),
    }
}
