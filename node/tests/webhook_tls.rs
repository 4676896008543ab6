//! A backend behind `https:`, whose certificate comes from an authority of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use backend::{Backend, counted, start, url};
use plane::{Client, refusal};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use support::{Dir, end};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// An authority in PEM, and the side of TLS servers for whose names it vouches.
fn authority(names: &[&str]) -> (String, Vec<TlsAcceptor>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    (pem, names.iter().map(|name| acceptor(name, &issuer)).collect())
}

fn acceptor(name: &str, issuer: &Issuer<'_, KeyPair>) -> TlsAcceptor {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
    let leaf = leaf.signed_by(&key, issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

/// Takes connections that agree on TLS.
struct Tls(TcpListener, TlsAcceptor);

impl axum::serve::Listener for Tls {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let Ok((stream, peer)) = self.0.accept().await else { continue };
            if let Ok(stream) = self.1.accept(stream).await {
                return (stream, peer);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

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
