//! Logging, to standard error: text for people, JSON for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging as `SLUICE_LOG` or `RUST_LOG` (default `info`) and `SLUICE_LOG_FORMAT` say.
///
/// # Errors
/// What is wrong with the environment, and what would be right.
pub fn start(get: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let get = |key: &str| get(key).filter(|v| !v.trim().is_empty());
    let (key, level) = ["SLUICE_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|key| get(key).map(|v| (key, v)))
        .unwrap_or(("SLUICE_LOG", "info".to_owned()));
    let filter = EnvFilter::try_new(&level)
        .map_err(|e| format!("{key}: {e}: write such as `info,sluice_node=debug`"))?;
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match get("SLUICE_LOG_FORMAT").as_deref() {
        None | Some("text") => subscriber.try_init(),
        Some("json") => subscriber.json().flatten_event(true).try_init(),
        Some(other) => return Err(format!("SLUICE_LOG_FORMAT: {other:?} is not `text` or `json`")),
    };
    started.map_err(|e| e.to_string())
}
