//! A JSON Web Token in its compact form (RFC 7515), and what its claims must say (RFC 7519). Pure:
//! the time is an argument. Nothing of a token is ever in an error or a log.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::{Map, Value};
use sluice_node_api::auth::{Algorithm, Jwt};

/// Longest token, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// Why a token does not let its bearer in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// There is none.
    Missing,
    /// It is no token.
    Malformed,
    /// It is signed by an algorithm that is not ours, or has an extension that must be understood.
    Algorithm,
    /// No key could have signed it.
    Key,
    /// It was changed, or signed by another key.
    Signature,
    /// `exp` is over, or not there.
    Expired,
    /// `nbf` is not yet.
    Early,
    /// `iss` is another.
    Issuer,
    /// `aud` is another.
    Audience,
    /// A claim that the socket's id needs is missing.
    Claim,
}

impl Denied {
    /// One word, for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Algorithm => "algorithm",
            Self::Key => "key",
            Self::Signature => "signature",
            Self::Expired => "expired",
            Self::Early => "early",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
            Self::Claim => "claim",
        }
    }
}

/// A token whose signature is not verified yet.
pub(super) struct Token<'a> {
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    /// What is signed.
    pub(super) signed: &'a str,
    pub(super) signature: Vec<u8>,
    payload: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions, whatever they are. `null` is none that can be understood either (RFC 7515 4.1.11).
    #[serde(default, deserialize_with = "present")]
    crit: bool,
}

fn present<'de, D: Deserializer<'de>>(value: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(value).map(|_| true)
}

impl<'a> Token<'a> {
    /// Reads the three parts.
    pub(super) fn parse(text: &'a str) -> Result<Self, Denied> {
        let part = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Denied::Malformed);
        let (signed, signature) = text.rsplit_once('.').ok_or(Denied::Malformed)?;
        let (header, payload) = signed.split_once('.').ok_or(Denied::Malformed)?;
        if text.len() > MAX_TOKEN || payload.contains('.') {
            return Err(Denied::Malformed);
        }
        let header: Header =
            serde_json::from_slice(&part(header)?).map_err(|_| Denied::Malformed)?;
        let algorithm = Algorithm::named(&header.alg).ok_or(Denied::Algorithm)?;
        if header.crit {
            return Err(Denied::Algorithm);
        }
        let (payload, signature) = (part(payload)?, part(signature)?);
        Ok(Self { algorithm, kid: header.kid, signed, signature, payload })
    }

    /// The claims, for a token that is verified.
    pub(super) fn claims(&self) -> Result<Map<String, Value>, Denied> {
        serde_json::from_slice(&self.payload).map_err(|_| Denied::Malformed)
    }
}

/// Checks the claims at `now`, in seconds since 1970; gives the second at which they are over.
pub(super) fn check(
    claims: &Map<String, Value>,
    jwt: &Jwt,
    now: f64,
) -> Result<Option<f64>, Denied> {
    let leeway = f64::from(jwt.leeway_seconds);
    let time = |name: &str| match claims.get(name) {
        None => Ok(None),
        Some(value) => value.as_f64().map(Some).ok_or(Denied::Malformed),
    };
    let over = match time("exp")? {
        Some(exp) if now < exp + leeway => Some(exp + leeway),
        Some(_) => return Err(Denied::Expired),
        None if jwt.require_expiry => return Err(Denied::Expired),
        None => None,
    };
    if time("nbf")?.is_some_and(|nbf| now + leeway < nbf) {
        return Err(Denied::Early);
    }
    let one_of = |value: &Value, names: &[String]| {
        value.as_str().is_some_and(|value| names.iter().any(|name| name == value))
    };
    let issuer = claims.get("iss").is_some_and(|iss| one_of(iss, &jwt.issuers));
    if !jwt.issuers.is_empty() && !issuer {
        return Err(Denied::Issuer);
    }
    let audience = match claims.get("aud") {
        Some(Value::Array(list)) => list.iter().any(|aud| one_of(aud, &jwt.audiences)),
        Some(aud) => one_of(aud, &jwt.audiences),
        None => false,
    };
    if !jwt.audiences.is_empty() && !audience {
        return Err(Denied::Audience);
    }
    Ok(over)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_hold_with_their_leeway() {
        let jwt = Jwt { leeway_seconds: 10, ..Jwt::default() };
        let at = |claims: Value, now| check(claims.as_object().unwrap(), &jwt, now);
        assert_eq!(at(json!({"exp": 100}), 99.0), Ok(Some(110.0)));
        assert_eq!(at(json!({"exp": 100.5}), 110.0), Ok(Some(110.5)));
        assert_eq!(at(json!({"exp": 100}), 110.0), Err(Denied::Expired));
        assert_eq!(at(json!({}), 0.0), Err(Denied::Expired));
        assert_eq!(at(json!({"exp": "100"}), 0.0), Err(Denied::Malformed));
        assert_eq!(at(json!({"exp": 1e300, "nbf": 50}), 39.0), Err(Denied::Early));
        assert_eq!(at(json!({"exp": 100, "nbf": 50}), 40.0), Ok(Some(110.0)));
        let jwt = Jwt { require_expiry: false, ..jwt };
        assert_eq!(check(&Map::new(), &jwt, 0.0), Ok(None));
    }

    #[test]
    fn a_token_has_a_largest_size() {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
        let of = |bytes: usize| {
            let payload = "AAAA".repeat(bytes / 4);
            Token::parse(&format!("{header}.{payload}.AAAA")).err()
        };
        assert_eq!(of(8 << 10), None);
        assert_eq!(of(32 << 10), Some(Denied::Malformed));
    }

    #[test]
    fn issuer_and_audience_must_be_named() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        let jwt = Jwt { issuers: names(&["a", "b"]), audiences: names(&["x"]), ..Jwt::default() };
        let at = |mut claims: Value| {
            claims["exp"] = 100.into();
            check(claims.as_object().unwrap(), &jwt, 0.0)
        };
        assert!(at(json!({"iss": "b", "aud": "x"})).is_ok());
        assert!(at(json!({"iss": "a", "aud": [1, "y", "x"]})).is_ok());
        for wrong in [json!({"aud": "x"}), json!({"iss": ["a"], "aud": "x"}), json!({"iss": "A"})] {
            assert_eq!(at(wrong), Err(Denied::Issuer));
        }
        for wrong in [json!(null), json!("y"), json!([]), json!({"x": 1})] {
            assert_eq!(at(json!({"iss": "a", "aud": wrong})), Err(Denied::Audience));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        let of = |header: Value, rest: &str| {
            let header = URL_SAFE_NO_PAD.encode(header.to_string());
            Token::parse(&format!("{header}.{rest}")).err()
        };
        assert_eq!(of(json!({"alg": "HS256"}), "e30.AA"), None);
        for alg in ["none", "None", "", "hs256", "HS384", "RS512", "PS256"] {
            assert_eq!(of(json!({ "alg": alg }), "e30."), Some(Denied::Algorithm), "{alg}");
        }
        for crit in [json!(["b64"]), json!([]), json!(null), json!(false)] {
            let header = json!({"alg": "HS256", "crit": crit, "b64": false});
            assert_eq!(of(header, "e30.AA"), Some(Denied::Algorithm), "{crit}");
        }
        for rest in ["e30", "e30.AA.AA", "e30=.AA", "+/.AA", "e30.A A"] {
            assert_eq!(of(json!({"alg": "HS256"}), rest), Some(Denied::Malformed), "{rest}");
        }
        for text in ["", ".", "..", "a.b.c", "e30.e30.e30", &"x.".repeat(9999)] {
            assert_eq!(Token::parse(text).err(), Some(Denied::Malformed));
        }
    }
}
