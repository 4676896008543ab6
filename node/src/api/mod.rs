//! What the admin API and the publish API have in common: a bounded HTTP server, bearer tokens and
//! errors in JSON.
//!
//! Clients of the realtime socket never come through here.

pub mod auth;
pub mod error;
pub mod serve;

use axum::body::Body;
use bytes::Bytes;
use serde::de::DeserializeOwned;

pub use auth::Token;
pub use error::ApiError;

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
/// 413 past the limit, 400 when the body breaks off.
pub async fn body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    axum::body::to_bytes(body, limit).await.map_err(|e| {
        let source = std::error::Error::source(&e);
        if source.is_some_and(|s| s.is::<http_body_util::LengthLimitError>()) {
            ApiError::too_large(limit)
        } else {
            ApiError::bad_request("the body broke off")
        }
    })
}

/// Reads a JSON object.
///
/// # Errors
/// 400 for what is no JSON, 422 for JSON of another shape.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    // Without this a list would be read as the values of the fields, in their order.
    if bytes.trim_ascii_start().first() == Some(&b'[') {
        let valid = serde_json::from_slice::<serde::de::IgnoredAny>(bytes).map(|_| ());
        return Err(match valid {
            Ok(()) => ApiError::unprocessable("the body must be a JSON object, not a list"),
            Err(e) => ApiError::bad_request(format!("the body is not JSON: {e}")),
        });
    }
    serde_json::from_slice(bytes).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => ApiError::unprocessable(e.to_string()),
        _ => ApiError::bad_request(format!("the body is not JSON: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use sluice_node_api::admin::{DrainRequest, ShedRequest};

    use super::*;

    fn refused<T: DeserializeOwned>(body: &str) -> (u16, String) {
        let error = json::<T>(body.as_bytes()).err().expect("it is wrong");
        (error.status().as_u16(), error.to_string())
    }

    #[test]
    fn what_is_missing_is_named_and_no_type_of_ours() {
        let (status, message) = refused::<ShedRequest>("{}");
        assert_eq!(status, 422);
        assert!(message.contains("missing field `count`"), "{message}");
        let (_, message) = refused::<DrainRequest>(r#"{"mode":"Wait"}"#);
        assert!(message.contains("missing field `initialDelaySeconds`"), "{message}");
        for body in ["[]", "7", "\"x\"", "null", "[1,2]"] {
            let (status, message) = refused::<DrainRequest>(body);
            assert_eq!(status, 422, "{body}");
            assert!(message.contains("object"), "{body}: {message}");
            assert!(!message.contains("Request"), "{body}: {message}");
        }
        assert_eq!(refused::<ShedRequest>("[").0, 400);
        assert_eq!(refused::<ShedRequest>("").0, 400);
    }
}
