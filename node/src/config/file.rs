//! Reads the YAML files and says precisely what is wrong with them.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use sha2::{Digest, Sha256};
use sluice_node_api::config::{LiveConfig, NodeConfig};

use super::{
    locate::{field_at, locate},
    small_file,
};

/// Largest file, in bytes: a ConfigMap's limit.
const MAX_FILE: u64 = 1 << 20;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: PathBuf,
    /// The line, from 1, where known.
    pub line: Option<u64>,
    /// What is wrong, with the field's name, and what would be right.
    pub reason: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.file.display(), self.reason),
            None => write!(f, "{}: {}", self.file.display(), self.reason),
        }
    }
}

/// Why a configuration is refused: every problem found, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, p) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{p}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl ConfigError {
    fn one(file: &Path, line: Option<u64>, reason: String) -> Self {
        Self(vec![Problem { file: file.into(), line, reason }])
    }

    /// Gives each (field, reason) its line in `text`.
    pub(super) fn located(file: &Path, text: &str, problems: Vec<(String, String)>) -> Self {
        let problem = |(field, reason): (String, String)| Problem {
            file: file.into(),
            line: locate(text, &field),
            reason: format!("{field}: {reason}"),
        };
        Self(problems.into_iter().map(problem).collect())
    }
}

/// SHA-256 of a file's text, in hex.
pub fn hash(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

pub(super) fn read(path: &Path) -> Result<String, ConfigError> {
    small_file::read_text(path, MAX_FILE)
        .map_err(|e| ConfigError::one(path, None, format!("cannot be read: {e}")))
}

/// Reads a [`NodeConfig`]; its meaning is not checked yet ([`super::check_node`]).
///
/// # Errors
/// Bad YAML, an unknown key, a value of another type: with line and reason.
pub fn parse_node(path: &Path, text: &str) -> Result<NodeConfig, ConfigError> {
    parse(path, text)
}

/// Reads and checks a [`LiveConfig`], of a node that has a `backend` or none.
///
/// # Errors
/// As [`parse_node`], and what [`super::check_live`] finds. An empty file is one that is being
/// written, and its defaults would open every topic.
pub fn parse_live(path: &Path, text: &str, backend: bool) -> Result<LiveConfig, ConfigError> {
    if is_blank(text) {
        let reason = "is empty: write `channels`, which is `[]` for no topics";
        return Err(ConfigError::one(path, None, reason.to_owned()));
    }
    let live = parse(path, text)?;
    let mut problems = super::check_live(&live);
    if !backend {
        problems.extend(super::webhooks::check_without(&live));
    }
    if problems.is_empty() { Ok(live) } else { Err(ConfigError::located(path, text, problems)) }
}

/// Whether a live file that can be read says what becomes of topics.
pub(super) fn names_channels(text: &str) -> bool {
    #[derive(Deserialize)]
    struct Named {
        channels: Option<IgnoredAny>,
    }
    serde_saphyr::from_str::<Named>(text).is_ok_and(|named| named.channels.is_some())
}

/// A change that leaves the topic rules out, where there were some: the defaults would open every topic.
pub(super) fn without_channels(path: &Path) -> ConfigError {
    let reason = "channels: missing, and there were some: write `channels: []` for no topics";
    ConfigError::one(path, None, reason.to_owned())
}

fn is_blank(text: &str) -> bool {
    text.lines().all(|l| l.trim().is_empty() || l.trim_start().starts_with('#'))
}

fn parse<T: DeserializeOwned + Default>(path: &Path, text: &str) -> Result<T, ConfigError> {
    // A file of comments alone is a null document, not a struct.
    if is_blank(text) {
        return Ok(T::default());
    }
    serde_saphyr::from_str(text).map_err(|e| {
        let e = e.without_snippet();
        let line = e.location().map(|l| l.line());
        // The library's own words are for who programs with it.
        let told = e.render_with_formatter(&serde_saphyr::UserMessageFormatter);
        let told = in_words(told.lines().next().unwrap_or_default());
        let field = e.location().and_then(|at| field_at(text, at.line(), at.column()));
        ConfigError::one(path, line, field.map_or(told.clone(), |field| format!("{field}: {told}")))
    })
}

/// What is wrong with a value, without the names of types.
fn in_words(told: &str) -> String {
    let Some((kind, at)) = told.strip_prefix("invalid ").and_then(|told| told.split_once(' '))
    else {
        return told.to_owned();
    };
    let must = match kind {
        "u16" => format!("must be a whole number from 0 to {}", u16::MAX),
        "u32" => format!("must be a whole number from 0 to {}", u32::MAX),
        "u64" => "must be a whole number, 0 or more".to_owned(),
        "f64" => "must be a number".to_owned(),
        _ => return told.to_owned(),
    };
    format!("{must}, {at}")
}
