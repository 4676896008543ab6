//! The token of a long-poll session: it names the node and the session, so that any node can serve
//! any request (`P-LP-6`, `P-LP-7`). Signed with what all nodes of a cluster share; pure.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::pubsub::Instance;

/// How long a token is good, in seconds: 14 days.
const LIFE: u64 = 14 * 24 * 3600;
const BODY: usize = 16 + 2 + 4 + 8 + 8;

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) node: Instance,
    pub(crate) shard: u16,
    pub(crate) slot: u32,
    pub(crate) id: u64,
}

/// Signs; `now` is seconds of the Unix epoch.
pub(crate) fn sign(session: &Session, secret: &[u8], now: u64) -> String {
    let mut bytes = Vec::with_capacity(BODY + 32);
    bytes.extend_from_slice(&session.node);
    bytes.extend_from_slice(&session.shard.to_be_bytes());
    bytes.extend_from_slice(&session.slot.to_be_bytes());
    bytes.extend_from_slice(&session.id.to_be_bytes());
    bytes.extend_from_slice(&now.saturating_add(LIFE).to_be_bytes());
    let code = mac(secret, &bytes).finalize().into_bytes();
    bytes.extend_from_slice(&code);
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The session, if the token is ours and has not expired.
pub(crate) fn verify(token: &str, secret: &[u8], now: u64) -> Option<Session> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
    let (body, code) = bytes.split_at_checked(BODY)?;
    mac(secret, body).verify_slice(code).ok()?;
    let (node, rest) = body.split_first_chunk()?;
    let (shard, rest) = rest.split_first_chunk()?;
    let (slot, rest) = rest.split_first_chunk()?;
    let (id, rest) = rest.split_first_chunk()?;
    let expires = u64::from_be_bytes(*rest.first_chunk()?);
    (now < expires).then(|| Session {
        node: *node,
        shard: u16::from_be_bytes(*shard),
        slot: u32::from_be_bytes(*slot),
        id: u64::from_be_bytes(*id),
    })
}

/// A token that is taken is one that was signed, to the letter.
#[cfg(any(test, fuzzing))]
pub(crate) fn judge(token: &str) {
    const SECRET: &[u8] = b"corpus";
    let known = Session { node: [7; 16], shard: 1, slot: 2, id: 3 };
    let taken = verify(token, SECRET, 0);
    assert_eq!(taken.is_some(), token == sign(&known, SECRET, 0));
    assert!(taken.is_none_or(|session| session == known));
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(secret: &[u8], body: &[u8]) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length");
    mac.update(b"sluice long-poll session\0");
    mac.update(body);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_lp_6_a_token_is_ours_whole_and_good_for_14_days() {
        let session = Session { node: [7; 16], shard: 1, slot: 2, id: 3 };
        let token = sign(&session, b"s", 100);
        assert_eq!(verify(&token, b"s", 100), Some(session));
        assert_eq!(verify(&token, b"s", 100 + LIFE), None);
        assert_eq!(verify(&token, b"other", 100), None);
        let mut forged = token.clone().into_bytes();
        forged[30] ^= 1;
        let forged = String::from_utf8_lossy(&forged).into_owned();
        for bad in [&*forged, "", "x", &token[1..], &token[..token.len() - 1]] {
            assert_eq!(verify(bad, b"s", 100), None, "{bad}");
        }
    }
}
