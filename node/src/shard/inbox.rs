//! What other threads hand to a shard. Bounded: past the bound broadcasts and sockets are refused,
//! and the caller counts them.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::{fanout::Fanout, table::Slot};
use crate::{
    channel::{Payload, session::Key},
    handshake::Opening,
    hub::{TopicCount, TopicQuery},
    longpoll::Posted,
    message::{Body, Outgoing},
};

const MAX_BYTES: usize = 16 << 20;
const MAX_TASKS: usize = 65_536;

/// Where a channel of a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    pub(crate) shard: u16,
    pub(crate) slot: Slot,
    /// Tells the socket from an earlier one in the same slot.
    pub(crate) id: u64,
    /// Tells the channel from others of the socket.
    pub(crate) key: Key,
}

impl Address {
    /// As presence knows the channel.
    pub(crate) fn owner(self) -> (u16, u64, u64) {
        (self.shard, self.id, self.key)
    }
}

/// What a channel says to its transport.
pub(crate) enum Said {
    /// Send this to the client.
    Send(Outgoing),
    /// The join is accepted.
    Joined(Payload),
    /// The join is refused.
    Refused(Payload),
    /// The channel ends gracefully.
    Close,
    /// The channel has ended, however.
    Ended,
}

/// One thing to do.
pub(crate) enum Task {
    /// Serve a new connection.
    Socket(TcpStream, SocketAddr),
    /// Deliver to the subscribers here.
    Fanout(Arc<Fanout>),
    /// A channel has spoken.
    Said(Address, Said),
    /// Open a long-poll session and tell its place.
    OpenPoll(Box<Opening>, oneshot::Sender<(Slot, u64)>),
    /// Answer a poll.
    Poll((Slot, u64), oneshot::Sender<Vec<String>>),
    /// Take what was posted, and tell when it is done.
    Post((Slot, u64), Vec<Posted>, oneshot::Sender<()>),
    /// Drop the sender when the session ends: something for it is being read.
    Uploads((Slot, u64), oneshot::Sender<()>),
    /// Close so many sockets with 1012, counting them.
    Close(u64, Arc<AtomicU64>),
    /// Count the subscribers of topics.
    Topics(TopicQuery, oneshot::Sender<Vec<TopicCount>>),
}

impl Task {
    fn bytes(&self) -> usize {
        match self {
            Self::Fanout(fanout) => fanout.len(),
            Self::Said(_, Said::Send(message)) => match &message.body {
                Body::Reply(_, _, payload) | Body::Event(_, _, payload) => payload.len(),
            },
            Self::Post(_, messages, _) => messages.iter().map(|one| one.bytes.len()).sum(),
            Self::Socket(..) | Self::Close(..) | Self::Said(..) => 0,
            Self::OpenPoll(..) | Self::Poll(..) | Self::Uploads(..) | Self::Topics(..) => 0,
        }
    }

    /// Whether it finds room always: the callers are few and relieve the node, or it is one of the
    /// few turns in the life of a channel.
    fn is_urgent(&self) -> bool {
        match self {
            Self::Close(..) => true,
            Self::Said(_, said) => !matches!(said, Said::Send(_)),
            Self::Socket(..) | Self::Fanout(_) | Self::Topics(..) => false,
            Self::OpenPoll(..) | Self::Poll(..) | Self::Uploads(..) | Self::Post(..) => false,
        }
    }
}

/// A queue with one reader.
#[derive(Default)]
pub(crate) struct Inbox {
    queue: Mutex<Queue>,
    filled: Notify,
}

#[derive(Default)]
struct Queue {
    tasks: Vec<Task>,
    bytes: usize,
}

impl Inbox {
    /// Queues `task`, unless the inbox is full.
    pub(crate) fn push(&self, task: Task) -> bool {
        let mut queue = self.queue.lock();
        let full = queue.bytes >= MAX_BYTES || queue.tasks.len() >= MAX_TASKS;
        if full && !task.is_urgent() {
            return false;
        }
        queue.bytes += task.bytes();
        queue.tasks.push(task);
        let first = queue.tasks.len() == 1;
        drop(queue);
        if first {
            self.filled.notify_one();
        }
        true
    }

    /// Moves everything into `tasks`, which is empty.
    pub(crate) fn take(&self, tasks: &mut Vec<Task>) {
        let mut queue = self.queue.lock();
        queue.bytes = 0;
        std::mem::swap(&mut queue.tasks, tasks);
    }

    /// Ends when there may be something to take.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pubsub::{Broadcast, Kind};

    fn fanout(bytes: usize) -> Task {
        Task::Fanout(Arc::new(Fanout::new(Broadcast {
            topic: "t".into(),
            event: "e".into(),
            kind: Kind::Binary,
            payload: vec![0; bytes].into(),
        })))
    }

    #[test]
    fn what_waits_for_a_shard_is_bounded_by_number_and_bytes() {
        let inbox = Inbox::default();
        let taken = (0..MAX_TASKS + 9).filter(|_| inbox.push(fanout(0))).count();
        assert!(taken <= MAX_TASKS, "{taken}");
        assert!(inbox.push(Task::Close(1, Arc::default())), "what relieves the node finds room");
        inbox.take(&mut Vec::new());
        let taken = (0..40).filter(|_| inbox.push(fanout(1 << 20))).count();
        assert!((1..=16).contains(&taken), "{taken}");
        inbox.take(&mut Vec::new());
        assert!(inbox.push(fanout(1)), "there is room again");
    }
}
