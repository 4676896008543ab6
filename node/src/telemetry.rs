//! Logging, to standard error: text for people, JSON for machines.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;

/// What the environment says of logging, checked.
#[derive(Debug)]
pub struct Logging {
    filter: EnvFilter,
    json: bool,
}

/// Reads `SLUICE_LOG` or `RUST_LOG` (default `info`) and `SLUICE_LOG_FORMAT`.
///
/// # Errors
/// What is wrong with the environment, and what would be right.
pub fn read(get: impl Fn(&str) -> Option<String>) -> Result<Logging, String> {
    let get = |key: &str| get(key).filter(|v| !v.trim().is_empty());
    let (key, level) = ["SLUICE_LOG", "RUST_LOG"]
        .into_iter()
        .find_map(|key| get(key).map(|v| (key, v)))
        .unwrap_or(("SLUICE_LOG", "info".to_owned()));
    if let Some(word) = level.split(',').map(str::trim).find(|word| is_no_level(word)) {
        return Err(format!(
            "{key}: {word:?} is no level: write such as `info` or `info,sluice_node=debug`"
        ));
    }
    let filter = EnvFilter::try_new(&level)
        .map_err(|e| format!("{key}: {e}: write such as `info,sluice_node=debug`"))?;
    let json = match get("SLUICE_LOG_FORMAT").as_deref() {
        None | Some("text") => false,
        Some("json") => true,
        Some(other) => return Err(format!("SLUICE_LOG_FORMAT: {other:?} is not `text` or `json`")),
    };
    Ok(Logging { filter, json })
}

/// Whether a word stands alone and is no level: it would be taken for a target, and all else be off.
fn is_no_level(word: &str) -> bool {
    !word.is_empty() && !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err()
}

/// Starts logging.
///
/// # Errors
/// The process logs already.
pub fn start(logging: Logging) -> Result<(), String> {
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(logging.filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let started = match logging.json {
        false => subscriber.try_init(),
        true => subscriber.json().flatten_event(true).try_init(),
    };
    started.map_err(|e| e.to_string())
}
