//! Bearer tokens, compared in constant time.

use bytes::Bytes;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ApiError;

/// A token that calls must bear. Never printed.
#[derive(Clone)]
pub struct Token {
    digest: Option<[u8; 32]>,
}

impl Token {
    /// Of these bytes; without a token no call passes.
    pub fn new(token: Option<&Bytes>) -> Self {
        Self { digest: token.map(|t| Sha256::digest(t).into()) }
    }

    /// Passes if the headers bear the token.
    ///
    /// # Errors
    /// 401, with what is missing.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(want) = &self.digest else {
            return Err(ApiError::unauthorized(
                "this node has no token for this API: configure one under `tokens`",
            ));
        };
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Err(ApiError::unauthorized("send `Authorization: Bearer <token>`"));
        };
        let (scheme, token) = value.as_bytes().split_at(value.len().min(7));
        // Digests are of one length: the time tells nothing, not even how long the token is.
        let got: [u8; 32] = Sha256::digest(token.trim_ascii()).into();
        if scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(got.ct_eq(want)) {
            Ok(())
        } else {
            Err(ApiError::unauthorized("the token is not this node's"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(token: Option<&'static [u8]>, header: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(h) = header {
            headers.insert(AUTHORIZATION, h.parse().unwrap());
        }
        Token::new(token.map(Bytes::from_static).as_ref()).check(&headers).is_ok()
    }

    #[test]
    fn only_the_token_passes() {
        let t = Some(&b"secret"[..]);
        assert!(passes(t, Some("Bearer secret")) && passes(t, Some("bearer secret")));
        for bad in
            ["", "secret", "Bearer", "Bearer ", "Bearer secre", "Bearer secrets", "Basic secret"]
        {
            assert!(!passes(t, Some(bad)), "{bad:?}");
            assert!(!passes(None, Some(bad)), "{bad:?}");
        }
        assert!(!passes(t, None) && !passes(None, None) && !passes(None, Some("Bearer secret")));
    }
}
