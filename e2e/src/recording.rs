//! A deploy as it was recorded under live clients, and what the docs show of it.
//!
//! The end-to-end test of a deploy writes one when `SLUICE_E2E_RECORD` names a file; `cargo e2e record` makes a page of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// The variable that names the file to write.
pub const VARIABLE: &str = "SLUICE_E2E_RECORD";

/// What a page has between these is written by `cargo e2e record`.
const MARKS: [&str; 2] = ["<!-- recorded -->", "<!-- /recorded -->"];

/// One deploy. Times are seconds since the change of the spec.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Recording {
    /// Live clients.
    pub clients: usize,
    /// Pods that the spec asks for.
    pub replicas: usize,
    /// How the spec drains, as YAML on one line.
    pub drain: String,
    /// Clients by pod, whenever that changed.
    pub samples: Vec<Sample>,
    /// What happened to pods, in order.
    pub story: Vec<Moment>,
    /// What came of it.
    pub figures: Vec<(String, String)>,
}

/// Clients by pod at one time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: f64,
    /// Clients joined, by pod.
    pub by_pod: BTreeMap<String, usize>,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Moment {
    /// When.
    pub at: f64,
    /// What, as a sentence.
    pub text: String,
}

impl Recording {
    /// The timeline and the figures, as Markdown.
    pub fn markdown(&self) -> String {
        let mut text = format!(
            "{} live phoenix.js clients on {} pods, `drain: {}`:\n\n| second | what happened |\n|--:|---|\n",
            self.clients, self.replicas, self.drain
        );
        for Moment { at, text: what } in &self.story {
            let _ = writeln!(text, "| {at:.1} | {what} |");
        }
        text.push_str("\n| what came of it | |\n|---|---|\n");
        for (name, value) in &self.figures {
            let _ = writeln!(text, "| {name} | {value} |");
        }
        text
    }

    /// The page with its recorded part replaced.
    pub fn into_page(&self, page: &str) -> Result<String> {
        let [begin, end] = MARKS;
        let (before, rest) = page.split_once(begin).context("the page has no recorded part")?;
        let (_, after) = rest.split_once(end).context("the page's recorded part has no end")?;
        Ok(format!("{before}{begin}\n\n{}\n{end}{after}", self.markdown()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recorded_part_of_a_page_is_replaced() {
        let moment = Moment { at: 1.25, text: "`chat-3` is Ready".into() };
        let recording = Recording { clients: 6, story: vec![moment], ..Recording::default() };
        let page = "# A\n<!-- recorded -->\nold\n<!-- /recorded -->\nend\n";
        let new = recording.into_page(page).expect("a page");
        assert!(new.starts_with("# A\n<!-- recorded -->") && new.ends_with("-->\nend\n"), "{new}");
        assert!(new.contains("| 1.2 | `chat-3` is Ready |") && !new.contains("old"), "{new}");
        assert!(recording.into_page("no marks").is_err());
    }
}
