//! How far one peer has been told, and what it has confirmed.

use std::sync::Arc;

use bytes::BytesMut;

use super::log::{Change, Log};
use crate::mesh::{handshake::Instance, words};
use words::What;

/// A link that the peer dials, and has asked to be told on.
pub(super) struct Link {
    pub(super) instance: Instance,
    at: At,
    /// The peer may be sending only what is wanted.
    filters: bool,
    /// As long as it filters: it sends what was wanted up to this number.
    sure: u64,
    /// Once this number is confirmed the peer sends everything.
    reset: Option<u64>,
}

enum At {
    /// Nothing has been told, or it has been taken back.
    Start,
    /// All that was wanted at `number` is being told.
    Topics { left: Vec<Arc<str>>, number: u64 },
    /// Everything up to `number` has been told; once the peer has been told the `whole`, it filters.
    Changes { number: u64, whole: bool },
}

/// What can be told.
pub(super) struct Source<'a> {
    pub(super) log: &'a Log,
    /// `None`: nothing is told, and peers send everything.
    pub(super) patterns: Option<Arc<[Arc<str>]>>,
    /// Bytes of one portion.
    pub(super) portion: usize,
}

impl Link {
    /// The peer has asked just now, and sends everything.
    pub(super) fn new(instance: Instance) -> Self {
        Self { instance, at: At::Start, filters: false, sure: 0, reset: None }
    }

    /// The number up to which what is wanted surely comes.
    pub(super) fn sure(&self) -> u64 {
        if self.filters { self.sure } else { u64::MAX }
    }

    /// The last number of which the log is not needed.
    pub(super) fn needs_after(&self) -> Option<u64> {
        match self.at {
            At::Start => None,
            At::Topics { number, .. } | At::Changes { number, .. } => Some(number),
        }
    }

    /// What was told up to `number` is in force at the peer.
    pub(super) fn confirm(&mut self, number: u64) {
        self.sure = self.sure.max(number);
        if self.reset.is_some_and(|reset| number >= reset) {
            self.reset = None;
            self.filters = false;
        }
    }

    /// Appends the next portion of what the peer is to be told, if there is any. `topics` lists all.
    pub(super) fn take(
        &mut self,
        source: &Source<'_>,
        topics: impl FnOnce() -> Vec<Arc<str>>,
        out: &mut BytesMut,
    ) {
        let last = source.log.last();
        let behind = self.needs_after().is_some_and(|number| !source.log.reaches(number));
        let Some(patterns) = &source.patterns else {
            if !matches!(self.at, At::Start) {
                self.take_back(last, out);
            }
            return;
        };
        if behind || matches!(self.at, At::Start) {
            self.take_back(last, out);
            put_names(out, What::Patterns, last, patterns);
            self.at = At::Topics { left: topics(), number: last };
        }
        match &mut self.at {
            At::Start => {}
            At::Topics { left, number } => {
                let mut room = source.portion;
                let fits = left.iter().rev().take_while(|topic| {
                    let first = room;
                    room = room.saturating_sub(topic.len() + 2);
                    first > 0
                });
                let fits = fits.count();
                let portion = left.split_off(left.len() - fits);
                put_names(out, What::On, *number, &portion);
                if left.is_empty() {
                    self.at = At::Changes { number: *number, whole: false };
                }
            }
            At::Changes { number, whole } => {
                let end = out.len() + source.portion;
                while out.len() < end
                    && let Some(change) = source.log.after(*number)
                {
                    *number = tell(change, source, *number, out);
                }
                // Not before the peer has been told everything up to now: what is wanted from here on
                // is waited for, what was wanted before was not.
                if *number == last && !*whole {
                    *whole = true;
                    words::put(out, What::Whole, last, std::iter::empty());
                    if !self.filters {
                        self.sure = self.sure.max(last);
                    }
                    (self.filters, self.reset) = (true, None);
                }
            }
        }
    }

    /// Has the peer send everything, and begins anew.
    fn take_back(&mut self, number: u64, out: &mut BytesMut) {
        words::put(out, What::Everything, number, std::iter::empty());
        self.reset = Some(number);
        self.at = At::Start;
    }
}

fn put_names(out: &mut BytesMut, what: What, number: u64, names: &[Arc<str>]) {
    words::put(out, what, number, names.iter().map(|one| &**one));
}

/// Appends the change after `number`, and those that follow if they are like it; the number of the last.
fn tell(change: &Change, source: &Source<'_>, mut number: u64, out: &mut BytesMut) -> u64 {
    let mut names: Vec<&str> = Vec::new();
    let what = match change {
        Change::Patterns(patterns) => {
            put_names(out, What::Patterns, number + 1, patterns);
            return number + 1;
        }
        Change::On(_) => What::On,
        Change::Off(_) => What::Off,
    };
    let mut room = source.portion;
    while room > 0 {
        match (what, source.log.after(number)) {
            (What::On, Some(Change::On(topic))) | (What::Off, Some(Change::Off(topic))) => {
                room = room.saturating_sub(topic.len() + 2);
                names.push(topic);
                number += 1;
            }
            _ => break,
        }
    }
    words::put(out, what, number, names.into_iter());
    number
}
