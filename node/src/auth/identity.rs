//! What a socket keeps of its token: the claims, for the rules of joins. Kept as text, since a socket
//! joins seldom and lives long.

use serde_json::{Map, Value};

/// The claims of a verified token. Never printed.
pub struct Identity {
    claims: Box<str>,
}

impl Identity {
    /// Of these claims.
    pub fn new(claims: &Map<String, Value>) -> Self {
        Self { claims: serde_json::to_string(claims).unwrap_or_default().into() }
    }

    /// The claims.
    pub fn claims(&self) -> Map<String, Value> {
        serde_json::from_str(&self.claims).unwrap_or_default()
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
