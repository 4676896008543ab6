//! What an answer of the backend means. Pure. Whatever is not clearly an answer is none, such as a page
//! of another server.

use http::StatusCode;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::call::{Failure, Said};

/// Longest id, in bytes.
const MAX_ID: usize = 255;

/// What the backend decides.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict<T> {
    /// It allows.
    Allowed(T),
    /// It does not.
    Denied,
}

/// How a client is let in.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Admission {
    /// The socket's id (`P-CON-10`), in place of the token's.
    pub(super) id: Option<String>,
    /// Put over the claims of the token.
    #[serde(default)]
    pub(super) claims: Map<String, Value>,
    /// Seconds after which the socket is closed.
    pub(super) expires_in_seconds: Option<f64>,
}

#[derive(Deserialize)]
struct Answer<T> {
    allow: bool,
    #[serde(flatten)]
    more: T,
}

/// Reads the answer to a connect: `{"allow": true, …}` or `{"allow": false}` with 200; 401 and 403 deny.
pub(super) fn admission(said: &Said) -> Result<Verdict<Admission>, Failure> {
    if matches!(said.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Ok(Verdict::Denied);
    }
    let answer: Answer<Admission> =
        serde_json::from_slice(&said.body).map_err(|_| Failure::Garbage)?;
    if !answer.allow {
        return Ok(Verdict::Denied);
    }
    let more = answer.more;
    let id = more.id.as_ref().is_none_or(|id| (1..=MAX_ID).contains(&id.len()));
    let time = more.expires_in_seconds.is_none_or(|seconds| seconds > 0.0);
    if id && time { Ok(Verdict::Allowed(more)) } else { Err(Failure::Garbage) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, body: &str) -> Result<Verdict<Admission>, Failure> {
        let status = StatusCode::from_u16(status).unwrap();
        admission(&Said { status, body: body.as_bytes().to_vec() })
    }

    #[test]
    fn only_a_clear_yes_lets_in_and_a_clear_no_refuses() {
        assert_eq!(of(200, r#"{"allow": true}"#), Ok(Verdict::Allowed(Admission::default())));
        let full = r#"{"allow": true, "id": "u:1", "claims": {"sub": "1"}, "expiresInSeconds": 9, "x": 1}"#;
        let Ok(Verdict::Allowed(admission)) = of(200, full) else { panic!() };
        assert_eq!((admission.id.as_deref(), &admission.claims["sub"]), (Some("u:1"), &"1".into()));
        assert_eq!(admission.expires_in_seconds, Some(9.0));
        for (status, body) in [(200, r#"{"allow": false}"#), (403, "no"), (401, "")] {
            assert_eq!(of(status, body), Ok(Verdict::Denied), "{status}");
        }
        let long = format!(r#"{{"allow": true, "id": "{}"}}"#, "x".repeat(256));
        for body in [
            "",
            "{}",
            "<html>",
            "true",
            r#"{"allow": "yes"}"#,
            r#"{"allow": true, "id": 7}"#,
            r#"{"allow": true, "id": ""}"#,
            r#"{"allow": true, "claims": []}"#,
            r#"{"allow": true, "expiresInSeconds": -1}"#,
            &long,
        ] {
            assert_eq!(of(200, body), Err(Failure::Garbage), "{body}");
        }
        assert_eq!(of(204, ""), Err(Failure::Garbage), "nothing said is no yes");
    }
}
