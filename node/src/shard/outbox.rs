//! Frames that wait for one client: bounded by bytes and by age, never by count. Sans-I/O.

use std::{collections::VecDeque, io::IoSlice, rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::time::Instant;

use super::waiting::{Frame, Ledger, Loss, Waiting};

#[cfg(test)]
mod tests;

/// Bytes that may wait for a slow client that has a stream.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// So many frames may wait whatever their size; broadcasts are shared, so that they cost little.
const FEW: usize = 4;
/// How long a frame may wait for a slow client.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(10);
/// Frames in one `writev`.
pub(crate) const SLICES: usize = 64;

/// Why frames are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// There are too many.
    Bytes,
    /// They have waited for [`MAX_AGE`].
    Age,
    /// The last one of its topic and event waits too.
    Superseded,
    /// The node holds too much for its clients.
    Memory,
}

/// What was done about it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shed {
    /// Broadcasts dropped.
    pub(crate) dropped: u64,
    /// Something that must arrive has waited for [`MAX_AGE`].
    pub(crate) late: bool,
}

/// Frames that wait, oldest first; the first may be sent in part.
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    /// Bytes of the first frame that are sent.
    begun: usize,
    /// Bytes of all that are not.
    bytes: usize,
    /// Bytes that may wait.
    most: usize,
    /// Bytes sent, ever.
    sent: u64,
    /// The frame that `mark` bytes end with has waited since then at least.
    mark: Option<(u64, Instant)>,
    ledger: Rc<Ledger>,
}

impl Outbox {
    /// An empty one, in which `most` bytes may wait, and whose memory `ledger` counts.
    pub(crate) fn new(most: usize, ledger: Rc<Ledger>) -> Self {
        Self { frames: VecDeque::new(), begun: 0, bytes: 0, most, sent: 0, mark: None, ledger }
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        let before = self.room();
        self.frames.push_back(frame);
        self.resized(before);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether more waits than may.
    pub(crate) fn is_over(&self) -> bool {
        // Frames may be larger than the bound, and must be sendable.
        self.bytes > self.most && self.frames.len() > FEW
    }

    /// Bytes of memory that only this holds; of a frame that others wait for too, its part.
    pub(crate) fn weight(&self) -> usize {
        let frames = self.frames.iter().map(|frame| frame.size() / Rc::strong_count(frame));
        self.room() + frames.sum::<usize>()
    }

    /// Since when something has waited, as far as [`Outbox::is_stuck`] has noticed.
    pub(crate) fn since(&self) -> Option<Instant> {
        self.mark.filter(|(end, _)| self.sent < *end).map(|(_, since)| since)
    }

    /// The next frames to write, at most [`SLICES`].
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let (mut count, mut begun) = (0, self.begun);
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame.bytes[begun..]);
            begun = 0;
            count += 1;
        }
        count
    }

    /// `written` bytes are sent; gives how many frames that completes.
    pub(crate) fn advance(&mut self, written: usize) -> u64 {
        self.bytes -= written;
        self.sent += written as u64;
        let mut left = self.begun + written;
        let mut whole = 0;
        while let Some(first) = self.frames.front() {
            if left < first.bytes.len() {
                break;
            }
            left -= first.bytes.len();
            self.frames.pop_front();
            whole += 1;
        }
        self.begun = left;
        if self.frames.is_empty() {
            self.mark = None;
            // All room is given back: an idle socket has none, and nothing that stays behind keeps
            // the heap from shrinking.
            self.replace(VecDeque::new());
        }
        whole
    }

    /// Whether something has waited for [`MAX_AGE`]; to be asked now and then.
    pub(crate) fn is_stuck(&mut self, now: Instant) -> bool {
        if self.frames.is_empty() {
            return false;
        }
        match self.mark {
            Some((end, since)) if self.sent < end => now.duration_since(since) >= MAX_AGE,
            _ => {
                self.mark = Some((self.sent + self.bytes as u64, now));
                false
            }
        }
    }

    /// Drops broadcasts that may be dropped and are not begun, oldest first: down to a part of the
    /// bound, or all that have waited since the mark, or that the last frame supersedes. In the place
    /// of each topic's first stands one frame that `tell` makes of the topic and how many of its
    /// broadcasts are gone.
    pub(crate) fn shed(&mut self, excess: Excess, tell: impl Fn(&Arc<str>, u64) -> Bytes) -> Shed {
        let marked = self.mark.map_or(self.sent, |(end, _)| end);
        // Where the first frame begins: it may be sent in part.
        let (mut shed, mut at) = (Shed::default(), self.sent - self.begun as u64);
        // Where in `kept` the frames are that tell, and how many have waited since the mark.
        let (mut gaps, mut old) = (SmallVec::<[(usize, Arc<str>, u64); 2]>::new(), 0);
        let mut left = self.frames.len();
        let last = left.saturating_sub(1);
        let newest = self.frames.back().cloned();
        let superseded = |frame: &Frame| match (&frame.loss, newest.as_deref().map(|f| &f.loss)) {
            (Loss::Latest(topic, event), Some(Loss::Latest(last_topic, last_event))) => {
                (topic, event) == (last_topic, last_event)
            }
            _ => false,
        };
        let before = self.room();
        // A part is left free, so that not every one that comes drops another.
        let low = self.most / 4 * 3;
        let mut kept = VecDeque::with_capacity(left);
        for (i, frame) in std::mem::take(&mut self.frames).into_iter().enumerate() {
            let begun = i == 0 && self.begun > 0;
            at += frame.bytes.len() as u64;
            let is_old = at <= marked;
            let unwanted = match excess {
                Excess::Bytes => self.bytes > low && left > FEW,
                // A state is of worth however long it waits.
                Excess::Age => is_old && !matches!(frame.loss, Loss::Latest(..)),
                Excess::Superseded => i < last && superseded(&frame),
                Excess::Memory => true,
            };
            let gap = match &frame.loss {
                Loss::Broadcast(topic) | Loss::Latest(topic, _) if unwanted && !begun => {
                    Some((topic, 1))
                }
                Loss::Told(topic, count) if !begun => Some((topic, *count)),
                _ => None,
            };
            let Some((topic, count)) = gap else {
                shed.late |= is_old && matches!(frame.loss, Loss::Never);
                kept.push_back(frame);
                if is_old {
                    old = kept.len();
                }
                continue;
            };
            self.bytes -= frame.bytes.len();
            left -= 1;
            shed.dropped += u64::from(!matches!(frame.loss, Loss::Told(..)));
            match gaps.iter_mut().find(|(_, of, _)| of == topic) {
                Some((_, _, sum)) => *sum += count,
                None => {
                    gaps.push((kept.len(), topic.clone(), count));
                    // It keeps the place.
                    kept.push_back(frame);
                    left += 1;
                }
            }
        }
        for (at, topic, count) in gaps {
            let bytes = tell(&topic, count);
            self.bytes += bytes.len();
            kept[at] = Waiting::new(&self.ledger, bytes, Loss::Told(topic, count));
        }
        let ends = kept.iter().take(old).map(|frame| frame.bytes.len() as u64).sum::<u64>();
        let end = self.sent - self.begun as u64 + ends;
        self.mark = self.mark.filter(|_| shed.late).map(|(_, since)| (end, since));
        if excess == Excess::Memory {
            kept.shrink_to_fit();
        }
        self.frames = kept;
        self.resized(before);
        shed
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> VecDeque<Frame> {
        (self.begun, self.bytes, self.mark) = (0, 0, None);
        self.replace(VecDeque::new())
    }

    /// Drops what is not begun; gives how many frames that were.
    pub(crate) fn clear(&mut self) -> u64 {
        let keep = usize::from(self.begun > 0);
        let dropped = self.frames.len().saturating_sub(keep) as u64;
        let kept: VecDeque<_> = self.frames.iter().take(keep).cloned().collect();
        self.bytes = kept.iter().map(|frame| frame.bytes.len()).sum::<usize>() - self.begun;
        self.replace(kept);
        dropped
    }

    fn room(&self) -> usize {
        self.frames.capacity() * size_of::<Frame>()
    }

    /// There was so much room for frames, and may be more or less now.
    fn resized(&self, before: usize) {
        self.ledger.change(before, self.room());
    }

    fn replace(&mut self, frames: VecDeque<Frame>) -> VecDeque<Frame> {
        let before = self.room();
        let old = std::mem::replace(&mut self.frames, frames);
        self.resized(before);
        old
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.ledger.change(self.room(), 0);
    }
}
