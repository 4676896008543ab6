//! What a topic rule says of history: what a client that joins is told of the time before.

use serde::{Deserialize, Serialize};

/// The last broadcasts of each topic of a rule, which a client that joins gets in the reply to its
/// join: `{"history": [{"event": …, "payload": …}, …]}`, oldest first. Each node keeps what it has
/// seen itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HistoryRule {
    /// Broadcasts kept of a topic.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 1000)))]
    pub size: u32,
    /// Seconds for which a broadcast is kept.
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 86_400)))]
    pub max_age_seconds: u32,
    /// Bytes kept of a topic, and so the largest reply to a join; the oldest broadcasts go first.
    #[cfg_attr(feature = "schema", schemars(range(min = 1024, max = 1_048_576)))]
    pub max_bytes: u32,
}

impl Default for HistoryRule {
    fn default() -> Self {
        Self { size: 50, max_age_seconds: 3600, max_bytes: 65_536 }
    }
}
