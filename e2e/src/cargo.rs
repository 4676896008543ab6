//! The cargo that runs us, on the repository.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::Settings;
use crate::command::mortal;

/// A cargo command in the repository, which ends when we do.
pub fn cargo(settings: &Settings, arguments: &[&str]) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut cargo = mortal(PathBuf::from(cargo), arguments);
    cargo.current_dir(&settings.repo);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(is_of_a_package) {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// Whether `cargo run` has set this variable, for the package that it ran: ours. Build scripts such as ring's ask to be
/// run again when one changes, so with them cargo under `cargo e2e` and cargo alone would each undo the other's work.
fn is_of_a_package(name: &str) -> bool {
    ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.starts_with(start))
        || ["CARGO_BIN_NAME", "CARGO_CRATE_NAME", "CARGO_PRIMARY_PACKAGE", "OUT_DIR"]
            .contains(&name)
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

#[cfg(test)]
mod tests {
    use super::is_of_a_package;

    #[test]
    fn what_cargo_tells_of_a_package_is_kept_back_and_what_its_user_asks_for_is_not() {
        for told in ["CARGO_PKG_NAME", "CARGO_PKG_VERSION_PRE", "CARGO_MANIFEST_DIR", "OUT_DIR"] {
            assert!(is_of_a_package(told), "{told}");
        }
        for asked in ["CARGO", "CARGO_HOME", "CARGO_TARGET_DIR", "CARGO_PROFILE_DEV_DEBUG"] {
            assert!(!is_of_a_package(asked), "{asked}");
        }
    }
}
