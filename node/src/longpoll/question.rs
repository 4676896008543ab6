//! What is asked of a session, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::body::Posted;

/// What is asked of a session.
pub(crate) enum Question {
    /// What there is to say, now or within a time.
    Poll(Duration),
    /// Take these messages, within a time.
    Post(Vec<Posted>, Duration),
}

impl Question {
    /// How long the session may take.
    pub(super) fn window(&self) -> Duration {
        match self {
            Self::Poll(window) | Self::Post(_, window) => *window,
        }
    }
}

/// What a session answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Messages, oldest first; none when the time is over.
    Messages(Vec<String>),
    /// The messages are taken.
    Taken,
    /// They were not in time (`P-LP-4`).
    Late,
    /// There is no such session.
    Gone,
    /// They are too many bytes for another node; no other says so.
    TooLarge,
}
