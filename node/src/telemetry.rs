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
    // Blanks would be taken for a part of a name.
    let mut words: Vec<_> = level.split(',').map(str::trim).filter(|w| !w.is_empty()).collect();
    if let Some(word) = words.iter().find(|word| is_no_level(word)) {
        return Err(format!(
            "{key}: {word:?} is no level: write such as `info` or `info,sluice_node=debug`"
        ));
    }
    if words.is_empty() {
        words.push("info");
    }
    let filter = EnvFilter::try_new(words.join(","))
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
    !word.contains(['=', '[']) && word.parse::<LevelFilter>().is_err()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(asked: &str) -> Result<String, String> {
        let asked = |key: &str| (key == "RUST_LOG").then(|| asked.to_owned());
        read(asked).map(|logging| logging.filter.to_string())
    }

    #[test]
    fn a_filter_is_taken_with_commas_and_blanks_that_say_nothing() {
        for (asked, taken) in [
            ("", "info"),
            (",", "info"),
            ("debug", "debug"),
            ("info,", "info"),
            (",info,,", "info"),
            (" info , sluice_node=debug , ", "sluice_node=debug,info"),
            ("off", "off"),
            ("sluice_node::mesh=trace", "sluice_node::mesh=trace"),
        ] {
            assert_eq!(filter(asked).as_deref(), Ok(taken), "{asked:?}");
        }
    }

    #[test]
    fn a_level_that_is_misspelt_is_refused_and_named() {
        for (asked, told) in [
            ("loud", "\"loud\" is no level"),
            ("info,sluice_node", "\"sluice_node\" is no level"),
            ("loud,", "\"loud\" is no level"),
            ("info,sluice_node=loud", "write such as"),
            ("a=b=c", "write such as"),
        ] {
            let error = filter(asked).unwrap_err();
            assert!(error.starts_with("RUST_LOG: ") && error.contains(told), "{asked}: {error}");
        }
    }
}
