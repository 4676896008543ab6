//! The images: their names and where their archives are.
//!
//! A tag is a hash of what the image holds, so an image that changed has another name and a deployment rolls.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::Settings;
use crate::processes::write_whole;

/// An image in a file, as nodes load it.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The image's full name.
    pub name: String,
    /// The file.
    pub file: PathBuf,
}

/// The full names of the images that were built last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Images {
    /// The realtime node.
    pub channel_node: String,
    /// The same with a label more: for tests that change the image.
    pub channel_node_next: String,
    /// The operator.
    pub operator: String,
    /// The chat page.
    pub example_chat: String,
    /// Redis, where it is built here; the published image elsewhere.
    pub redis: String,
    /// Python: for tests that run the example of a backend.
    pub python: String,
}

impl Images {
    /// The names that the last build wrote down.
    pub fn read(settings: &Settings) -> Result<Self> {
        let file = file(settings);
        let text = fs::read_to_string(&file).with_context(|| {
            format!("{} is not there: build the images with `cargo e2e images`", file.display())
        })?;
        serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))
    }

    /// Writes the names down.
    pub fn write(&self, settings: &Settings) -> Result<()> {
        write_whole(&file(settings), serde_json::to_string_pretty(self)?.as_bytes())
    }

    /// Every name.
    pub fn names(&self) -> Vec<&str> {
        vec![
            &self.channel_node,
            &self.channel_node_next,
            &self.operator,
            &self.example_chat,
            &self.redis,
            &self.python,
        ]
    }

    /// Every image with its archive.
    pub fn archives(&self, settings: &Settings) -> Vec<Archive> {
        self.names().into_iter().map(|name| archive(settings, name)).collect()
    }
}

/// The archive of an image.
pub fn archive(settings: &Settings, name: &str) -> Archive {
    let file: String = name.chars().map(|c| if matches!(c, '/' | ':') { '_' } else { c }).collect();
    Archive { name: name.into(), file: settings.state.join("images").join(file + ".tar") }
}

/// Splits a name into repository and tag, as charts want them.
pub fn split(name: &str) -> (&str, &str) {
    name.rsplit_once(':').unwrap_or((name, ""))
}

fn file(settings: &Settings) -> PathBuf {
    settings.state.join("images.json")
}
