//! What a mount decides before a socket opens, by the conformance app: origins, auth token,
//! subprotocols, refusals, limits.

mod conformance;
mod plane;

use conformance::{ask, join, node};
use plane::{Client, Node, PATIENCE};
use serde_json::json;
use sluice_node::{channel::Mount, server::Builder};
use sluice_node_api::config::NodeConfig;
use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest, http::HeaderValue};
use tokio_util::sync::CancellationToken;

/// Connects with headers; what the handshake answered, and the client if it was let in.
async fn connect(
    node: &Node,
    rest: &str,
    headers: &[(&'static str, &str)],
) -> (u16, String, Option<Client>) {
    let url = format!("ws://{}{rest}", node.address);
    let mut request = url.into_client_request().expect("a URL");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a header");
        request.headers_mut().insert(*name, value);
    }
    let connect = tokio_tungstenite::connect_async(request);
    match tokio::time::timeout(PATIENCE, connect).await.expect("an answer") {
        Ok((stream, response)) => {
            let protocol = response.headers().get("sec-websocket-protocol");
            let protocol = protocol.map(|value| value.to_str().expect("ASCII").to_owned());
            (101, protocol.unwrap_or_default(), Some(Client(stream)))
        }
        Err(Error::Http(response)) => {
            let body = response.body().clone().unwrap_or_default();
            let body = String::from_utf8(body).expect("text");
            (response.status().as_u16(), body, None)
        }
        Err(error) => panic!("{rest}: {error}"),
    }
}

async fn status(node: &Node, rest: &str, headers: &[(&'static str, &str)]) -> u16 {
    connect(node, rest, headers).await.0
}

#[tokio::test]
async fn p_con_4_a_refusal_with_a_reason_goes_to_the_mounts_handler() {
    let node = node().await;
    let refused = |(status, body, _): (u16, String, Option<Client>)| (status, body);
    let path = "/socket/websocket/?vsn=2.0.0";
    let silent = refused(connect(&node, &format!("{path}&reject=true"), &[]).await);
    assert_eq!(silent, (403, String::new()));
    let limited = refused(connect(&node, &format!("{path}&ratelimit=true"), &[]).await);
    assert_eq!(limited, (429, "Too many requests".to_owned()));
    let none = refused(connect(&node, "/ws/admin/websocket?ratelimit=true", &[]).await);
    assert_eq!(none, (403, String::new()));
    let bad = [("origin", "https://bad.example")];
    let early = refused(connect(&node, &format!("{path}&ratelimit=true"), &bad).await);
    assert_eq!(early, (403, String::new()), "the origin comes first");
}

#[tokio::test]
async fn p_con_5_each_mount_has_its_origins() {
    let node = node().await;
    let here = format!("http://{}", node.address);
    let bare = "http://127.0.0.1";
    for (path, origin, want) in [
        ("/socket", "http://example.com:99", 101),
        ("/socket", "https://secure.example:8443", 101),
        ("/socket", "https://secure.example", 403),
        ("/socket", "https://a.b.wild.example", 101),
        ("/socket", &here, 403),
        ("/ws/admin", &here, 101),
        ("/ws/admin", bare, 403),
        ("/strict", "https://localhost:1", 101),
        ("/strict", "https://example.com", 403),
        ("/auth", "https://example.org", 101),
    ] {
        let got = status(&node, &format!("{path}/websocket"), &[("origin", origin)]).await;
        assert_eq!(got, want, "{path} {origin}");
    }
}

#[tokio::test]
async fn p_con_6_p_con_7_an_auth_token_comes_as_a_subprotocol() {
    let node = node().await;
    let path = "/auth/websocket?vsn=2.0.0";
    for (token, text) in [("YWJj", "abc"), ("Pz8_", "???"), ("Pz8/", "???")] {
        let offer = format!("phoenix, base64url.bearer.phx.{token}");
        let (_, protocol, client) =
            connect(&node, path, &[("sec-websocket-protocol", &offer)]).await;
        assert_eq!(protocol, "phoenix");
        let mut client = client.expect("let in");
        join(&mut client, "quiet:a").await;
        let info = ask(&mut client, json!(["1", "2", "quiet:a", "info", {}])).await;
        assert_eq!(info[4]["response"]["auth_token"], text);
    }
    let garbage = [("sec-websocket-protocol", "phoenix, base64url.bearer.phx.%%")];
    assert_eq!(status(&node, path, &garbage).await, 403);
    assert_eq!(status(&node, path, &[]).await, 101);
}

#[tokio::test]
async fn p_con_9_subprotocols_are_agreed_or_refused() {
    let node = node().await;
    let path = "/strict/websocket?vsn=2.0.0";
    let (_, agreed, _) = connect(&node, path, &[("sec-websocket-protocol", "three, two")]).await;
    assert_eq!(agreed, "two");
    assert_eq!(status(&node, path, &[("sec-websocket-protocol", "three")]).await, 403);
    assert_eq!(status(&node, path, &[]).await, 101);
}

#[tokio::test]
async fn p_con_3_p_con_11_path_parameters_and_the_limit_of_channels() {
    let node = node().await;
    let rest = "/space/blue/websocket?a[b]=1&vsn=2.0.0";
    let headers = [("x-one", "1"), ("traceparent", "00-1"), ("user-agent", "me")];
    let mut client = connect(&node, rest, &headers).await.2.expect("let in");
    join(&mut client, "quiet:a").await;
    let info = ask(&mut client, json!(["1", "2", "quiet:a", "info", {}])).await;
    let want = json!({
        "params": {"a": {"b": "1"}, "space": "blue", "vsn": "2.0.0"},
        "auth_token": null,
        "x_headers": {"x-one": "1"},
        "trace": {"traceparent": "00-1"},
        "user_agent": "me",
        "peer": "127.0.0.1",
        "uri": {"scheme": "http", "host": "127.0.0.1", "path": "/space/blue/websocket",
            "query": "a[b]=1&vsn=2.0.0"},
    });
    assert_eq!(info[4]["response"], want);

    let mut strict = connect(&node, "/strict/websocket?vsn=2.0.0", &[]).await.2.expect("let in");
    join(&mut strict, "quiet:a").await;
    let more = ask(&mut strict, json!(["2", "2", "quiet:b", "phx_join", {}])).await;
    assert_eq!(more[4]["response"]["reason"], "too many channels joined");
    let only = ask(&mut strict, json!(["3", "3", "room:a", "phx_join", {}])).await;
    assert_eq!(only[4]["response"]["reason"], "unmatched topic", "only quiet:* is there");
    let again = ask(&mut strict, json!(["4", "4", "quiet:a", "phx_join", {}])).await;
    assert_eq!(again[4]["status"], "ok");
}

#[tokio::test]
async fn p_hb_2_p_hb_3_a_mounts_idle_timeout_closes_with_a_code_to_come_back_after() {
    let node = node().await;
    let mut client = connect(&node, "/quick/websocket", &[]).await.2.expect("let in");
    assert_eq!(client.close_code().await, Some(1002));
}

#[tokio::test]
async fn p_con_1_an_empty_segment_is_none() {
    let node = node().await;
    for way in ["websocket", "websocket/", "longpoll", "longpoll/"] {
        let there = format!("http://{}/space/a/{way}?vsn=2.0.0", node.address);
        let there = reqwest::get(there).await.expect("an answer");
        assert_ne!(there.status(), 404, "{way}");
        let nowhere = format!("/space//{way}?vsn=2.0.0");
        assert_eq!(connect(&node, &nowhere, &[]).await.0, 404, "{way}");
    }
}

#[tokio::test]
async fn paths_that_can_not_be_served_are_refused_at_the_start() {
    let start = async |paths: &[&str]| {
        let mut config = NodeConfig::default();
        config.listen.http = "127.0.0.1:0".into();
        let mounts = paths.iter().map(|path| Mount::open(*path));
        let shutdown = CancellationToken::new();
        let builder = mounts.fold(Builder::new(&config).shards(1), Builder::mount);
        let started = builder.start(shutdown.clone()).await;
        shutdown.cancel();
        started.map(drop).map_err(|error| error.to_string()).err().unwrap_or_default()
    };
    for paths in [
        &["socket"][..],
        &["/a", "/a/"],
        &["/a/{x}", "/a/{y}"],
        &["/a//b"],
        &["/{}"],
        &["/a{b}c"],
        &["/*"],
    ] {
        let said = start(paths).await;
        assert!(
            said.contains(&format!("{:?}", paths[paths.len() - 1].trim_end_matches('/'))),
            "{said}"
        );
    }
    for paths in [&["/"][..], &["/a", "/a/b", "/{x}/b", "/a/{x}"]] {
        assert_eq!(start(paths).await, "", "{paths:?}");
    }
}
