//! `spec.socket`: what holds for each socket of a client. What a node does with it is the node's.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What holds for each socket of a client. A change is a deploy.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    // An IPv6 address in brackets is looked at more closely by the operator.
    validation = Rule::new("!has(self.checkOrigin) || self.checkOrigin.all(o, o.matches('^([A-Za-z][A-Za-z0-9+.-]*:)?//(([*][.])?[A-Za-z0-9_-][A-Za-z0-9._-]*|\\\\[[0-9A-Fa-f:.]+\\\\])(:0*([0-9]{1,4}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?$'))")
        .message("socket.checkOrigin: write `//host`, `https://host:port` or `//*.host`: an origin has a host, and no path")
)]
pub struct Socket {
    /// Which pages may open a socket, by the `Origin` that browsers send: `//chat.example.com` for
    /// any scheme and port, `https://chat.example.com:8443`, `//*.example.com` for the host and
    /// those under it. Pages of other origins are answered 403; an empty list lets no page in.
    /// Clients that send no `Origin`, which are not browsers, pass. Absent: any page may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 64),
        inner(length(min = 3, max = 320)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub check_origin: Option<Vec<String>>,
    /// Joins that a socket may ask for in a second, a second's worth at once; more are answered with
    /// an error. A client that comes back joins all its topics again at once. Absent: 100, as many as
    /// it may join topics.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_joins_per_second: Option<i32>,
    /// Messages of any kind that a socket may send in a second, a second's worth at once; more are
    /// answered with an error. Heartbeats and leaves find room for as many again. Absent: 20000, which
    /// no honest client meets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_messages_per_second: Option<i32>,
}
