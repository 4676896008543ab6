//! The last changes of what this node wants, in order and numbered, for all peers together.

use std::{collections::VecDeque, sync::Arc};

/// What an idle log may hold on to.
const ROOM: usize = 256;

/// What has changed.
pub(super) enum Change {
    On(Arc<str>),
    Off(Arc<str>),
    Patterns(Arc<[Arc<str>]>),
}

/// Numbers begin with 1. Those before the first that is kept are for nobody any more: who has not taken
/// them is told everything anew.
#[derive(Default)]
pub(super) struct Log {
    changes: VecDeque<Change>,
    /// The number of the last change before those that are kept.
    before: u64,
}

impl Log {
    /// The number of the last change.
    pub(super) fn last(&self) -> u64 {
        self.before + self.changes.len() as u64
    }

    /// Whether every change after `number` is kept.
    pub(super) fn reaches(&self, number: u64) -> bool {
        number >= self.before
    }

    /// The change after `number`.
    pub(super) fn after(&self, number: u64) -> Option<&Change> {
        let at = usize::try_from(number.checked_sub(self.before)?).ok()?;
        self.changes.get(at)
    }

    /// Appends a change, and drops the oldest past `most`; its number.
    pub(super) fn push(&mut self, change: Change, most: usize) -> u64 {
        self.changes.push_back(change);
        if self.changes.len() > most {
            self.trim(self.last() - most as u64);
        }
        self.last()
    }

    /// Counts a change that nobody is to be told of by itself, nor those before; its number.
    pub(super) fn skip(&mut self) -> u64 {
        self.trim(self.last());
        self.before += 1;
        self.before
    }

    /// Drops what is not after `number`.
    pub(super) fn trim(&mut self, number: u64) {
        while self.before < number && self.changes.pop_front().is_some() {
            self.before += 1;
        }
        if self.changes.is_empty() && self.changes.capacity() > ROOM {
            self.changes = VecDeque::new();
        }
    }
}
