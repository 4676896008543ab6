//! The backend that the nodes of a `ChannelCluster` ask and tell over HTTP.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use sluice_node_api::webhooks::OnFailure;

use crate::{SecretKeyRef, url::HTTP_URL};

/// A backend of yours, in any language, that decides and is told over HTTP. Which joins, events and
/// leaves it is called for is in `webhooks` of the rules in `channels`. Calls are signed by the
/// Standard Webhooks specification.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(HTTP_URL)
        .message("webhooks.url must be a URL with a host, such as https://backend.example.com/sluice; other than ASCII is written percent-encoded, and a port is 1 to 65535")
)]
pub struct Webhooks {
    /// Where calls are posted to: `https://`, or `http://` inside the Kubernetes cluster.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Where the signing secrets are: the key's value has one to four of them, one a line, each
    /// `whsec_` and 24 to 64 bytes in base64. Each signs every call. A change of the Secret is read by
    /// running pods within a minute or two; a pod does not start without it.
    pub secret_ref: SecretKeyRef,
    /// The certificates, in PEM, of the authorities that the server's certificate must come from.
    /// Read when a pod starts. Default: those of the node's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// Whether the backend is asked who may connect. Its answer may give the socket an id and claims.
    #[serde(default)]
    pub connect: bool,
    /// Whether it is told of sockets that end.
    #[serde(default)]
    pub disconnect: bool,
    /// Headers of a client's request that it is shown when a client connects, such as `cookie`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 16),
        inner(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9_-]+$")),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub headers: Vec<String>,
    /// What holds when a question is not answered. `Deny`: the client is refused; its join or event
    /// is answered with an error. `Allow`: as if nobody had been asked.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Milliseconds after which a question counts as not answered.
    #[serde(default = "timeout")]
    #[schemars(range(min = 10, max = 8000))]
    pub timeout_milliseconds: i32,
    /// Questions of one pod that are under way at a time; a quarter as many notices go out beside
    /// them.
    #[serde(default = "concurrent")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_concurrent: i32,
    /// Questions of one pod that may wait, and notices that may wait.
    #[serde(default = "queued")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queued: i32,
}

fn timeout() -> i32 {
    5000
}
fn concurrent() -> i32 {
    64
}
fn queued() -> i32 {
    10_000
}
