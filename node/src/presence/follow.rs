//! How far one other node is followed: in order while nothing is missing, and by portions of
//! everything when something is. Pure.
//!
//! Nothing of what is gathered shows before all of it is there: a node that is lost in the middle
//! leaves nothing half.

use std::{
    collections::HashMap,
    mem,
    time::{Duration, Instant},
};

use super::state::{Change, Cursor, Portion, Word};

/// How often the same node is asked.
pub(super) const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Changes that are kept while everything is gathered; past it the gathering begins anew.
const MAX_LATER: usize = 100_000;

/// One other node.
#[derive(Debug)]
pub(super) struct Followed {
    /// The number of the last change; `None` before everything was there once.
    at: Option<u64>,
    pub(super) heard: Instant,
    asked: Option<Instant>,
    gathering: Option<Gathering>,
}

/// What follows from a word.
#[derive(Debug)]
pub(super) enum Heard {
    /// Nothing.
    Old,
    /// These are the changes since the last ones.
    Changes(Vec<Change>),
    /// This is all that the node tracks.
    Everything(Vec<Change>),
    /// Something is missing: say this to it.
    Answer(Word),
}

/// Portions of everything, and what changed since the first of them was made.
#[derive(Debug)]
struct Gathering {
    at: u64,
    portions: Vec<Change>,
    later: Vec<Change>,
}

impl Gathering {
    fn cursor(&self) -> Option<Cursor> {
        self.portions.last().map(Change::cursor)
    }

    /// Everything as it is now. A portion that was made after a change has it already, which does
    /// no harm: the last change of a presence is what it is.
    fn whole(self) -> Vec<Change> {
        let mut all = HashMap::new();
        for change in self.portions.into_iter().chain(self.later) {
            let id = (change.topic.clone(), change.cursor());
            match change.joined {
                Some(_) => drop(all.insert(id, Change { left: None, ..change })),
                None => drop(all.remove(&id)),
            }
        }
        all.into_values().collect()
    }
}

impl Followed {
    /// Not heard of before.
    pub(super) fn new(now: Instant) -> Self {
        Self { at: None, heard: now, asked: None, gathering: None }
    }

    /// Takes a word of the node.
    pub(super) fn hear(&mut self, word: Word, now: Instant) -> Heard {
        self.heard = now;
        match word {
            Word::Portion(portion) => self.gather(portion, now),
            Word::Delta(number, changes) => self.change(number, changes, now),
            Word::Beat(number) => self.beat(number, now),
            Word::Ask | Word::More(_) => Heard::Old,
        }
    }

    fn gather(&mut self, portion: Portion, now: Instant) -> Heard {
        let Portion { number, after, changes, more } = portion;
        let mut gathering = match (after, self.gathering.take()) {
            (None, _) => Gathering { at: number, portions: Vec::new(), later: Vec::new() },
            (Some(after), Some(known)) if known.cursor().as_ref() == Some(&after) => known,
            // It was asked for twice.
            (Some(_), known) => {
                self.gathering = known;
                return Heard::Old;
            }
        };
        if number != gathering.at || more && changes.is_empty() {
            return self.ask(now);
        }
        gathering.portions.extend(changes);
        if let Some(cursor) = gathering.cursor().filter(|_| more) {
            self.gathering = Some(gathering);
            self.asked = Some(now);
            return Heard::Answer(Word::More(cursor));
        }
        (self.at, self.asked) = (Some(number), None);
        Heard::Everything(gathering.whole())
    }

    fn change(&mut self, number: u64, changes: Vec<Change>, now: Instant) -> Heard {
        let at = self.gathering.as_ref().map(|gathering| gathering.at).or(self.at);
        match at {
            Some(at) if number <= at => return Heard::Old,
            Some(at) if number == at + 1 => {}
            _ => return self.ask(now),
        }
        let Some(gathering) = &mut self.gathering else {
            self.at = Some(number);
            return Heard::Changes(changes);
        };
        gathering.at = number;
        gathering.later.extend(changes);
        if gathering.later.len() > MAX_LATER {
            return self.ask(now);
        }
        Heard::Old
    }

    fn beat(&mut self, number: u64, now: Instant) -> Heard {
        match &self.gathering {
            Some(known) if number <= known.at => match known.cursor() {
                Some(cursor) if self.may_ask(now) => {
                    self.asked = Some(now);
                    Heard::Answer(Word::More(cursor))
                }
                _ => Heard::Old,
            },
            None if self.at.is_some_and(|at| number <= at) => Heard::Old,
            _ => self.ask(now),
        }
    }

    fn may_ask(&self, now: Instant) -> bool {
        self.asked.is_none_or(|at| now.duration_since(at) >= ASK_AGAIN)
    }

    /// Begins anew.
    fn ask(&mut self, now: Instant) -> Heard {
        drop(mem::take(&mut self.gathering));
        if !self.may_ask(now) {
            return Heard::Old;
        }
        self.asked = Some(now);
        Heard::Answer(Word::Ask)
    }
}
