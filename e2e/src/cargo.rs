//! The cargo that runs us, on the repository.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Settings;
use crate::command::command;

/// A cargo command in the repository.
pub fn cargo(settings: &Settings, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = command(PathBuf::from(cargo), arguments);
    cargo.current_dir(&settings.repo);
    cargo
}

/// Where a program is that cargo has built, by what it told with `--message-format json-render-diagnostics`.
pub fn built(messages: &str, name: &str) -> Result<PathBuf> {
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo built no program {name}"))
}
