//! Who may connect to the nodes of a `ChannelCluster`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sluice_node_api::auth::Algorithm;

use crate::{SecretKeyRef, url::HTTP_URL};

/// Who may connect. Empty: everybody.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Clients bear a JSON Web Token, as the connect parameter `token` or phoenix.js's `authToken`.
    /// Others are answered 403. A socket is closed when its token is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
}

/// JSON Web Tokens that let a client in, signed by one of these keys.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.jwks) || (has(self.keys) && self.keys.size() > 0)")
        .message("auth.jwt needs keys or a jwks: without a key nobody could connect"),
    validation = Rule::new("!has(self.socketId) || self.socketId.matches('^[^{}]*([{][^{}]+[}][^{}]*)+$')")
        .message("auth.jwt.socketId must name a claim, such as `users:{sub}`: one id for all is none")
)]
pub struct Jwt {
    /// Keys from Secrets. They are read when a pod starts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub keys: Vec<JwtKey>,
    /// Keys that the issuer publishes. The nodes fetch them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
    /// `iss` must be one of these. Default: it is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048)))]
    pub issuers: Vec<String>,
    /// `aud` must name one of these. Default: it is not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 2048)))]
    pub audiences: Vec<String>,
    /// Seconds by which the clocks of issuer and node may differ.
    #[serde(default = "leeway")]
    #[schemars(range(min = 0, max = 3600))]
    pub leeway_seconds: i32,
    /// Whether a client without a token is refused. If not, it may join what is public; a token that
    /// is wrong is refused all the same.
    #[serde(default = "yes")]
    pub required: bool,
    /// Whether a token without `exp` is refused.
    #[serde(default = "yes")]
    pub require_expiry: bool,
    /// The socket's id, in which `{claim}` stands for a claim, such as `users:{sub}`. The publish
    /// API closes the sockets of an id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub socket_id: Option<String>,
}

/// One key that signs tokens. It is for its algorithm alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtKey {
    /// The algorithm. `HS256`: the Secret holds a shared secret of 32 bytes or more. The others: a
    /// public key in PEM, `BEGIN PUBLIC KEY`.
    pub algorithm: Algorithm,
    /// Tokens that name a key must name this one. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub kid: Option<String>,
    /// Where the key is. A pod does not start without it.
    pub secret_ref: SecretKeyRef,
}

/// A JSON Web Key Set by URL. A fetch that fails changes nothing.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(HTTP_URL)
        .message("auth.jwt.jwks.url must be a URL with a host, such as https://issuer.example.com/jwks.json; other than ASCII is written percent-encoded, and a port is 1 to 65535")
)]
pub struct Jwks {
    /// Where it is: `https://`, or `http://` inside the Kubernetes cluster.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Seconds between two fetches. A token that an unknown key has signed has the set fetched sooner,
    /// every ten seconds at the most.
    #[serde(default = "five_minutes")]
    #[schemars(range(min = 10, max = 86400))]
    pub refresh_seconds: i32,
    /// The certificates, in PEM, of the authorities that the server's certificate must come from.
    /// Default: those of the node's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
}

fn leeway() -> i32 {
    30
}
fn yes() -> bool {
    true
}
fn five_minutes() -> i32 {
    300
}
