//! Who may connect to a stock node, by tokens that are really signed.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod plane;
mod support;
mod tokens;

use std::path::PathBuf;

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use plane::{
    Client, refusal,
    session::{Session, answer},
};
use serde_json::{Value, json};
use sluice_node::run::Node;
use support::{Dir, end, node, publish, until};
use tokens::{Issuer, Signer, claims, time};
use tokio_tungstenite::tungstenite::{Error, client::IntoClientRequest};

const ALL: [&str; 4] = ["HS256", "RS256", "ES256", "EdDSA"];

/// A configuration with these keys in files, and `more` under `jwt`.
fn config(dir: &Dir, keys: &[(&str, &Signer)], more: &str) -> PathBuf {
    let mut text = "auth:\n  jwt:\n    leewaySeconds: 0\n".to_owned();
    text.push_str(if keys.is_empty() { "" } else { "    keys:\n" });
    for (i, (algorithm, signer)) in keys.iter().enumerate() {
        let file = dir.0.join(format!("key-{i}"));
        std::fs::write(&file, signer.verifier()).unwrap();
        let field = if *algorithm == "HS256" { "secretFile" } else { "publicKeyFile" };
        let file = file.display();
        text.push_str(&format!("    - {{algorithm: {algorithm}, {field}: '{file}'}}\n"));
    }
    dir.config(&format!("{text}{more}"))
}

fn url(node: &Node, params: &str) -> String {
    format!("ws://{}/socket/websocket?vsn=2.0.0{params}", node.addresses.http)
}

async fn connect(node: &Node, token: &str) -> Result<Client, u16> {
    match Client::connect(&url(node, &format!("&token={token}"))).await {
        Ok(client) => Ok(client),
        refused => Err(refusal(refused).0),
    }
}

async fn status(node: &Node, token: &str) -> u16 {
    connect(node, token).await.map_or_else(|status| status, |_| 101)
}

async fn metrics(node: &Node) -> String {
    let url = format!("http://{}/metrics", node.addresses.admin);
    reqwest::get(url).await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn tokens_of_every_algorithm_are_taken_and_what_is_wrong_with_one_is_403() {
    let (dir, signers) = (Dir::new(), ALL.map(Signer::new));
    let keys: Vec<_> = ALL.into_iter().zip(&signers).collect();
    let node = node("a", &config(&dir, &keys, "    issuers: [me]\n    audiences: [us]\n")).await;
    let good = |change: &dyn Fn(&mut Value)| {
        let mut claims = json!({"sub": "anna", "iss": "me", "aud": ["us"], "exp": time(60.0)});
        change(&mut claims);
        claims
    };
    for (algorithm, signer) in &keys {
        let of = |claims: Value| signer.sign(&json!({ "alg": algorithm, "kid": "x" }), &claims);
        let token = of(good(&|_| {}));
        let mut client = connect(&node, &token).await.expect(algorithm);
        client.send(json!(["1", "1", "room:1", "phx_join", {}])).await;
        assert_eq!(client.next().await[4]["status"], "ok");
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (header, payload) = signed.split_once('.').unwrap();
        let (_, other) = of(good(&|claims| claims["sub"] = "bert".into()))
            .split_once('.')
            .map(|(head, rest)| (head.to_owned(), rest.to_owned()))
            .unwrap();
        let (other_payload, _) = other.split_once('.').unwrap();
        for bad in [
            format!("{header}.{other_payload}.{signature}"),
            format!("{header}.{payload}."),
            format!("{header}.{payload}"),
            of(good(&|claims| claims["exp"] = time(-1.0).into())),
            of(good(&|claims| claims["nbf"] = time(60.0).into())),
            of(good(&|claims| claims["iss"] = "them".into())),
            of(good(&|claims| claims["aud"] = "them".into())),
        ] {
            assert_eq!(status(&node, &bad).await, 403, "{algorithm} {bad}");
        }
    }
    assert_eq!(refusal(Client::connect(&url(&node, "")).await).0, 403);
    let metrics = metrics(&node).await;
    for (reason, count) in [("signature", 8), ("malformed", 4), ("expired", 4), ("early", 4)] {
        let line = format!("sluice_auth_denied_total{{reason=\"{reason}\"}} {count}");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    assert!(metrics.contains("sluice_refused_total{reason=\"connect\"} 29"), "{metrics}");
    end(node).await;
}

#[tokio::test]
async fn p_con_6_a_token_comes_as_a_subprotocol_too() {
    let (dir, signer) = (Dir::new(), Signer::new("HS256"));
    let node = node("a", &config(&dir, &[("HS256", &signer)], "")).await;
    let offer = async |claims: &Value| {
        let token = STANDARD_NO_PAD.encode(signer.sign(&json!({ "alg": "HS256" }), claims));
        let mut request = url(&node, "").into_client_request().unwrap();
        let protocols = format!("phoenix, base64url.bearer.phx.{token}");
        request.headers_mut().insert("sec-websocket-protocol", protocols.parse().unwrap());
        tokio_tungstenite::connect_async(request).await
    };
    let (_, answer) = offer(&claims("anna")).await.expect("let in");
    assert_eq!(answer.headers()["sec-websocket-protocol"], "phoenix");
    let late = json!({ "sub": "anna", "exp": time(-60.0) });
    let refused = offer(&late).await.map(|(_, answer)| answer.status().as_u16());
    assert!(matches!(refused, Err(Error::Http(answer)) if answer.status() == 403));
    end(node).await;
}

#[tokio::test]
async fn no_token_chooses_its_algorithm() {
    let (dir, signers) = (Dir::new(), ["RS256", "ES256", "EdDSA"].map(Signer::new));
    let keys: Vec<_> = ["RS256", "ES256", "EdDSA"].into_iter().zip(&signers).collect();
    let node = node("a", &config(&dir, &keys, "")).await;
    for alg in ["none", "None", "HS384", ""] {
        let token = signers[0].sign(&json!({ "alg": alg }), &claims("anna"));
        assert_eq!(status(&node, &token).await, 403, "{alg}");
    }
    for (algorithm, signer) in &keys {
        // The classic: a public key as a shared secret, in PEM as it stands.
        let secret = Signer::Secret(signer.verifier());
        let token = secret.sign(&json!({ "alg": "HS256" }), &claims("anna"));
        assert_eq!(status(&node, &token).await, 403, "{algorithm}");
        // A signature of the one under the name of another.
        for other in ["RS256", "ES256", "EdDSA"].into_iter().filter(|other| other != algorithm) {
            let token = signer.sign(&json!({ "alg": algorithm }), &claims("anna"));
            let (_, rest) = token.split_once('.').unwrap();
            let header = Signer::Secret(vec![]).sign(&json!({ "alg": other }), &json!({}));
            let token = format!("{}.{rest}", header.split_once('.').unwrap().0);
            assert_eq!(status(&node, &token).await, 403, "{algorithm} as {other}");
        }
    }
    end(node).await;
}

#[tokio::test]
async fn an_issuers_keys_rotate_and_outlive_its_failure() {
    let dir = Dir::new();
    let (old, new) = (Signer::new("ES256"), Signer::new("EdDSA"));
    let rsa = Signer::new("RS256");
    let issuer = Issuer::start(vec![old.jwk("1"), rsa.jwk("rsa")]).await;
    let jwks = format!("    jwks: {{url: '{}', unknownKidSeconds: 1}}\n", issuer.url);
    let node = node("a", &config(&dir, &[], &jwks)).await;
    let token = |signer: &Signer, alg: &str, kid: &str| {
        signer.sign(&json!({ "alg": alg, "kid": kid }), &claims("anna"))
    };
    let first = token(&old, "ES256", "1");
    assert_eq!(status(&node, &first).await, 101, "a connect waits for the first fetch");
    assert_eq!(status(&node, &token(&rsa, "RS256", "rsa")).await, 101);
    assert_eq!(status(&node, &token(&old, "ES256", "rsa")).await, 403, "a key of another kind");
    issuer.publish(vec![new.jwk("2")]);
    let second = token(&new, "EdDSA", "2");
    let mut last = 403;
    // Until the set may be fetched again.
    for _ in 0..100 {
        last = status(&node, &second).await;
        if last == 101 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(last, 101);
    assert_eq!(status(&node, &first).await, 403, "the old key is gone");
    *issuer.answer.lock() = None;
    let (asked, unknown) = (issuer.asked(), token(&old, "ES256", "3"));
    for _ in 0..100 {
        assert_eq!(status(&node, &unknown).await, 403);
        if issuer.asked() > asked {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(issuer.asked() > asked, "it was asked for the unknown key");
    assert_eq!(status(&node, &second).await, 101, "the last good set stays");
    assert!(metrics(&node).await.contains("sluice_jwks_fetches_total{reason=\"failed\"}"));
    end(node).await;
}

#[tokio::test]
async fn an_issuers_keys_rotate_without_names_too() {
    let dir = Dir::new();
    let nameless = |signer: &Signer| {
        let mut key = signer.jwk("");
        key.as_object_mut().unwrap().remove("kid");
        key
    };
    let (old, new) = (Signer::new("ES256"), Signer::new("ES256"));
    let issuer = Issuer::start(vec![nameless(&old)]).await;
    let jwks = format!("    jwks: {{url: '{}', unknownKidSeconds: 1}}\n", issuer.url);
    let node = node("a", &config(&dir, &[], &jwks)).await;
    let token = |signer: &Signer| signer.sign(&json!({ "alg": "ES256" }), &claims("anna"));
    assert_eq!(status(&node, &token(&old)).await, 101);
    issuer.publish(vec![nameless(&new)]);
    let mut last = 403;
    // Until the set may be fetched again.
    for _ in 0..100 {
        last = status(&node, &token(&new)).await;
        if last == 101 {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(last, 101);
    assert_eq!(status(&node, &token(&old)).await, 403, "the old key is gone");
    end(node).await;
}

#[tokio::test]
async fn a_socket_is_closed_when_its_token_is_over_and_comes_back_with_a_new_one() {
    let (dir, signer) = (Dir::new(), Signer::new("HS256"));
    let node = node("a", &config(&dir, &[("HS256", &signer)], "")).await;
    let of =
        |after| signer.sign(&json!({"alg": "HS256"}), &json!({"sub": "anna", "exp": time(after)}));
    let mut brief = connect(&node, &of(1.5)).await.expect("let in");
    let mut long = connect(&node, &of(600.0)).await.expect("let in");
    assert_eq!(brief.close_code().await, Some(1008), "never 1000: the client must come back");
    long.is_quiet().await;
    assert_eq!(node.hub.metrics().expired.get(), 1);
    assert_eq!(status(&node, &of(600.0)).await, 101);
    end(node).await;
}

#[tokio::test]
async fn p_con_10_a_user_is_disconnected_by_a_publish_to_the_id_from_a_claim() {
    let (dir, signer) = (Dir::new(), Signer::new("EdDSA"));
    let more = "    socketId: 'users:{sub}'\n    param: jwt\n    required: false\n";
    let node = node("a", &config(&dir, &[("EdDSA", &signer)], more)).await;
    let of = |claims: &Value| {
        url(&node, &format!("&jwt={}", signer.sign(&json!({"alg": "EdDSA"}), claims)))
    };
    let mut anna = Client::connect(&of(&claims("anna"))).await.expect("let in");
    let mut bert = Client::connect(&of(&claims("bert"))).await.expect("let in");
    let mut nobody = Client::connect(&url(&node, "")).await.expect("a token is not required");
    let bad = url(&node, "&jwt=bad");
    assert_eq!(refusal(Client::connect(&bad).await).0, 403, "a wrong token is worse than none");
    let nameless = json!({ "exp": time(60.0) });
    assert_eq!(refusal(Client::connect(&of(&nameless)).await).0, 403);
    until("three sockets", || node.hub.counts().connections == 3).await;
    let call = json!({"topic": "users:anna", "event": "disconnect", "payload": {}});
    assert_eq!(publish(&node, call.to_string()).await.0, 202);
    assert_eq!(anna.close_code().await, Some(1001));
    bert.is_quiet().await;
    nobody.is_quiet().await;
    end(node).await;
}

#[tokio::test]
async fn p_lp_8_a_dead_session_is_followed_by_one_of_the_same_user() {
    let (dir, signer) = (Dir::new(), Signer::new("HS256"));
    let more = "    socketId: 'users:{sub}'\n";
    let node = node("a", &config(&dir, &[("HS256", &signer)], more)).await;
    let jwt = signer.sign(&json!({"alg": "HS256"}), &claims("anna"));
    let url = format!("http://{}/socket/longpoll?token={jwt}&vsn=2.0.0", node.addresses.http);
    let opened = answer(reqwest::Client::new().get(&url)).await;
    assert_eq!(opened["status"], 410);
    let mut token = opened["token"].as_str().unwrap().to_owned();
    let call = json!({"topic": "users:anna", "event": "disconnect", "payload": {}});
    assert_eq!(publish(&node, call.to_string()).await.0, 202);
    until("the session is gone", || node.hub.counts().connections == 0).await;
    // Once with a token that is ours, once with one of a secret that is not known any more.
    for _ in 0..2 {
        let again = answer(reqwest::Client::new().get(format!("{url}&token={token}"))).await;
        assert_eq!(again["status"], 410, "{again}");
        let session = Session {
            http: reqwest::Client::new(),
            url: url.clone(),
            token: again["token"].as_str().unwrap().to_owned(),
        };
        let heartbeat = json!([null, "1", "phoenix", "heartbeat", {}]).to_string();
        assert_eq!(session.post(&[heartbeat]).await, 200, "it lives");
        let first = if token.starts_with('A') { "B" } else { "A" };
        token.replace_range(..1, first);
    }
    let alone = url.replace(&jwt, &token);
    assert_eq!(answer(reqwest::Client::new().get(alone)).await, json!({"status": 403}));
    end(node).await;
}

#[tokio::test]
async fn the_claims_say_which_topics_may_be_joined_and_rules_are_loaded_live() {
    let (dir, signer) = (Dir::new(), Signer::new("ES256"));
    let rules = |own: &str| {
        format!(
            "channels:\n- {{topic: 'user:*', join: {{topics: ['{own}']}}}}\n\
             - {{topic: 'room:*', join: {{claim: rooms}}}}\n\
             - {{topic: lobby, maxMessagesPerSecond: 1}}\n\
             drain: {{initialDelaySeconds: 0}}\n"
        )
    };
    std::fs::write(dir.0.join("live.yaml"), rules("user:{sub}")).unwrap();
    let node = node("a", &config(&dir, &[("ES256", &signer)], "    required: false\n")).await;
    let mut own = claims("anna");
    own["rooms"] = json!(["room:1"]);
    let token = signer.sign(&json!({"alg": "ES256"}), &own);
    let mut anna = connect(&node, &token).await.expect("let in");
    let mut nobody = Client::connect(&url(&node, "")).await.expect("let in");
    let mut reference = 0;
    let mut join = async |client: &mut Client, topic: &str| {
        reference += 1;
        let text = reference.to_string();
        client.send(json!([text, text, topic, "phx_join", {}])).await;
        client.next().await[4].clone()
    };
    let ok = json!({"status": "ok", "response": {}});
    let unauthorized = json!({"status": "error", "response": {"reason": "unauthorized"}});
    for (topic, admitted) in [("user:anna", true), ("user:bert", false), ("room:1", true)] {
        let want = if admitted { &ok } else { &unauthorized };
        assert_eq!(join(&mut anna, topic).await, *want, "{topic}");
        assert_eq!(join(&mut nobody, topic).await, unauthorized, "{topic}");
    }
    assert_eq!(join(&mut nobody, "lobby").await, ok);
    std::fs::write(dir.0.join("live.yaml"), rules("user:{sub}-2")).unwrap();
    let mut last = unauthorized.clone();
    for _ in 0..100 {
        last = join(&mut anna, "user:anna-2").await;
        if last == ok {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(last, ok);
    let metrics = metrics(&node).await;
    assert!(metrics.contains("sluice_rejected_total{reason=\"unauthorized\"}"), "{metrics}");
    end(node).await;
}
