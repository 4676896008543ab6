//! `auth` in a node's configuration: who may connect.

use serde::{Deserialize, Serialize};

#[cfg(feature = "schema")]
use crate::schema::{PARAM, SOCKET_ID, URL};

/// Who may connect. Empty: everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Auth {
    /// Clients that bear a JSON Web Token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

impl Auth {
    /// Whether everybody may connect.
    pub fn is_open(&self) -> bool {
        self.jwt.is_none()
    }
}

/// Clients bear a JSON Web Token (RFC 7519), signed by one of these keys. It comes as the auth token
/// of the WebSocket's subprotocol (`P-CON-6`), or as a parameter of the URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("anyOf" = [
    { "required": ["keys"], "properties": { "keys": { "minItems": 1 } } },
    { "required": ["jwks"], "properties": { "jwks": { "type": "object" } } },
])))]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Jwt {
    /// Keys from files and the environment, read once at the start.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 64)))]
    pub keys: Vec<JwtKey>,
    /// Keys that the issuer publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
    /// `iss` must be one of these; empty: it is not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 64), inner(length(min = 1, max = 2048))))]
    pub issuers: Vec<String>,
    /// `aud` must name one of these; empty: it is not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(feature = "schema", schemars(length(max = 64), inner(length(min = 1, max = 2048))))]
    pub audiences: Vec<String>,
    /// Seconds by which the issuer's clock and the node's may differ.
    #[cfg_attr(feature = "schema", schemars(range(max = 3600)))]
    pub leeway_seconds: u32,
    /// The connect parameter that bears the token.
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(min = 1, max = 64),
            regex(pattern = PARAM),
            extend("not" = { "const": "vsn" })
        )
    )]
    pub param: String,
    /// Whether a client without a token is refused. If not, it may join what is public; a token
    /// that is wrong is refused all the same.
    pub required: bool,
    /// Whether a token without `exp` is refused.
    pub require_expiry: bool,
    /// The socket's id (`P-CON-10`), such as `users:{sub}`; `{claim}` stands for a claim. A
    /// broadcast of `disconnect` on it closes the user's sockets.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schemars(length(max = 255), regex(pattern = SOCKET_ID)))]
    pub socket_id: Option<String>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            keys: Vec::new(),
            jwks: None,
            issuers: Vec::new(),
            audiences: Vec::new(),
            leeway_seconds: 30,
            param: "token".into(),
            required: true,
            require_expiry: true,
            socket_id: None,
        }
    }
}

/// A signature algorithm (RFC 7518, RFC 8037). There is no `none`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Algorithm {
    /// HMAC with SHA-256: the issuer and the node share a secret.
    HS256,
    /// RSA PKCS #1 v1.5 with SHA-256, 2048 bits or more.
    RS256,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// Ed25519.
    EdDSA,
}

impl Algorithm {
    /// By the name that tokens and key sets use: RFC 9864 gives EdDSA on Ed25519 a second one.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "HS256" => Some(Self::HS256),
            "RS256" => Some(Self::RS256),
            "ES256" => Some(Self::ES256),
            "EdDSA" | "Ed25519" => Some(Self::EdDSA),
            _ => None,
        }
    }
}

/// One key. It is for its algorithm alone: a token can't choose another for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend(
    "if" = { "properties": { "algorithm": { "const": "HS256" } } },
    "then" = {
        "properties": { "publicKeyFile": { "type": "null" } },
        "oneOf": [
            { "required": ["secretFile"], "properties": { "secretFile": { "type": "string" } } },
            { "required": ["secretEnv"], "properties": { "secretEnv": { "type": "string" } } },
        ],
    },
    "else" = {
        "required": ["publicKeyFile"],
        "properties": {
            "publicKeyFile": { "type": "string" },
            "secretFile": { "type": "null" },
            "secretEnv": { "type": "null" },
        },
    },
)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtKey {
    /// The algorithm.
    pub algorithm: Algorithm,
    /// Tokens that name a key must name this one; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `HS256`: path of a file with the secret, 32 bytes or more; one newline, `\n` or
    /// `\r\n`, at its end is no part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
    /// `HS256`: or the environment variable that holds it; such a newline is no part of it either.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// The others: path of a PEM file, `BEGIN PUBLIC KEY`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub public_key_file: Option<String>,
}

/// A JSON Web Key Set (RFC 7517) by URL. It is kept in memory; a fetch that fails changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Jwks {
    /// Where it is: `https://…`, or `http://…` inside a cluster.
    #[cfg_attr(feature = "schema", schemars(length(max = 2048), regex(pattern = URL)))]
    pub url: String,
    /// Keys of other algorithms are passed over. `HS256` can't stand here.
    #[serde(default = "public_algorithms")]
    #[cfg_attr(
        feature = "schema",
        schemars(
            length(min = 1, max = 3),
            extend("items" = { "enum": ["RS256", "ES256", "EdDSA"] })
        )
    )]
    pub algorithms: Vec<Algorithm>,
    /// Seconds between two fetches.
    #[serde(default = "five_minutes")]
    #[cfg_attr(feature = "schema", schemars(range(min = 10, max = 86_400)))]
    pub refresh_seconds: u32,
    /// A token that names an unknown key, or names none and was signed by an unknown one, has the set
    /// fetched at once, but not sooner than these seconds after the last fetch.
    #[serde(default = "ten")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 3600)))]
    pub unknown_kid_seconds: u32,
    /// Seconds that a fetch may take.
    #[serde(default = "five")]
    #[cfg_attr(feature = "schema", schemars(range(min = 1, max = 8)))]
    pub timeout_seconds: u32,
    /// PEM file of the authorities that the server's certificate must come from; absent: those of
    /// the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
}

impl Jwks {
    /// The set at `url`, with the defaults.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            algorithms: public_algorithms(),
            refresh_seconds: five_minutes(),
            unknown_kid_seconds: ten(),
            timeout_seconds: five(),
            ca_file: None,
        }
    }
}

fn public_algorithms() -> Vec<Algorithm> {
    vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA]
}
fn five_minutes() -> u32 {
    300
}
fn ten() -> u32 {
    10
}
fn five() -> u32 {
    5
}
