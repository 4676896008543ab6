//! `auth` of the configuration: what it must mean, and the keys that it names.

use sluice_node_api::auth::{Algorithm, Auth, Jwks, Jwt, JwtKey};
use sluice_node_api::config::JoinRule;

use super::check::{MAX_TEXT, Out};
use super::small_file;
use crate::auth::{Bearer, Key, Keys, Template};

/// Most keys, issuers and audiences.
const MAX_LIST: usize = 64;
/// Largest file of a key, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// Checks `auth`; files that it names are not looked at.
pub(super) fn check(auth: &Auth, out: &mut Out) {
    let Some(jwt) = &auth.jwt else { return };
    let keys = !jwt.keys.is_empty() || jwt.jwks.is_some();
    out.that("auth.jwt", keys, "needs `keys` or `jwks`: without a key nobody could connect");
    out.that("auth.jwt.keys", jwt.keys.len() <= MAX_LIST, "must be at most 64 keys");
    for (i, key) in jwt.keys.iter().enumerate().take(MAX_LIST) {
        check_key(&format!("auth.jwt.keys[{i}]"), key, out);
    }
    if let Some(jwks) = &jwt.jwks {
        check_jwks(jwks, out);
    }
    for (field, list) in [("issuers", &jwt.issuers), ("audiences", &jwt.audiences)] {
        let short = list.iter().all(|name| (1..=MAX_TEXT).contains(&name.len()));
        let ok = list.len() <= MAX_LIST && short;
        out.that(&format!("auth.jwt.{field}"), ok, "must be at most 64 names of 1 to 2048 bytes");
    }
    let leeway = jwt.leeway_seconds <= 3600;
    out.that("auth.jwt.leewaySeconds", leeway, "must be at most 3600");
    let param = (1..=64).contains(&jwt.param.len())
        && jwt.param.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && jwt.param != "vsn";
    out.that("auth.jwt.param", param, "must be a plain name of 1 to 64 bytes, and not `vsn`");
    if let Some(Err(reason)) = jwt.socket_id.as_deref().map(Template::parse) {
        out.add("auth.jwt.socketId", reason);
    }
    let claim = jwt.socket_id.as_deref().is_none_or(|id| id.contains('{') && id.len() <= 255);
    let must = "must name a claim, such as `users:{sub}`, in 255 bytes: one id for all is none";
    out.that("auth.jwt.socketId", claim, must);
}

fn check_key(at: &str, key: &JwtKey, out: &mut Out) {
    let secret = [&key.secret_file, &key.secret_env].into_iter().flatten().count();
    let public = usize::from(key.public_key_file.is_some());
    match key.algorithm {
        Algorithm::HS256 => {
            let must = "HS256 needs one of `secretFile` and `secretEnv`, and no `publicKeyFile`";
            out.that(at, (secret, public) == (1, 0), must);
        }
        other => {
            let must = format!("{other:?} needs `publicKeyFile`, and no secret");
            out.that(at, (secret, public) == (0, 1), &must);
        }
    }
}

fn check_jwks(jwks: &Jwks, out: &mut Out) {
    out.url("auth.jwt.jwks.url", &jwks.url);
    let secret = jwks.algorithms.contains(&Algorithm::HS256);
    let public = !jwks.algorithms.is_empty() && jwks.algorithms.len() <= 3 && !secret;
    let field = "auth.jwt.jwks.algorithms";
    out.that(field, public, "must be some of RS256, ES256 and EdDSA: a published key is no secret");
    for (field, value, range) in [
        ("refreshSeconds", jwks.refresh_seconds, 10..=86_400),
        ("unknownKidSeconds", jwks.unknown_kid_seconds, 1..=3600),
        // A connect waits for it, and may take ten.
        ("timeoutSeconds", jwks.timeout_seconds, 1..=8),
    ] {
        let must = format!("must be {} to {}", range.start(), range.end());
        out.that(&format!("auth.jwt.jwks.{field}"), range.contains(&value), &must);
    }
}

/// Checks who may join the topics of the rule at `at`.
pub(super) fn check_join(at: &str, join: Option<&JoinRule>, out: &mut Out) {
    let Some(join) = join else { return };
    let at = format!("{at}.join");
    let any = join.claim.is_some() || !join.topics.is_empty();
    out.that(&at, any, "needs `claim` or `topics`: without both nobody could join");
    let claim = join.claim.as_ref().is_none_or(|claim| (1..=255).contains(&claim.len()));
    out.that(&format!("{at}.claim"), claim, "must have 1 to 255 bytes");
    let topics = format!("{at}.topics");
    out.that(&topics, join.topics.len() <= 16, "must be at most 16 topics");
    for topic in join.topics.iter().take(16) {
        out.that(&topics, (1..=255).contains(&topic.len()), "a topic must have 1 to 255 bytes");
        let bare = topic.strip_suffix('*').unwrap_or(topic);
        out.that(&topics, !bare.contains('*'), "may have one `*`, as its last character");
        if let Err(reason) = Template::parse(bare) {
            out.add(&topics, reason);
        }
    }
}

/// Reads the keys. Gives what decides on connects, if anything does.
pub(super) fn load(auth: &Auth, problems: &mut Vec<(String, String)>) -> Option<Bearer> {
    let jwt = auth.jwt.as_ref()?;
    let before = problems.len();
    let mut keys = Vec::new();
    for (i, key) in jwt.keys.iter().enumerate() {
        match read_key(key) {
            Ok(key) => keys.push(key),
            Err((field, reason)) => problems.push((format!("auth.jwt.keys[{i}].{field}"), reason)),
        }
    }
    if problems.len() > before {
        return None;
    }
    match Bearer::new(Jwt::clone(jwt), Keys::new(keys)) {
        Ok(bearer) => Some(bearer),
        Err((field, reason)) => {
            problems.push((format!("auth.jwt.{field}"), reason));
            None
        }
    }
}

fn read_key(key: &JwtKey) -> Result<Key, (&'static str, String)> {
    let kid = key.kid.clone();
    match key {
        JwtKey { secret_file: Some(file), .. } => read(file)
            .and_then(|text| Key::secret(kid, bare(&text)).map_err(|e| format!("{file}: {e}")))
            .map_err(|reason| ("secretFile", reason)),
        JwtKey { secret_env: Some(name), .. } => std::env::var(name)
            .map_err(|_| format!("the environment has no {name}"))
            .and_then(|text| Key::secret(kid, bare(text.as_bytes())))
            .map_err(|reason| ("secretEnv", reason)),
        JwtKey { public_key_file: Some(file), .. } => read(file)
            .and_then(|text| Key::pem(kid, key.algorithm, &text).map_err(|e| format!("{file} {e}")))
            .map_err(|reason| ("publicKeyFile", reason)),
        _ => Err(("algorithm", "the key is nowhere".into())),
    }
}

fn read(file: &str) -> Result<Vec<u8>, String> {
    small_file::read(file, MAX_FILE).map_err(|e| format!("cannot read the key in {file}: {e}"))
}

/// Without the one newline, `\n` or `\r\n`, that an editor leaves at the end.
fn bare(text: &[u8]) -> &[u8] {
    let line = text.strip_suffix(b"\r\n").or_else(|| text.strip_suffix(b"\n"));
    line.unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::bare;

    #[test]
    fn one_newline_is_no_part_of_a_secret_and_nothing_else_is_cut() {
        for (text, want) in [
            ("secret", "secret"),
            ("secret\n", "secret"),
            ("secret\r\n", "secret"),
            ("secret\r", "secret\r"),
            ("secret\n\n", "secret\n"),
            ("secret\r\r\n", "secret\r"),
            ("secret \n", "secret "),
            ("\n", ""),
            ("", ""),
        ] {
            assert_eq!(bare(text.as_bytes()), want.as_bytes(), "{text:?}");
        }
    }
}
