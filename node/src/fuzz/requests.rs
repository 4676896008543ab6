//! What long-polling posts, and the tokens that requests bear.

use std::collections::HashSet;
use std::sync::LazyLock;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use sluice_node_api::auth::Algorithm;

use crate::{auth, longpoll, serializer::Version};

/// The first line is the content type, the rest a body: `P-LP-5` holds for its messages, and each is
/// decoded. The whole is tried as a session's token as well.
pub fn longpoll(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes) {
        longpoll::judge_token(text.trim_end());
    }
    let Some(line) = bytes.iter().position(|byte| *byte == b'\n') else { return };
    let (kind, body) = (&bytes[..line], Bytes::copy_from_slice(&bytes[line + 1..]));
    let lines = kind == b"application/x-ndjson";
    let Ok(messages) = longpoll::messages(Some(kind), body.clone()) else { return assert!(lines) };
    let mut rest = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    assert!(if lines { messages.len() <= 100 } else { messages.len() == 1 });
    for message in messages {
        let sent = if message.binary {
            STANDARD.encode(&message.bytes).into_bytes()
        } else {
            message.bytes.to_vec()
        };
        assert!(if lines { rest.any(|line| line == sent) } else { sent == body }, "in their order");
        assert!(!lines || message.binary != sent.starts_with(b"["));
        // As a session does.
        if message.binary {
            let _ = Version::V2.decode_binary(&message.bytes);
        } else if let Ok(text) = std::str::from_utf8(&message.bytes) {
            let _ = Version::V2.decode(text);
        }
    }
}

/// A token that the keys of `node/corpus/jwt` have signed, one for each algorithm.
const SIGNED: [&str; 4] = [
    include_str!("../../corpus/jwt/hs256"),
    include_str!("../../corpus/jwt/rs256"),
    include_str!("../../corpus/jwt/es256"),
    include_str!("../../corpus/jwt/eddsa"),
];
/// The secret of the one that is signed by a secret.
const SECRET: &[u8] = b"a secret of the corpus, no more.";

/// The keys of the corpus, and all that they have signed.
static TRUSTED: LazyLock<(auth::Keys, HashSet<&str>)> = LazyLock::new(|| {
    let secret = auth::Key::secret(None, SECRET).unwrap();
    let signed = SIGNED.iter().map(|file| file.split_once('\n').unwrap());
    let (tokens, sets): (Vec<_>, Vec<_>) = signed.unzip();
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let published = auth::Keys::jwks(sets[1].as_bytes(), &algorithms).unwrap();
    let signed = tokens.iter().map(|token| token.rsplit_once('.').unwrap().0).collect();
    (published.and(secret), signed)
});

/// The first line is a token, the rest an issuer's key set or a PEM file. Nobody can make a token that
/// the trusted keys have not signed, and the claims of one that is good are the same wherever they
/// are kept.
pub fn jwt(bytes: &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
    let (token, rest) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let algorithms = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
    let published = auth::Keys::jwks(rest, &algorithms).unwrap_or_default();
    for algorithm in algorithms {
        let _ = auth::Key::pem(None, algorithm, rest);
    }
    let Ok(token) = std::str::from_utf8(token) else { return };
    let (trusted, signed) = &*TRUSTED;
    if auth::judge(token, trusted) {
        let bare = token.rsplit_once('.').unwrap().0;
        assert!(signed.contains(bare), "a forged token is let in");
    }
    auth::judge(token, &published);
}
