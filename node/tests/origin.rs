//! The origin policy of a node, from outside: `P-CON-5`, and its place in the order of `P-CON-4`.

mod plane;

use plane::{Node, PATIENCE};
use sluice_node::hub::Reason;
use sluice_node_api::config::{ChannelRule, CheckOrigin, Socket};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest, http::HeaderValue};

/// The status of a handshake with this `Origin`, and the body of a refusal.
async fn handshake(node: &Node, vsn: &str, origin: Option<&'static str>) -> (u16, Vec<u8>) {
    let url = node.url().replace("2.0.0", vsn);
    let mut request = url.into_client_request().expect("a request");
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", HeaderValue::from_static(origin));
    }
    let connect = tokio_tungstenite::connect_async(request);
    match timeout(PATIENCE, connect).await.expect("an answer") {
        Ok((_, response)) => (response.status().as_u16(), Vec::new()),
        Err(Error::Http(response)) => {
            (response.status().as_u16(), response.into_body().unwrap_or_default())
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn p_con_5_an_origin_that_is_not_listed_is_403_with_an_empty_body() {
    let list = ["https://chat.example.com", "//*.example.org"].map(String::from);
    let socket = Socket { check_origin: CheckOrigin::List(list.into()), ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    for origin in [None, Some("https://chat.example.com"), Some("http://a.example.org:8080")] {
        assert_eq!(handshake(&node, "2.0.0", origin).await.0, 101, "{origin:?}");
    }
    for origin in ["http://chat.example.com", "https://example.com", "null", "nonsense"] {
        assert_eq!(handshake(&node, "2.0.0", Some(origin)).await, (403, vec![]), "{origin}");
    }
    let refused = |reason| node.hub.metrics().refused.get_or_create(&Reason { reason }).get();
    assert_eq!((refused("origin"), refused("vsn")), (4, 0));
    // P-CON-4: the origin comes before the version.
    assert_eq!(handshake(&node, "9.0.0", Some("null")).await.0, 403);
    assert_eq!((refused("origin"), refused("vsn")), (5, 0));
}

#[tokio::test]
async fn p_con_5_true_takes_the_host_and_false_takes_all() {
    let host = Some("chat.example.com".to_owned());
    let socket = Socket { check_origin: CheckOrigin::Host, host, ..Socket::default() };
    let node = Node::with(socket, vec![ChannelRule::room()]).await;
    assert_eq!(handshake(&node, "2.0.0", Some("http://chat.example.com:81")).await.0, 101);
    assert_eq!(handshake(&node, "2.0.0", Some("https://example.com")).await.0, 403);
    let node = Node::start().await;
    assert_eq!(handshake(&node, "2.0.0", Some("null")).await.0, 101);
}
