//! What the backend is told, and not asked: queued, bounded by number and bytes, sent a few at a time,
//! tried again for a while. What finds no room, or can't be told, is counted, never silently lost.
//!
//! While the backend is left alone notices wait; no try is used up.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use tracing::warn;

use super::call::{Caller, Failure, Letter};

/// Bytes of notices that may wait.
const MAX_BYTES: usize = 32 << 20;
/// What a notice costs beside its body.
const OVERHEAD: usize = 128;
/// How often one is sent.
const TRIES: u32 = 4;
/// Before the second try; then twice as long each time.
const PAUSE: Duration = Duration::from_millis(500);

/// The queue of notices; a cheap handle.
#[derive(Clone)]
pub(super) struct Notices(Arc<Shared>);

struct Shared {
    caller: Arc<Caller>,
    timeout: Duration,
    most: usize,
    room: Arc<Semaphore>,
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    letters: VecDeque<Letter>,
    bytes: usize,
    /// Taken from the queue, and neither told nor given up.
    out: usize,
}

impl Notices {
    pub(super) fn new(caller: Arc<Caller>, timeout: Duration, most: u32, at_a_time: u32) -> Self {
        let at_a_time = usize::try_from(at_a_time.max(1)).unwrap_or(1);
        Self(Arc::new(Shared {
            caller,
            timeout,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            room: Arc::new(Semaphore::new(at_a_time)),
            queue: Mutex::default(),
            filled: Notify::new(),
        }))
    }

    /// Queues a notice; one that finds no room is dropped and counted.
    pub(super) fn tell(&self, letter: Letter) {
        let Shared { caller, most, queue, filled, .. } = &*self.0;
        let cost = letter.body.len() + OVERHEAD;
        let mut queue = queue.lock();
        if queue.letters.len() >= *most || queue.bytes + cost > MAX_BYTES {
            drop(queue);
            return caller.metrics.count(letter.event, "dropped", 1);
        }
        queue.bytes += cost;
        queue.letters.push_back(letter);
        drop(queue);
        caller.metrics.waiting.inc();
        filled.notify_one();
    }

    /// Notices that are not told yet.
    pub(super) fn left(&self) -> usize {
        let queue = self.0.queue.lock();
        queue.letters.len() + queue.out
    }

    /// Sends what is queued, for as long as it is polled.
    pub(super) async fn run(self) {
        loop {
            let Ok(permit) = self.0.room.clone().acquire_owned().await else { return };
            let letter = loop {
                match self.take() {
                    Some(letter) => break letter,
                    None => self.0.filled.notified().await,
                }
            };
            let notices = self.clone();
            tokio::spawn(async move {
                notices.deliver(&letter).await;
                notices.0.queue.lock().out -= 1;
                drop(permit);
            });
        }
    }

    fn take(&self) -> Option<Letter> {
        let mut queue = self.0.queue.lock();
        let letter = queue.letters.pop_front()?;
        queue.bytes -= letter.body.len() + OVERHEAD;
        queue.out += 1;
        self.0.caller.metrics.waiting.dec();
        Some(letter)
    }

    async fn deliver(&self, letter: &Letter) {
        let Shared { caller, timeout, .. } = &*self.0;
        let (mut tries, mut pause) = (0, PAUSE);
        loop {
            let wait = caller.wait();
            if !wait.is_zero() {
                tokio::time::sleep(wait).await;
            }
            match caller.post(letter, Instant::now() + *timeout).await {
                Ok(said) if said.status.is_success() => {
                    return caller.metrics.count(letter.event, "delivered", 1);
                }
                // Another goes to see whether the backend is back.
                Err(Failure::Circuit) => {
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
                Ok(_) | Err(_) => tries += 1,
            }
            if tries >= TRIES {
                return caller.metrics.count(letter.event, "failed", 1);
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
    }

    /// Waits until everything is told, for `bound` at the most; how much is left is said.
    pub(super) async fn flush(&self, bound: Duration) {
        let emptied = async {
            while self.left() > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _ = tokio::time::timeout(bound, emptied).await;
        let left = self.left();
        if left > 0 {
            warn!(left, "the backend of webhooks was not told of everything");
        }
    }
}
