//! A backend behind `https:`, whose certificate comes from an authority of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;
mod tls;

use backend::{Backend, counted, start, url};
use plane::{Client, refusal};
use support::{Dir, end};
use tls::{Tls, authority};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// A backend that serves TLS, and the node's URL of it under this name.
async fn serve(acceptor: TlsAcceptor, name: &str) -> (Backend, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{name}:{}/hook", listener.local_addr().unwrap().port());
    let backend = Backend::on(url.clone(), Tls(listener, acceptor));
    (backend, url)
}

async fn is_let_in(node: &sluice_node::run::Node) -> bool {
    match Client::connect(&url(node, "")).await {
        Ok(_) => true,
        refused => {
            assert_eq!(refusal(refused).0, 403);
            false
        }
    }
}

#[tokio::test]
async fn a_backend_is_asked_over_tls_if_its_certificate_comes_from_the_authority_in_ca_file() {
    let (ca, acceptors) = authority(&["localhost", "elsewhere.example"]);
    let (other, _) = authority(&[]);
    for (file, at, trusted) in [(&ca, 0, true), (&other, 0, false), (&ca, 1, false)] {
        let dir = Dir::new();
        let path = dir.0.join("ca.pem");
        std::fs::write(&path, file).unwrap();
        let (backend, url) = serve(acceptors[at].clone(), "localhost").await;
        let more = format!("  connect: true\n  caFile: '{}'\n", path.display());
        let node = start(&dir, &url, &more).await;
        assert_eq!(is_let_in(&node).await, trusted);
        assert_eq!(backend.told("connect").len(), usize::from(trusted));
        assert!(trusted || counted(&node, "connect", "unreachable").await);
        end(node).await;
    }
}
