//! An issuer behind `https:`, whose certificate comes from an authority of its own.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod plane;
mod support;
mod tls;
mod tokens;

use plane::{Client, refusal};
use serde_json::json;
use support::{Dir, end, node};
use tls::{Tls, authority};
use tokens::{Issuer, Signer, claims};
use tokio::net::TcpListener;

#[tokio::test]
async fn keys_are_fetched_over_tls_if_the_issuers_certificate_comes_from_the_authority_in_ca_file()
{
    let (ca, acceptors) = authority(&["localhost", "elsewhere.example"]);
    let (other, _) = authority(&[]);
    let signer = Signer::new("ES256");
    let token = signer.sign(&json!({"alg": "ES256", "kid": "1"}), &claims("anna"));
    for (file, at, trusted) in [(&ca, 0, true), (&other, 0, false), (&ca, 1, false)] {
        let dir = Dir::new();
        let path = dir.0.join("ca.pem");
        std::fs::write(&path, file).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://localhost:{}/jwks.json", listener.local_addr().unwrap().port());
        let tls = Tls(listener, acceptors[at].clone());
        let issuer = Issuer::on(url.clone(), tls, vec![signer.jwk("1")]);
        let config =
            format!("auth:\n  jwt:\n    jwks: {{url: '{url}', caFile: '{}'}}\n", path.display());
        let node = node("a", &dir.config(&config)).await;
        let at = format!("ws://{}/socket/websocket?vsn=2.0.0&token={token}", node.addresses.http);
        let connected = Client::connect(&at).await;
        assert_eq!(connected.is_ok(), trusted);
        if !trusted {
            assert_eq!(refusal(connected).0, 403);
        }
        assert_eq!(issuer.asked() > 0, trusted, "nothing is asked of who can't be trusted");
        end(node).await;
    }
}
