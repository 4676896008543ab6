//! The conformance app: mounts, connect callback and topics; what a channel does is in `room.rs`. The
//! same cases pass on a Phoenix 1.8 that offers the same.

use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value, json};
use sluice_node::channel::{Accept, Connect, Mount, Origins, Refused, Router, UserSocket};

#[path = "asked.rs"]
mod asked;
#[path = "room.rs"]
mod room;

use room::{PRESENCE, QUIET, ROOM, Room, Route};

/// The host that the node is configured for.
const HOST: &str = "localhost";

/// Every mount of the app.
pub fn mounts() -> Vec<Mount> {
    let origins = ["//example.com", "https://secure.example:8443", "//*.wild.example"];
    let mount = |path| {
        let mount = Mount::new(path, Users).channels(topics()).origins(Origins::Any);
        let mount = mount.idle_timeout(Duration::from_secs(60)).max_channels(100);
        mount.longpoll(Duration::from_secs(10))
    };
    let refuse = |_: &str| (StatusCode::TOO_MANY_REQUESTS, "Too many requests".to_owned());
    vec![
        mount("/socket")
            .origins(Origins::List(origins.map(str::to_owned).into()))
            .on_refusal(refuse),
        mount("/ws/admin").origins(Origins::Connection),
        mount("/auth").auth_token().on_refusal(refuse),
        mount("/quick")
            .idle_timeout(Duration::from_millis(400))
            .longpoll(Duration::from_millis(500)),
        mount("/space/{space}"),
        Mount::new("/strict", Users)
            .idle_timeout(Duration::from_secs(60))
            .channels(Router::new().channel::<Room<QUIET>>("quiet:*"))
            .origins(Origins::Host(HOST.into()))
            .max_channels(1)
            .subprotocols(["one", "two"])
            .on_refusal(refuse),
    ]
}

fn topics() -> Router {
    Router::new()
        .channel::<Route<0>>("exact")
        .channel::<Route<1>>("room:first")
        .channel::<Room<ROOM>>("room:*")
        .channel::<Route<2>>("room:late:*")
        .channel::<Room<QUIET>>("quiet:*")
        .channel::<Room<PRESENCE>>("presence:*")
}

/// Who may connect.
struct Users;

impl UserSocket for Users {
    async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
        if connect.param("reject") == Some("true") {
            return Err(Refused::silently());
        }
        if connect.param("ratelimit") == Some("true") {
            return Err(Refused::because("ratelimit"));
        }
        let accept = Accept::new();
        Ok(match connect.param("user") {
            Some(user) => accept.id(format!("users:{user}")),
            None => accept,
        })
    }
}

/// What a channel knows of its connection, for the event `info`.
fn told(connect: &Connect) -> Value {
    let headers = |wanted: fn(&str) -> bool| -> Map<String, Value> {
        let all = connect.headers.iter().filter(|(name, _)| wanted(name.as_str()));
        all.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.into())))
            .collect()
    };
    let agent = connect.headers.get(http::header::USER_AGENT).and_then(|agent| agent.to_str().ok());
    json!({
        "params": connect.params,
        "auth_token": connect.auth_token,
        "x_headers": headers(|name| name.starts_with("x-")),
        "trace": headers(|name| name == "traceparent" || name == "tracestate"),
        "user_agent": agent,
        "peer": connect.peer.ip().to_canonical().to_string(),
        "uri": {
            "scheme": "http",
            "host": connect.host(),
            "path": connect.uri.path(),
            "query": connect.uri.query().unwrap_or_default(),
        },
    })
}
