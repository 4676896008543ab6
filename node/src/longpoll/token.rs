//! The token of a long-poll session: it names the node and the session, so that any node can serve
//! any request (`P-LP-6`, `P-LP-7`). Signed with what all nodes of a cluster share; pure.

use std::time::Instant;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::{keys::Keys, pubsub::Instance};

/// How long a token is good, in seconds: 14 days.
const LIFE: u64 = 14 * 24 * 3600;
const BODY: usize = 16 + 2 + 4 + 8 + 8;
const CODE: usize = 32;

/// Where a session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Session {
    pub(crate) node: Instance,
    pub(crate) shard: u16,
    pub(crate) slot: u32,
    pub(crate) id: u64,
}

/// Signs; `now` is seconds of the Unix epoch.
pub(crate) fn sign(session: &Session, secret: &[u8], now: u64) -> String {
    let mut bytes = Vec::with_capacity(BODY + CODE);
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

/// The session of a token under any secret that is taken `at` a time, and its token from then on:
/// a session outlasts a secret that is changed.
pub(crate) fn read(token: &str, keys: &Keys, at: Instant, now: u64) -> Option<(String, Session)> {
    let signing = keys.signing(at);
    if let Some(session) = verify(token, &signing, now) {
        return Some((token.to_owned(), session));
    }
    let session = keys.taken(at).iter().find_map(|secret| verify(token, secret, now))?;
    Some((sign(&session, &signing, now), session))
}

/// Whether it has the form of a token, of whatever secret. No JSON Web Token has: these have dots.
pub(crate) fn is_one(text: &str) -> bool {
    URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == BODY + CODE)
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
    use crate::keys::OVERLAP;

    #[test]
    fn p_lp_6_a_session_goes_on_when_the_secret_is_changed() {
        let session = Session { node: [7; 16], shard: 1, slot: 2, id: 3 };
        let (first, t) = (sign(&session, b"s", 0), Instant::now());
        let keys = Keys::new("s".into());
        keys.replace("t".into(), t);
        assert_eq!(read(&first, &keys, t, 1), Some((first.clone(), session)), "others have s yet");
        let (token, same) = read(&first, &keys, t + OVERLAP / 2, 1).expect("s is taken yet");
        assert_eq!((same, verify(&token, b"t", 1)), (session, Some(session)));
        assert_eq!(read(&token, &keys, t + OVERLAP, 1), Some((token, session)));
        assert_eq!(read(&first, &keys, t + OVERLAP, 1), None);
    }

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
