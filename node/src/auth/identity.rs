//! What a socket keeps of who it is: the claims, for the rules of joins, and the reference by which a
//! backend knows it. Kept small and as text, since a socket joins seldom and lives long.

use serde_json::{Map, Value, value::RawValue};

/// Who a socket is. Never printed.
pub struct Identity {
    claims: Option<Box<RawValue>>,
    reference: u128,
}

impl Identity {
    /// Whoever these claims are of.
    pub fn new(claims: &Map<String, Value>) -> Self {
        Self::known(Some(claims), 0)
    }

    /// A socket that a backend knows by `reference`, with the claims that it has, if any.
    pub(crate) fn known(claims: Option<&Map<String, Value>>, reference: u128) -> Self {
        let claims = claims.and_then(|claims| serde_json::value::to_raw_value(claims).ok());
        Self { claims, reference }
    }

    /// The claims; none of a client that nobody has vouched for.
    pub fn claims(&self) -> Option<Map<String, Value>> {
        let claims = self.claims.as_ref()?;
        Some(serde_json::from_str(claims.get()).unwrap_or_default())
    }

    /// The claims, as text.
    pub(crate) fn claims_text(&self) -> Option<&RawValue> {
        self.claims.as_deref()
    }

    /// What a backend knows the socket by.
    pub(crate) fn reference(&self) -> u128 {
        self.reference
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}
