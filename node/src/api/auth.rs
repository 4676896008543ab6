//! Bearer tokens, compared in constant time.

use std::time::Instant;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::ApiError;
use crate::keys::Keys;

/// A token that calls must bear. Never printed.
#[derive(Clone)]
pub struct Token {
    keys: Option<Keys>,
}

impl Token {
    /// One of these; without any no call passes.
    pub fn new(keys: Option<Keys>) -> Self {
        Self { keys }
    }

    /// Passes if the headers bear the token.
    ///
    /// # Errors
    /// 401, with what is missing.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(keys) = &self.keys else {
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
        let is = |want: &[u8]| {
            let want: [u8; 32] = Sha256::digest(want).into();
            bool::from(got.ct_eq(&want))
        };
        // All are compared, whichever it is.
        let known = keys.taken(Instant::now()).iter().filter(|want| is(want)).count() > 0;
        if known && scheme.eq_ignore_ascii_case(b"Bearer ") {
            Ok(())
        } else {
            Err(ApiError::unauthorized("the token is not this node's"))
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn passes(token: Option<&'static [u8]>, header: Option<&str>) -> bool {
        by(token.map(|token| Keys::new(Bytes::from_static(token))), header)
    }

    fn by(keys: Option<Keys>, header: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        if let Some(h) = header {
            headers.insert(AUTHORIZATION, h.parse().unwrap());
        }
        Token::new(keys).check(&headers).is_ok()
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
    #[test]
    fn a_token_that_was_replaced_passes_for_a_while() {
        let keys = Keys::new("old".into());
        keys.replace("new".into(), Instant::now());
        for (header, passes) in [("Bearer new", true), ("Bearer old", true), ("Bearer x", false)] {
            assert_eq!(by(Some(keys.clone()), Some(header)), passes, "{header}");
        }
    }
}
