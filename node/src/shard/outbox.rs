//! Frames that wait for one socket: bounded by bytes and by age, never by count. Sans-I/O.

use std::{collections::VecDeque, io::IoSlice, sync::Arc, time::Duration};

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::fanout::Fanout;

#[cfg(test)]
mod tests;

/// Bytes that may wait for a slow client.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// Bytes down to which broadcasts are dropped: so that not every one that comes drops another.
const LOW_BYTES: usize = MAX_BYTES / 4 * 3;
/// So many frames may wait whatever their size; broadcasts are shared, so that they cost little.
const FEW: usize = 4;
/// How long a frame may wait for a slow client.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(10);
/// Frames in one `writev`.
pub(crate) const SLICES: usize = 64;

/// A frame that waits.
pub(crate) struct Frame {
    pub(crate) bytes: Bytes,
    pub(crate) loss: Loss,
}

/// What a frame is worth to a client that is slow.
pub(crate) enum Loss {
    /// It must arrive.
    Never,
    /// A broadcast that may be dropped.
    Broadcast(Arc<Fanout>),
    /// The same, and of no worth when a later one of its topic and event waits too.
    Latest(Arc<Fanout>),
    /// Tells of broadcasts that were.
    Told(Box<Gap>),
}

/// Broadcasts of a topic that were dropped.
pub(crate) struct Gap {
    topic: Arc<str>,
    count: u64,
}

/// Why frames are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Excess {
    /// There are too many.
    Bytes,
    /// They have waited for [`MAX_AGE`].
    Age,
    /// The last one of its topic and event waits too.
    Superseded,
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
#[derive(Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Frame>,
    bytes: usize,
    /// Bytes sent, ever.
    sent: u64,
    /// The frame that `mark` bytes end with has waited since then at least.
    mark: Option<(u64, Instant)>,
    torn: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Frame) {
        self.bytes += frame.bytes.len();
        self.frames.push_back(frame);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Whether more waits than may.
    pub(crate) fn is_over(&self) -> bool {
        // Frames may be larger than the bound, and must be sendable.
        self.bytes > MAX_BYTES && self.frames.len() > FEW
    }

    /// The next frames to write, at most [`SLICES`].
    pub(crate) fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>; SLICES]) -> usize {
        let mut count = 0;
        for (slice, frame) in slices.iter_mut().zip(&self.frames) {
            *slice = IoSlice::new(&frame.bytes);
            count += 1;
        }
        count
    }

    /// `written` bytes are sent; gives how many frames that completes.
    pub(crate) fn advance(&mut self, written: usize) -> u64 {
        self.bytes -= written;
        self.sent += written as u64;
        let mut left = written;
        let mut whole = 0;
        while let Some(Frame { bytes: first, .. }) = self.frames.front_mut() {
            if left < first.len() {
                first.advance(left);
                self.torn |= left > 0;
                break;
            }
            left -= first.len();
            self.frames.pop_front();
            self.torn = false;
            whole += 1;
        }
        if self.frames.is_empty() {
            self.mark = None;
            // All room is given back: an idle socket has none, and nothing that stays behind keeps
            // the heap from shrinking.
            self.frames = VecDeque::new();
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
        let (mut shed, mut at) = (Shed::default(), self.sent);
        // Where in `kept` the frames are that tell, and how many have waited since the mark.
        let (mut gaps, mut old) = (SmallVec::<[(usize, Gap); 2]>::new(), 0);
        let mut left = self.frames.len();
        let last = left.saturating_sub(1);
        let latest = match self.frames.back().map(|frame| &frame.loss) {
            Some(Loss::Latest(latest)) => Some(latest.clone()),
            _ => None,
        };
        let superseded = |frame: &Frame| match (&frame.loss, &latest) {
            (Loss::Latest(one), Some(latest)) => {
                (one.topic(), one.event()) == (latest.topic(), latest.event())
            }
            _ => false,
        };
        let mut kept = VecDeque::with_capacity(left);
        for (i, frame) in std::mem::take(&mut self.frames).into_iter().enumerate() {
            let begun = i == 0 && self.torn;
            at += frame.bytes.len() as u64;
            let is_old = at <= marked;
            let unwanted = match excess {
                Excess::Bytes => self.bytes > LOW_BYTES && left > FEW,
                // A state is of worth however long it waits.
                Excess::Age => is_old && !matches!(frame.loss, Loss::Latest(_)),
                Excess::Superseded => i < last && superseded(&frame),
            };
            let gap = match &frame.loss {
                Loss::Broadcast(from) | Loss::Latest(from) if unwanted && !begun => {
                    Some((from.topic(), 1))
                }
                Loss::Told(gap) if !begun => Some((&gap.topic, gap.count)),
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
            shed.dropped += u64::from(!matches!(frame.loss, Loss::Told(_)));
            match gaps.iter_mut().find(|(_, gap)| gap.topic == *topic) {
                Some((_, gap)) => gap.count += count,
                None => {
                    gaps.push((kept.len(), Gap { topic: topic.clone(), count }));
                    kept.push_back(Frame { bytes: Bytes::new(), loss: Loss::Never });
                    left += 1;
                }
            }
        }
        for (at, gap) in gaps {
            let bytes = tell(&gap.topic, gap.count);
            self.bytes += bytes.len();
            kept[at] = Frame { bytes, loss: Loss::Told(Box::new(gap)) };
        }
        let ends = kept.iter().take(old).map(|frame| frame.bytes.len() as u64).sum::<u64>();
        self.mark = self.mark.filter(|_| shed.late).map(|(_, since)| (self.sent + ends, since));
        self.frames = kept;
        shed
    }

    /// Takes everything.
    pub(crate) fn take(&mut self) -> Vec<Frame> {
        std::mem::take(self).frames.into()
    }

    /// Drops what is not begun; gives how many frames that were.
    pub(crate) fn clear(&mut self) -> u64 {
        let keep = usize::from(self.torn);
        let dropped = self.frames.len().saturating_sub(keep) as u64;
        self.frames.truncate(keep);
        self.bytes = self.frames.iter().map(|frame| frame.bytes.len()).sum();
        dropped
    }
}
