//! Why Redis can't be used: a word of a closed set for whoever asks this node, and a line for the log.
//! Neither has a word of the URL, nor of what Redis answered, which may quote what was sent.

use std::error::Error as _;
use std::fmt;

use redis::{ErrorKind, RedisError, ServerErrorKind};
use sluice_node_api::admin::RedisFailure;

/// One attempt that failed.
#[derive(Debug)]
pub struct Failure {
    pub(super) kind: RedisFailure,
    text: String,
}

impl Failure {
    pub(super) fn new(kind: RedisFailure, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    pub(super) fn late() -> Self {
        Self::new(RedisFailure::Silent, "no answer in time")
    }

    /// Redis ended the connection.
    pub(super) fn closed() -> Self {
        Self::new(RedisFailure::Unreachable, "closed")
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<RedisError> for Failure {
    fn from(error: RedisError) -> Self {
        // A Redis that wants a password says so to the first command, if none was sent.
        let locked = matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
        let kind = match error.kind() {
            _ if error.is_timeout() => RedisFailure::Silent,
            _ if locked => RedisFailure::Authentication,
            ErrorKind::AuthenticationFailed => RedisFailure::Authentication,
            ErrorKind::Server(ServerErrorKind::NoPerm) => RedisFailure::Permission,
            _ if error.is_connection_refusal() => RedisFailure::Refused,
            _ if unnamed(&error) => RedisFailure::Name,
            ErrorKind::Io => RedisFailure::Unreachable,
            _ => RedisFailure::Other,
        };
        Self::new(kind, format!("{kind:?} ({:?})", error.kind()))
    }
}

/// The standard library has no kind for a host without an address, only these words; nor can the error be
/// asked for its type, which is hidden behind the one that is shared.
fn unnamed(error: &RedisError) -> bool {
    let source = error.source().map(ToString::to_string);
    source.is_some_and(|told| told.starts_with("failed to lookup address information"))
}

#[cfg(test)]
mod tests {
    use std::net::ToSocketAddrs;

    use super::*;

    #[test]
    fn a_host_without_an_address_is_told_from_one_that_can_not_be_reached() {
        let unnamed = ("no such host", 6379).to_socket_addrs().unwrap_err();
        assert_eq!(Failure::from(RedisError::from(unnamed)).kind, RedisFailure::Name);
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(Failure::from(RedisError::from(broken)).kind, RedisFailure::Unreachable);
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        assert_eq!(Failure::from(RedisError::from(refused)).kind, RedisFailure::Refused);
    }

    #[test]
    fn nothing_that_redis_says_is_told() {
        let answers = [
            ("WRONGPASS", RedisFailure::Authentication),
            ("NOAUTH", RedisFailure::Authentication),
            ("NOPERM", RedisFailure::Permission),
            ("LOADING", RedisFailure::Other),
            ("SECRET", RedisFailure::Other),
        ];
        for (code, kind) in answers {
            let answer = format!("-{code} hunter2 is no password\r\n");
            let parsed =
                redis::parse_redis_value(answer.as_bytes()).and_then(|value| value.extract_error());
            let failure = Failure::from(parsed.unwrap_err());
            assert_eq!(failure.kind, kind, "{failure}");
            let text = failure.to_string();
            assert!(!text.contains("hunter2") && !text.contains("SECRET"), "{text}");
        }
    }
}
