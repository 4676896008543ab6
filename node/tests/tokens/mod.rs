//! Keys of every algorithm, tokens that they sign, and an issuer that publishes them.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::{Router, extract::State, http::StatusCode, routing::get};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PublicKeyData};
use ring::{hmac, rand::SystemRandom, signature as sig};
use serde_json::{Value, json};

/// No key can be made for RSA here: this one is for tests alone.
const RSA: &str = include_str!("../data/rsa.pem");

/// A key that signs.
pub enum Signer {
    Secret(Vec<u8>),
    Pair(Box<KeyPair>),
}

impl Signer {
    pub fn new(algorithm: &str) -> Self {
        match algorithm {
            // Its last byte is by no chance a newline, which a node takes for the file's.
            "HS256" => Self::Secret((0..32).map(|_| rand::random()).chain([b'.']).collect()),
            "RS256" => Self::Pair(KeyPair::from_pem(RSA).unwrap().into()),
            "ES256" => Self::Pair(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap().into()),
            "EdDSA" => Self::Pair(KeyPair::generate_for(&PKCS_ED25519).unwrap().into()),
            other => panic!("{other}"),
        }
    }

    /// What a node verifies by: the secret, or PEM.
    pub fn verifier(&self) -> Vec<u8> {
        match self {
            Self::Secret(secret) => secret.clone(),
            Self::Pair(pair) => pair.public_key_pem().into_bytes(),
        }
    }

    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let message = signed.as_bytes();
        let random = SystemRandom::new();
        let signature = match (self, header["alg"].as_str().unwrap()) {
            (Self::Secret(secret), "HS256") => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            (Self::Pair(pair), "RS256") => {
                let pair = sig::RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&sig::RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            (Self::Pair(pair), "ES256") => {
                let fixed = &sig::ECDSA_P256_SHA256_FIXED_SIGNING;
                let pair = sig::EcdsaKeyPair::from_pkcs8(fixed, &pair.serialize_der(), &random);
                pair.unwrap().sign(&random, message).unwrap().as_ref().to_vec()
            }
            (Self::Pair(pair), "EdDSA") => {
                let pair = sig::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pair.serialize_der());
                pair.unwrap().sign(message).as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// As an issuer publishes it.
    pub fn jwk(&self, kid: &str) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let Self::Pair(pair) = self else { return json!({"kty": "oct", "kid": kid}) };
        let raw = pair.der_bytes();
        match raw.len() {
            32 => json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(raw)}),
            65 => json!({"kty": "EC", "crv": "P-256", "kid": kid, "use": "sig", "alg": "ES256",
                "x": text(&raw[1..33]), "y": text(&raw[33..])}),
            _ => {
                let pair = sig::RsaKeyPair::from_pkcs8(&pair.serialize_der()).unwrap();
                let public = sig::RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({"kty": "RSA", "kid": kid, "alg": "RS256",
                    "n": text(&public.n), "e": text(&public.e)})
            }
        }
    }
}

/// Seconds since 1970, `after` from now.
pub fn time(after: f64) -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + after
}

/// Claims of `sub` that hold for a minute.
pub fn claims(sub: &str) -> Value {
    json!({ "sub": sub, "exp": time(60.0) })
}

/// An HTTP server that publishes a key set.
pub struct Issuer {
    pub url: String,
    /// What it answers: the set, or an error.
    pub answer: Arc<Mutex<Option<Value>>>,
    asked: Arc<AtomicUsize>,
}

type Served = (Arc<Mutex<Option<Value>>>, Arc<AtomicUsize>);

impl Issuer {
    pub async fn start(keys: Vec<Value>) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        Self::on(url, listener, keys)
    }

    pub fn on<L>(url: String, listener: L, keys: Vec<Value>) -> Self
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        async fn serve(State((answer, asked)): State<Served>) -> Result<String, StatusCode> {
            asked.fetch_add(1, Ordering::SeqCst);
            answer.lock().as_ref().map(Value::to_string).ok_or(StatusCode::BAD_GATEWAY)
        }
        let answer = Arc::new(Mutex::new(Some(json!({ "keys": keys }))));
        let asked = Arc::<AtomicUsize>::default();
        let router = Router::new().route("/jwks.json", get(serve));
        let router = router.with_state((answer.clone(), asked.clone()));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, answer, asked }
    }

    pub fn publish(&self, keys: Vec<Value>) {
        *self.answer.lock() = Some(json!({ "keys": keys }));
    }

    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}
