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

/// Reads JSON.
///
/// # Errors
/// 400 for what is no JSON, 422 for JSON of another shape.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => ApiError::unprocessable(e.to_string()),
        _ => ApiError::bad_request(format!("the body is not JSON: {e}")),
    })
}
