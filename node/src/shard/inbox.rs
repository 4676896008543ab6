//! What other threads hand to a shard. Bounded: past the bound broadcasts and sockets are refused,
//! and the caller counts them.

use std::{
    net::{SocketAddr, TcpStream},
    sync::{Arc, atomic::AtomicU64},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::fanout::Fanout;
use crate::hub::{TopicCount, TopicQuery};

const MAX_BYTES: usize = 16 << 20;
const MAX_TASKS: usize = 65_536;

/// One thing to do.
pub(crate) enum Task {
    /// Serve a new connection.
    Socket(TcpStream, SocketAddr),
    /// Deliver to the subscribers here.
    Fanout(Arc<Fanout>),
    /// Close so many sockets with 1012, counting them.
    Close(u64, Arc<AtomicU64>),
    /// Count the subscribers of topics.
    Topics(TopicQuery, oneshot::Sender<Vec<TopicCount>>),
}

impl Task {
    fn bytes(&self) -> usize {
        match self {
            Self::Fanout(fanout) => fanout.len(),
            Self::Socket(..) | Self::Close(..) | Self::Topics(..) => 0,
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
    /// Queues `task`, unless the inbox is full. Closing sockets always finds room: the callers are
    /// few, and relieve the node.
    pub(crate) fn push(&self, task: Task) -> bool {
        let mut queue = self.queue.lock();
        let full = queue.bytes >= MAX_BYTES || queue.tasks.len() >= MAX_TASKS;
        if full && !matches!(task, Task::Close(..)) {
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
