//! Who may connect: `spec.auth` as a node reads it, and the files with its keys.

use serde_json::Value;
use sluice_crds::Jwt;
use sluice_node_api::auth::{self, Algorithm};

use super::config::{DIRECTORY, secret};

/// The configuration, with paths of the files that [`sources`] mounts.
pub(super) fn config(auth: &sluice_crds::Auth) -> auth::Auth {
    auth::Auth { jwt: auth.jwt.as_ref().map(jwt) }
}

fn jwt(spec: &Jwt) -> auth::Jwt {
    let path = |file: &str| Some(format!("{DIRECTORY}/{file}"));
    let seconds = |value: i32| value.max(0).unsigned_abs();
    let keys = spec.keys.iter().enumerate().map(|(i, key)| {
        let file = path(&key_file(i));
        let secret = key.algorithm == Algorithm::HS256;
        let (secret_file, public_key_file) = if secret { (file, None) } else { (None, file) };
        let kid = key.kid.clone();
        auth::JwtKey {
            algorithm: key.algorithm,
            kid,
            secret_file,
            secret_env: None,
            public_key_file,
        }
    });
    let jwks = spec.jwks.as_ref().map(|jwks| {
        let mut config = auth::Jwks::new(jwks.url.clone());
        config.refresh_seconds = seconds(jwks.refresh_seconds);
        config.ca_file = jwks.ca_secret_ref.as_ref().and_then(|_| path(CA_FILE));
        config
    });
    auth::Jwt {
        keys: keys.collect(),
        jwks,
        issuers: spec.issuers.clone(),
        audiences: spec.audiences.clone(),
        leeway_seconds: seconds(spec.leeway_seconds),
        required: spec.required,
        require_expiry: spec.require_expiry,
        socket_id: spec.socket_id.clone(),
        ..auth::Jwt::default()
    }
}

const CA_FILE: &str = "auth/ca.pem";

fn key_file(index: usize) -> String {
    format!("auth/key-{index}")
}

/// What the volume of a node's files needs for it.
pub(super) fn sources(auth: &sluice_crds::Auth) -> Vec<Value> {
    let Some(jwt) = &auth.jwt else { return Vec::new() };
    let keys = jwt.keys.iter().enumerate().map(|(i, key)| secret(&key.secret_ref, &key_file(i)));
    let ca = jwt.jwks.as_ref().and_then(|jwks| jwks.ca_secret_ref.as_ref());
    keys.chain(ca.map(|ca| secret(ca, CA_FILE))).collect()
}
