//! Keys that tokens are verified by. Pure, but for the cryptography of `ring`.
//!
//! A key is for one algorithm, its own. A token says which it was signed by, and only keys of that
//! algorithm are tried: a public key can never be taken for a shared secret, and `none` is no
//! algorithm.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{hmac, signature as sig};
use rustls::pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use serde::Deserialize;
use serde_json::Value;
use sluice_node_api::auth::Algorithm;

use super::{
    spki::{self, Public},
    token::Token,
};

/// Most keys of a set that count.
pub(super) const MAX_KEYS: usize = 64;
/// Fewest bytes of a secret (RFC 7518 3.2).
const MIN_SECRET: usize = 32;

/// A key and the name that tokens give it.
pub struct Key {
    kid: Option<String>,
    material: Material,
}

enum Material {
    Secret(hmac::Key),
    Rsa(sig::RsaPublicKeyComponents<Vec<u8>>),
    P256(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Key {
    /// A shared secret.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn secret(kid: Option<String>, secret: &[u8]) -> Result<Self, String> {
        if secret.len() < MIN_SECRET {
            return Err(format!("a secret of HS256 must have at least {MIN_SECRET} bytes"));
        }
        Ok(Self { kid, material: Material::Secret(hmac::Key::new(hmac::HMAC_SHA256, secret)) })
    }

    /// A public key in PEM, for `algorithm`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn pem(kid: Option<String>, algorithm: Algorithm, pem: &[u8]) -> Result<Self, String> {
        let wrong = || "is no public key in PEM: it must begin with `-----BEGIN PUBLIC KEY-----`";
        let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| wrong())?;
        let public = spki::read(&der)
            .ok_or("holds a key of a kind that is not supported: RSA, P-256 or Ed25519")?;
        if public.algorithm() != algorithm {
            let is = public.algorithm();
            return Err(format!("holds a key for {is:?}, not for {algorithm:?}"));
        }
        Ok(Self { kid, material: Material::new(&public)? })
    }

    /// A key of a JSON Web Key Set; none if it is for something else.
    fn jwk(jwk: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(jwk).ok()?;
        if jwk.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let bytes = |text: &Option<String>| URL_SAFE_NO_PAD.decode(text.as_ref()?).ok();
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => Material::new(&Public::Rsa(&bytes(&jwk.n)?, &bytes(&jwk.e)?)),
            ("EC", Some("P-256")) => {
                let point = [vec![4], bytes(&jwk.x)?, bytes(&jwk.y)?].concat();
                Material::new(&Public::P256(&point))
            }
            ("OKP", Some("Ed25519")) => Material::new(&Public::Ed25519(&bytes(&jwk.x)?)),
            _ => return None,
        };
        let key = Self { kid: jwk.kid, material: material.ok()? };
        let named = |name: &str| Algorithm::named(name) == Some(key.algorithm());
        jwk.alg.as_deref().is_none_or(named).then_some(key)
    }

    fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Secret(_) => Algorithm::HS256,
            Material::Rsa(_) => Algorithm::RS256,
            Material::P256(_) => Algorithm::ES256,
            Material::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    fn verifies(&self, token: &Token<'_>) -> bool {
        let (message, signature) = (token.signed.as_bytes(), token.signature.as_slice());
        let by = |algorithm: &'static dyn sig::VerificationAlgorithm, key: &Vec<u8>| {
            sig::UnparsedPublicKey::new(algorithm, key).verify(message, signature).is_ok()
        };
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Rsa(key) => {
                key.verify(&sig::RSA_PKCS1_2048_8192_SHA256, message, signature).is_ok()
            }
            Material::P256(key) => by(&sig::ECDSA_P256_SHA256_FIXED, key),
            Material::Ed25519(key) => by(&sig::ED25519, key),
        }
    }
}

impl Material {
    fn new(public: &Public<'_>) -> Result<Self, String> {
        match public {
            Public::Rsa(n, e) => {
                let bare = |number: &[u8]| {
                    let zeros = number.iter().take_while(|byte| **byte == 0).count();
                    number[zeros..].to_vec()
                };
                let (n, e) = (bare(n), bare(e));
                match (256..=1024).contains(&n.len()) && (1..=5).contains(&e.len()) {
                    true => Ok(Self::Rsa(sig::RsaPublicKeyComponents { n, e })),
                    false => Err("holds an RSA key that has not 2048 to 8192 bits".into()),
                }
            }
            Public::P256(point) if point.len() == 65 && point[0] == 4 => {
                Ok(Self::P256(point.to_vec()))
            }
            Public::Ed25519(point) if point.len() == 32 => Ok(Self::Ed25519(point.to_vec())),
            _ => Err("holds a key of a wrong length".into()),
        }
    }
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

/// Keys from one place.
#[derive(Default)]
pub struct Keys(Vec<Key>);

impl Keys {
    /// These keys.
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys)
    }

    /// These, and another.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn and(mut self, key: Key) -> Self {
        self.0.push(key);
        self
    }

    /// A JSON Web Key Set: its first 64 keys of these algorithms; others are passed over.
    ///
    /// # Errors
    /// What is no key set, or has no key that could be used.
    pub fn jwks(json: &[u8], algorithms: &[Algorithm]) -> Result<Self, &'static str> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set =
            serde_json::from_slice(json).map_err(|_| "the answer is no JSON Web Key Set")?;
        let keys = set.keys.into_iter().filter_map(Key::jwk);
        let keys = keys.filter(|key| algorithms.contains(&key.algorithm()));
        let keys: Vec<_> = keys.take(MAX_KEYS).collect();
        if keys.is_empty() {
            return Err("the key set has no key of the allowed algorithms");
        }
        Ok(Self(keys))
    }

    /// Whether one of these keys is the one that the token names.
    pub(super) fn names(&self, token: &Token<'_>) -> bool {
        let named = |key: &Key| key.kid == token.kid && key.algorithm() == token.algorithm;
        token.kid.is_some() && self.0.iter().any(named)
    }

    /// Whether one of these keys signed the token; none if none of them could have.
    pub(super) fn verify(&self, token: &Token<'_>) -> Option<bool> {
        let fits = |key: &&Key| {
            let named = key.kid.is_none() || token.kid.is_none() || key.kid == token.kid;
            named && key.algorithm() == token.algorithm
        };
        let mut fitting = self.0.iter().filter(fits).peekable();
        fitting.peek()?;
        Some(fitting.any(|key| key.verifies(token)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ed25519_key_is_taken_by_either_name_of_its_algorithm() {
        let set = |alg: &str| {
            let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
            let key = serde_json::json!({"kty": "OKP", "crv": "Ed25519", "alg": alg, "x": x});
            let set = serde_json::json!({ "keys": [key] }).to_string();
            Keys::jwks(set.as_bytes(), &[Algorithm::EdDSA]).is_ok()
        };
        assert!(set("EdDSA") && set("Ed25519"));
        for other in ["Ed448", "ES256", "HS256", "none", ""] {
            assert!(!set(other), "{other}");
        }
    }
}
