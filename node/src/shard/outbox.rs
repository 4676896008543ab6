//! Frames that wait for one socket: bounded by bytes and by age, never by count. Sans-I/O.

use std::{collections::VecDeque, io::IoSlice, time::Duration};

use bytes::{Buf, Bytes};
use tokio::time::Instant;

/// Bytes that may wait for a slow client.
pub(crate) const MAX_BYTES: usize = 256 << 10;
/// So many frames may wait whatever their size; broadcasts are shared, so that they cost little.
const FEW: usize = 4;
/// How long a frame may wait for a slow client.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(10);
/// Frames in one `writev`.
pub(crate) const SLICES: usize = 64;

/// Frames that wait, oldest first; the first may be sent in part.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    frames: VecDeque<Bytes>,
    bytes: usize,
    /// Bytes sent, ever.
    sent: u64,
    /// The frame that `mark` bytes end with has waited since then at least.
    mark: Option<(u64, Instant)>,
    torn: bool,
}

impl Outbox {
    pub(crate) fn push(&mut self, frame: Bytes) {
        self.bytes += frame.len();
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
            *slice = IoSlice::new(frame);
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
        while let Some(first) = self.frames.front_mut() {
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

    /// Takes everything.
    pub(crate) fn take(&mut self) -> Vec<Bytes> {
        std::mem::take(self).frames.into()
    }

    /// Drops what is not begun; gives how many frames that were.
    pub(crate) fn clear(&mut self) -> u64 {
        let keep = usize::from(self.torn);
        let dropped = self.frames.len().saturating_sub(keep) as u64;
        self.frames.truncate(keep);
        self.bytes = self.frames.iter().map(Bytes::len).sum();
        dropped
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn outbox(frames: &[usize]) -> Outbox {
        let mut outbox = Outbox::default();
        frames.iter().for_each(|len| outbox.push(Bytes::from(vec![0; *len])));
        outbox
    }

    #[tokio::test(start_paused = true)]
    async fn what_waits_is_bounded_by_bytes_and_age() {
        let mut outbox = outbox(&[MAX_BYTES, 1, 1, 1]);
        assert!(!outbox.is_over(), "a few large frames may be sent");
        outbox.push(Bytes::from_static(b"x"));
        assert!(outbox.is_over());
        let start = Instant::now();
        assert!(!outbox.is_stuck(start));
        assert!(!outbox.is_stuck(start + MAX_AGE / 2));
        assert!(outbox.is_stuck(start + MAX_AGE));
        outbox.advance(MAX_BYTES + 4);
        assert!(!outbox.is_stuck(start + MAX_AGE * 2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_that_keeps_up_is_not_stuck() {
        let mut outbox = outbox(&[10, 10]);
        let start = Instant::now();
        for second in 0..60 {
            outbox.push(Bytes::from_static(b"0123456789"));
            outbox.advance(10);
            assert!(!outbox.is_stuck(start + Duration::from_secs(second)));
        }
    }

    #[test]
    fn clearing_keeps_a_frame_that_is_sent_in_part() {
        let mut outbox = outbox(&[10, 10, 10]);
        assert_eq!(outbox.advance(13), 1);
        assert_eq!(outbox.clear(), 1);
        assert_eq!(outbox.bytes, 7);
        outbox.advance(7);
        assert_eq!(outbox.clear(), 0);
        assert!(outbox.is_empty());
    }

    proptest! {
        #[test]
        fn every_byte_is_sent_once(lens in proptest::collection::vec(1usize..50, 1..100), step in 1usize..200) {
            let mut outbox = Outbox::default();
            let mut want = Vec::new();
            for (i, len) in lens.iter().enumerate() {
                want.extend(vec![i as u8; *len]);
                outbox.push(Bytes::from(vec![i as u8; *len]));
            }
            let (mut got, mut whole) = (Vec::new(), 0);
            while !outbox.is_empty() {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = outbox.slices(&mut slices);
                let bytes: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).take(step).collect();
                let written = bytes.len();
                got.extend(bytes);
                whole += outbox.advance(written);
            }
            prop_assert_eq!((got, whole, outbox.bytes), (want, lens.len() as u64, 0));
        }
    }
}
