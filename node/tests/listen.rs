//! A node that listens where it does by default serves clients of IPv4 and of IPv6 alike, and tells
//! them by the address that each would give as its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod support;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use backend::Backend;
use serde_json::json;
use sluice_node::run::Node;
use sluice_node_api::config::Listen;
use support::{ADMIN_TOKEN, Client, Dir, PUBLISH_TOKEN, call, end, once_started, until};

/// Its addresses by default, on free ports.
fn by_default(dir: &Dir, more: &str) -> std::path::PathBuf {
    let free = |address: &str| {
        let (host, _) = address.rsplit_once(':').expect("a port");
        format!("'{host}:0'")
    };
    let Listen { http, mesh, admin, publish } = Listen::default();
    let [http, mesh, admin, publish] = [http, mesh, admin, publish].map(|address| free(&address));
    let path = dir.config(more);
    let text = std::fs::read_to_string(&path).unwrap();
    let (_, rest) = text.split_once('\n').expect("a line that says where it listens");
    let listen = format!("{{http: {http}, mesh: {mesh}, admin: {admin}, publish: {publish}}}");
    std::fs::write(&path, format!("listen: {listen}\n{rest}")).unwrap();
    path
}

/// Where this machine is reached by itself: IPv6 is not everywhere.
fn loopbacks() -> Vec<IpAddr> {
    let there = |ip: &IpAddr| std::net::TcpListener::bind((*ip, 0)).is_ok();
    let all = [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()];
    all.into_iter().filter(there).collect()
}

fn at(ip: IpAddr, bound: SocketAddr) -> SocketAddr {
    SocketAddr::new(ip, bound.port())
}

async fn answers(node: &Node, ip: IpAddr) {
    let admin = at(ip, node.addresses.admin);
    for (path, token) in [("/healthz", None), ("/status", Some(ADMIN_TOKEN))] {
        let (status, _) = call("GET", &format!("http://{admin}{path}"), token, None).await;
        assert_eq!(status, 200, "{admin}{path}");
    }
    let mut client = Client::join_with(at(ip, node.addresses.http), "room:1", json!({})).await;
    let url = format!("http://{}/api/publish", at(ip, node.addresses.publish));
    let body = json!({"topic": "room:1", "event": "news", "payload": {"over": ip}}).to_string();
    let publish = async || call("POST", &url, Some(PUBLISH_TOKEN), Some(body.clone())).await;
    assert_eq!(once_started(publish).await.0, 202, "{url}");
    assert_eq!(client.event("news").await, json!({ "over": ip }));
}

#[tokio::test]
async fn by_default_a_node_answers_over_ipv4_and_ipv6() {
    let dir = Dir::new();
    let node = support::node("a", &by_default(&dir, "")).await;
    for ip in loopbacks() {
        answers(&node, ip).await;
    }
    end(node).await;
}

#[tokio::test]
async fn by_default_nodes_link_over_ipv4_and_ipv6() {
    for ip in loopbacks() {
        let dir = Dir::new();
        let a = support::node("a", &by_default(&dir, "")).await;
        let peer = at(ip, a.addresses.mesh.unwrap());
        let b = by_default(&dir, &format!("discovery: {{peers: ['{peer}']}}\n"));
        let b = support::node("b", &b).await;
        let known = |node: &Node, peer: SocketAddr| {
            let peers = node.admin.status().peers;
            let linked = |p: &&sluice_node_api::admin::PeerStatus| p.inbound && p.outbound;
            peers.iter().filter(linked).any(|p| p.address == peer.to_string())
        };
        until(&format!("linked both ways over {ip}"), || {
            known(&b, peer) && known(&a, at(ip, b.addresses.mesh.unwrap()))
        })
        .await;
        end(b).await;
        end(a).await;
    }
}

#[tokio::test]
async fn a_backend_is_told_the_address_that_a_client_has() {
    let (dir, backend) = (Dir::new(), Backend::start().await);
    let secret = dir.0.join("webhook");
    std::fs::write(&secret, format!("whsec_{}", "A".repeat(32))).unwrap();
    let settings = json!({"url": backend.url, "secretFile": secret, "connect": true});
    let node = support::node("a", &by_default(&dir, &format!("webhooks: {settings}\n"))).await;
    for ip in loopbacks() {
        let http = at(ip, node.addresses.http);
        Client::join_with(http, "room:1", json!({})).await;
        let url = format!("http://{http}/socket/longpoll?vsn=2.0.0");
        assert_eq!(reqwest::get(url).await.unwrap().status(), 200);
        let told = backend.data("connect");
        let [.., socket, longpoll] = &told[..] else { panic!("{told:?}") };
        for data in [socket, longpoll] {
            let peer: SocketAddr = data["peer"].as_str().unwrap().parse().unwrap();
            assert_eq!(peer.ip(), ip, "{data}");
        }
    }
    end(node).await;
}

#[tokio::test]
async fn an_address_that_was_chosen_stays_what_it_is() {
    let dir = Dir::new();
    let path = by_default(&dir, "");
    let text = std::fs::read_to_string(&path).unwrap().replace("[::]", "0.0.0.0");
    std::fs::write(&path, text).unwrap();
    let node = support::node("a", &path).await;
    let addresses = node.addresses;
    for bound in [addresses.http, addresses.mesh.unwrap(), addresses.admin, addresses.publish] {
        assert_eq!(bound.ip(), IpAddr::from(Ipv4Addr::UNSPECIFIED));
    }
    answers(&node, Ipv4Addr::LOCALHOST.into()).await;
    end(node).await;
}
