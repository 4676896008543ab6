//! The connect callback and mounts of a program built on the library, over real sockets.

mod plane;

use std::sync::{Arc, OnceLock};

use plane::{Client, Node, refusal};
use serde_json::json;
use sluice_node::{
    channel::{Accept, Connect, Mount, Refused, Router, Transport, UserSocket},
    hub::{Hub, Reason},
    pubsub::{Broadcast, Kind, Local},
    server::Builder,
};
use sluice_node_api::config::{ChannelRule, LiveConfig, NodeConfig};
use tokio_util::sync::CancellationToken;

/// Lets in whoever says a name, and refuses the rest in each way there is.
struct Users;

impl UserSocket for Users {
    async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
        assert_eq!(connect.transport, Transport::Websocket);
        assert_eq!(connect.uri.path(), "/space/a/websocket");
        assert_eq!(connect.host(), Some("127.0.0.1"));
        assert!(connect.peer.ip().is_loopback());
        assert_eq!(connect.origin(), None);
        assert_eq!(connect.param("vsn"), Some("2.0.0"));
        assert_eq!(connect.param("space"), Some("a"));
        match connect.param("user") {
            Some("busy") => Err(Refused::because("busy")),
            Some("broken") => panic!("on purpose"),
            Some("patient") => std::future::pending().await,
            Some(user) => Ok(Accept::new().id(format!("users:{user}")).assign(user.to_owned())),
            None => Err(Refused::silently()),
        }
    }
}

async fn node() -> Node {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let live = LiveConfig { channels: vec![ChannelRule::room()], ..LiveConfig::default() };
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).live(Arc::new(live)).shards(2);
    let builder = builder.mount(Mount::new("/space/{space}", Users)).mount(Mount::open("/open/"));
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    Node { hub, address, shutdown }
}

fn url(node: &Node, rest: &str) -> String {
    format!("ws://{}{rest}", node.address)
}

fn user(node: &Node, user: &str) -> String {
    url(node, &format!("/space/a/websocket?user={user}&vsn=2.0.0"))
}

#[tokio::test]
async fn p_con_4_the_connect_callback_refuses_with_403_and_p_con_3_sees_all_parameters() {
    let node = node().await;
    Client::connect(&user(&node, "anna")).await.expect("let in").is_quiet().await;
    let nobody = url(&node, "/space/a/websocket?vsn=2.0.0");
    for url in [nobody, user(&node, "busy")] {
        assert_eq!(refusal(Client::connect(&url).await).0, 403, "{url}");
    }
    let refused = |reason| node.hub.metrics().refused.get_or_create(&Reason { reason }).get();
    assert_eq!(refused("connect"), 2);
    let vsn = url(&node, "/space/a/websocket?user=broken&vsn=3.0.0");
    assert_eq!(refusal(Client::connect(&vsn).await).0, 403, "vsn comes first");
    assert_eq!(refused("vsn"), 1);
}

#[tokio::test]
async fn p_con_1_the_headers_are_looked_at_last() {
    let node = node().await;
    let asked = async |user: &str| {
        let url = format!("http://{}/space/a/websocket?vsn=2.0.0{user}", node.address);
        let answer = reqwest::get(url).await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    };
    // No upgrade at all: who would be refused is refused for that.
    for refused in ["", "&user=busy", "&user=anna&vsn=9.0.0"] {
        assert_eq!(asked(refused).await, (403, String::new()), "{refused}");
    }
    assert_eq!(asked("&user=broken").await.0, 500, "the callback has run");
    let (status, text) = asked("&user=anna").await;
    assert!(status == 400 && (1..200).contains(&text.len()), "{status} {text}");
}

#[tokio::test]
async fn a_connect_callback_that_panics_refuses_that_client_alone() {
    let node = node().await;
    assert_eq!(refusal(Client::connect(&user(&node, "broken")).await).0, 500);
    Client::connect(&user(&node, "anna")).await.expect("let in").is_quiet().await;
}

/// Refuses everybody, with a reason.
struct Nobody;

impl UserSocket for Nobody {
    async fn connect(&self, _: &Connect) -> Result<Accept, Refused> {
        Err(Refused::because("closed"))
    }
}

#[tokio::test]
async fn a_refusal_handler_that_panics_refuses_that_client_alone() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let mount = Mount::new("/closed", Nobody).on_refusal(|_| panic!("on purpose"));
    let shutdown = CancellationToken::new();
    let builder = Builder::new(&config).mount(mount).mount(Mount::open("/open")).shards(1);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub, address, shutdown };
    let closed = url(&node, "/closed/websocket?vsn=2.0.0");
    assert_eq!(refusal(Client::connect(&closed).await).0, 500);
    let open = url(&node, "/open/websocket?vsn=2.0.0");
    Client::connect(&open).await.expect("let in").is_quiet().await;
}

#[tokio::test]
async fn p_con_1_each_mount_has_its_path_and_only_these_are_there() {
    let node = node().await;
    let mut client =
        Client::connect(&url(&node, "/open/websocket?vsn=2.0.0")).await.expect("open to all");
    client.join("room:1").await;
    let stock = url(&node, "/socket/websocket?vsn=2.0.0");
    assert_eq!(refusal(Client::connect(&stock).await).0, 404);
}

#[tokio::test]
async fn p_con_10_a_disconnect_on_a_sockets_id_closes_it_with_1001_and_no_other() {
    let node = node().await;
    let mut anna = Vec::new();
    for _ in 0..3 {
        anna.push(Client::connect(&user(&node, "anna")).await.expect("let in"));
    }
    let mut other = Client::connect(&user(&node, "bert")).await.expect("let in");
    for client in anna.iter_mut().chain([&mut other]) {
        client.is_quiet().await;
    }
    let say = |event: &str| {
        node.hub.broadcast(Broadcast {
            topic: "users:anna".into(),
            event: event.into(),
            kind: Kind::Json,
            payload: "{}".into(),
        });
    };
    say("else");
    for client in &mut anna {
        client.is_quiet().await;
    }
    say("disconnect");
    for client in &mut anna {
        assert_eq!(client.close_code().await, Some(1001));
    }
    other.send(json!([null, "1", "room:1", "phx_join", {}])).await;
    assert_eq!(other.next().await[3], "phx_reply");
}

/// What a socket is assigned is copied when it comes to its shard, just before the shard knows its
/// id. Then another node has it disconnected.
struct Herald(Arc<OnceLock<Hub>>);

impl Clone for Herald {
    fn clone(&self) -> Self {
        if let Some(hub) = self.0.get() {
            hub.deliver(Broadcast {
                topic: "users:anna".into(),
                event: "disconnect".into(),
                kind: Kind::Json,
                payload: "{}".into(),
            });
        }
        Self(self.0.clone())
    }
}

impl UserSocket for Herald {
    async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
        let user = connect.param("user").ok_or_else(Refused::silently)?;
        Ok(Accept::new().id(format!("users:{user}")).assign(Self(self.0.clone())))
    }
}

#[tokio::test]
async fn p_con_10_a_disconnect_is_not_lost_in_a_sockets_first_moments() {
    let mut config = NodeConfig::default();
    config.listen.http = "127.0.0.1:0".into();
    let (shutdown, told) = (CancellationToken::new(), Arc::new(OnceLock::new()));
    let mount = Mount::new("/early", Herald(told.clone())).channels(Router::new());
    let builder = Builder::new(&config).shards(1).mount(mount);
    let (hub, address) = builder.start(shutdown.clone()).await.expect("a free port");
    let node = Node { hub: hub.clone(), address, shutdown };
    let user = |name: &str| url(&node, &format!("/early/websocket?user={name}&vsn=2.0.0"));
    let mut before = Client::connect(&user("bert")).await.expect("let in");
    before.is_quiet().await;
    assert!(told.set(hub).is_ok());
    let mut anna = Client::connect(&user("anna")).await.expect("let in");
    assert_eq!(anna.close_code().await, Some(1001));
    let mut bert = Client::connect(&user("bert")).await.expect("let in");
    bert.is_quiet().await;
    before.is_quiet().await;
}

#[tokio::test]
async fn a_connect_that_nobody_decides_is_answered_all_the_same() {
    let node = node().await;
    let connect = tokio_tungstenite::connect_async(user(&node, "patient"));
    // Longer than a callback may take.
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), connect).await;
    let refused = ended.expect("an answer").map(|(stream, _)| Client(stream));
    assert_eq!(refusal(refused).0, 503);
    Client::connect(&user(&node, "anna")).await.expect("others are let in");
}
