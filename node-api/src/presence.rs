//! What a topic rule says of presence: under which key a client is listed, and with what.

use serde::{Deserialize, Serialize};

/// Who is present on the topics of a rule. Each channel that is joined is listed under a key, with a
/// meta of its own: `online_at`, the time of its join in seconds of the Unix epoch, and what is named
/// here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("x-kubernetes-validations" = [
    {
        "rule": "!(has(self.keyClaim) && has(self.keyParam))",
        "message": "channels: presence takes its key from a claim or from a parameter, not from both",
    },
    {
        "rule": "(!has(self.metaClaims) || !self.metaClaims.exists(n, n == 'online_at' || n.startsWith('phx_'))) && (!has(self.metaFields) || !self.metaFields.exists(n, n == 'online_at' || n.startsWith('phx_')))",
        "message": "channels: presence writes online_at and phx_* itself: give yours another name",
    },
    {
        "rule": "(!has(self.keyClaim) || bytes(self.keyClaim).size() <= 255) && (!has(self.keyParam) || bytes(self.keyParam).size() <= 255) && (!has(self.metaClaims) || self.metaClaims.all(n, bytes(n).size() <= 255)) && (!has(self.metaFields) || self.metaFields.all(n, bytes(n).size() <= 255))",
        "message": "channels: names in presence may have 255 bytes",
    },
])))]
#[cfg_attr(feature = "schema", schemars(extend("x-file" = {
    "not": {
        "required": ["keyClaim", "keyParam"],
        "properties": { "keyClaim": { "type": "string" }, "keyParam": { "type": "string" } },
    },
    "properties": {
        "metaClaims": { "items": { "not": { "pattern": "^(online_at$|phx_)" } } },
        "metaFields": { "items": { "not": { "pattern": "^(online_at$|phx_)" } } },
    },
})))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PresenceRule {
    /// The claim of the client's token that is its key, a text or a whole number of at most 255
    /// bytes: `sub`. Without this and `keyParam`, or if the client has none, the key is made up.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 255)))]
    pub key_claim: Option<String>,
    /// The connect parameter that is the key. Clients choose it: whoever wants to can be listed under
    /// the key of another.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(min = 1, max = 255)))]
    pub key_param: Option<String>,
    /// Claims of the token that the meta has, each under its name as it is written here.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(max = 16),
            inner(length(min = 1, max = 255)),
            extend("x-kubernetes-list-type" = "set")
        )
    )]
    pub meta_claims: Vec<String>,
    /// Fields of the join's payload that the meta has. A claim of the same name wins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(max = 16),
            inner(length(min = 1, max = 255)),
            extend("x-kubernetes-list-type" = "set")
        )
    )]
    pub meta_fields: Vec<String>,
    /// Largest meta of a client, in bytes of JSON; a join with a larger one is refused.
    #[cfg_attr(feature = "schema", schemars(range(min = 64, max = 16384)))]
    pub max_meta_bytes: u32,
}

impl Default for PresenceRule {
    fn default() -> Self {
        Self {
            key_claim: None,
            key_param: None,
            meta_claims: Vec::new(),
            meta_fields: Vec::new(),
            max_meta_bytes: 1024,
        }
    }
}
