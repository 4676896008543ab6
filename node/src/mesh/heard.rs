//! What one peer wants, as it has told on the link that this node dials to it. Asked for each
//! broadcast; without I/O.
//!
//! Until a peer has told all of it, and whenever that is in doubt, it is sent everything: a
//! broadcast too many costs something, one too few is lost. What was told holds for one link; the next
//! begins anew.
//!
//! Topics are kept as numbers, so that a peer costs little however long their names are. Two
//! that share a number are counted, and cost a broadcast too many at the worst.

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState},
};

use parking_lot::RwLock;

use super::words::{What, Words};
use crate::message::matches;

/// Most topics of a peer; past that it is sent everything.
pub(super) const MAX_TOPICS: usize = 1 << 18;
/// Most patterns; a live configuration has fewer.
pub(super) const MAX_PATTERNS: usize = 1024;

/// What a topic is known by: the same for all peers, so that it is made once a broadcast.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

/// Makes marks. Its keys are random: nobody can choose two topics that share one.
#[derive(Default)]
pub(super) struct Marker(RandomState);

impl Marker {
    pub(super) fn mark(&self, topic: &str) -> Mark {
        Mark(self.0.hash_one(topic))
    }
}

/// A mark is a hash already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// What a peer wants.
#[derive(Default)]
pub(super) struct Heard(RwLock<State>);

#[derive(Default)]
struct State {
    /// All has been told.
    whole: bool,
    /// It is too much, or not understood: of no use until it is told anew.
    spoilt: bool,
    topics: HashMap<u64, u32, BuildHasherDefault<AsItIs>>,
    patterns: Vec<Box<str>>,
}

impl Heard {
    /// Whether a broadcast is to be sent to the peer.
    pub(super) fn wants(&self, topic: &str, mark: Mark) -> bool {
        let state = self.0.read();
        !state.whole
            || state.topics.contains_key(&mark.0)
            || state.patterns.iter().any(|pattern| matches(pattern, topic))
    }

    /// Forgets everything: a link begins, or has ended.
    pub(super) fn reset(&self) {
        *self.0.write() = State::default();
    }

    /// How many topics are known, none while everything is sent.
    pub(super) fn topics(&self) -> Option<usize> {
        let state = self.0.read();
        state.whole.then(|| state.topics.len())
    }

    /// Takes in what the peer says. If it is sent everything because of that, the reason.
    pub(super) fn hear(&self, words: &Words, marker: &Marker) -> Option<&'static str> {
        // Broadcasts wait for this lock: what takes time is done before.
        let marks: Vec<u64> = match words.what {
            What::On | What::Off => {
                words.names().take(MAX_TOPICS + 1).map(|topic| marker.mark(topic).0).collect()
            }
            _ => Vec::new(),
        };
        let too_many = marks.len() > MAX_TOPICS;
        let mut state = self.0.write();
        if words.what == What::Everything {
            let was_whole = state.whole;
            *state = State::default();
            return was_whole.then_some("told");
        }
        if state.spoilt {
            return None;
        }
        match words.what {
            What::On => marks.into_iter().for_each(|mark| {
                let count = state.topics.entry(mark).or_default();
                *count = count.saturating_add(1);
            }),
            What::Off => marks.into_iter().for_each(|mark| state.leave(mark)),
            What::Patterns => {
                state.patterns = words.names().take(MAX_PATTERNS + 1).map(Into::into).collect();
            }
            What::Whole => state.whole = true,
            What::Unknown => return Some(state.spoil("unknown")),
            What::Everything => {}
        }
        if too_many || state.topics.len() > MAX_TOPICS || state.patterns.len() > MAX_PATTERNS {
            return Some(state.spoil("topics"));
        }
        None
    }
}

impl State {
    fn leave(&mut self, mark: u64) {
        let Some(count) = self.topics.get_mut(&mark) else { return };
        *count -= 1;
        if *count == 0 {
            self.topics.remove(&mark);
        }
        if self.topics.len() * 8 < self.topics.capacity() {
            self.topics.shrink_to(self.topics.len() * 2);
        }
    }

    fn spoil(&mut self, reason: &'static str) -> &'static str {
        *self = Self { spoilt: true, ..Self::default() };
        reason
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec::{Frame, decode};
    use super::super::words::put;
    use super::*;
    use bytes::BytesMut;

    #[derive(Default)]
    struct Peer {
        heard: Heard,
        marker: Marker,
    }

    impl Peer {
        fn hears(&self, what: What, names: &[&str]) -> Option<&'static str> {
            let mut out = BytesMut::new();
            put(&mut out, what, 1, names.iter().copied());
            let Ok(Some(Frame::Interest(words))) = decode(&mut out) else { panic!("no words") };
            self.heard.hear(&words, &self.marker)
        }

        fn wants(&self, topic: &str) -> bool {
            self.heard.wants(topic, self.marker.mark(topic))
        }
    }

    #[test]
    fn everything_is_sent_until_all_is_told_and_again_on_the_next_link() {
        let peer = Peer::default();
        peer.hears(What::On, &["a"]);
        peer.hears(What::Patterns, &["room:*", "lobby"]);
        assert!(peer.wants("a") && peer.wants("b"));
        peer.hears(What::Whole, &[]);
        let wanted = ["a", "b", "room:1", "lobby", "lobby2"].map(|topic| peer.wants(topic));
        assert_eq!(wanted, [true, false, true, true, false]);
        peer.hears(What::Patterns, &["lobby"]);
        peer.hears(What::Off, &["a", "never"]);
        assert_eq!(["a", "room:1", "lobby"].map(|topic| peer.wants(topic)), [false, false, true]);
        assert_eq!(peer.hears(What::Everything, &[]), Some("told"));
        assert_eq!(peer.hears(What::Everything, &[]), None);
        assert!(peer.wants("a"));
        peer.hears(What::Whole, &[]);
        assert_eq!((peer.wants("a"), peer.heard.topics()), (false, Some(0)));
        peer.heard.reset();
        assert_eq!((peer.wants("a"), peer.heard.topics()), (true, None));
    }

    #[test]
    fn what_is_not_understood_or_too_much_has_everything_sent_until_it_is_told_anew() {
        let peer = Peer::default();
        peer.hears(What::Whole, &[]);
        assert_eq!(peer.hears(What::Unknown, &[]), Some("unknown"));
        peer.hears(What::Whole, &[]);
        assert!(peer.wants("a"));
        peer.hears(What::Everything, &[]);
        peer.hears(What::Whole, &[]);
        assert!(!peer.wants("a"));
        let names: Vec<String> = (0..=MAX_TOPICS).map(|n| n.to_string()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        assert_eq!(peer.hears(What::On, &names[1..]), None);
        assert_eq!(peer.heard.topics(), Some(MAX_TOPICS));
        assert_eq!(peer.hears(What::On, &names[..1]), Some("topics"));
        assert!(peer.wants("a") && peer.heard.0.read().topics.capacity() == 0);
        peer.hears(What::Everything, &[]);
        assert_eq!(
            peer.hears(What::On, &vec!["a"; MAX_TOPICS + 1]),
            Some("topics"),
            "in one frame"
        );
        let patterns = vec!["p"; MAX_PATTERNS + 1];
        peer.hears(What::Everything, &[]);
        assert_eq!(peer.hears(What::Patterns, &patterns), Some("topics"));
    }

    #[test]
    fn topics_that_share_a_mark_are_counted() {
        let peer = Peer::default();
        peer.hears(What::Whole, &[]);
        peer.hears(What::On, &["a"]);
        peer.hears(What::On, &["a"]);
        peer.hears(What::Off, &["a"]);
        assert!(peer.wants("a"), "the other of the two");
        peer.hears(What::Off, &["a"]);
        assert!(!peer.wants("a"));
    }
}
