//! What waits for one channel: in order, bounded by number, and by the bytes that wait for all channels of its
//! socket and of its node. A leave always finds room: there is one at the most.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{
    behaviour::End,
    payload::Payload,
    room::{NodeRoom, OfNode, OfSocket, SocketRoom},
};
use crate::message::Ref;

/// Messages that may wait for a channel.
const MAX_MAILS: usize = 1024;
/// What a message costs beside its payload.
const OVERHEAD: usize = 128;
/// Messages to itself that may wait for their time.
pub(super) const MAX_TIMERS: usize = 1024;

/// One thing for a channel to handle.
pub(crate) enum Mail {
    In {
        event: String,
        payload: Payload,
        reference: Ref,
    },
    /// A broadcast, and its part of the node's room: one for all channels that it waits for.
    Out {
        event: Arc<str>,
        payload: Payload,
        _kept: Arc<OfNode>,
    },
    Info(Box<dyn Any + Send>),
    Leave(Ref),
}

impl Mail {
    fn cost(&self) -> usize {
        OVERHEAD
            + match self {
                Self::In { event, payload, .. } => event.len() + payload.bytes().len(),
                Self::Out { payload, .. } => payload.bytes().len(),
                Self::Info(_) | Self::Leave(_) => 0,
            }
    }
}

/// What a channel is told out of turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    Run,
    /// End unless joined: whoever asked to join takes it back. For joins that wait for something
    /// outside ([`Ctx::withdrawn`](super::ctx::Ctx::withdrawn)); no other takes notice.
    Withdraw,
    /// End after what is being handled.
    Stop(End),
    /// End now.
    Abort(End),
    /// End now, and say nothing.
    Kill,
}

impl Order {
    /// Why the channel is to say goodbye, if it is.
    pub(super) fn end(self) -> Option<End> {
        match self {
            Self::Stop(end) | Self::Abort(end) => Some(end),
            Self::Run | Self::Withdraw | Self::Kill => None,
        }
    }

    /// Whether a channel that is joined has to end.
    pub(super) fn ends(self) -> bool {
        !matches!(self, Self::Run | Self::Withdraw)
    }
}

/// The sending side; cheap to clone.
#[derive(Clone)]
pub(crate) struct Mailbox {
    sender: mpsc::UnboundedSender<Placed>,
    waiting: Arc<Waiting>,
    socket: Arc<SocketRoom>,
    node: Arc<NodeRoom>,
    order: Arc<watch::Sender<Order>>,
}

/// What waits for one channel.
#[derive(Default)]
struct Waiting {
    mails: AtomicUsize,
    timers: AtomicUsize,
}

/// A mail in its place; it leaves when it is dropped.
struct Placed {
    mail: Mail,
    _place: Place,
    _of_socket: OfSocket,
    _of_node: OfNode,
}

/// One of a channel's.
struct Place(Arc<Waiting>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.mails.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The channel's side.
pub(crate) struct Mails {
    receiver: mpsc::UnboundedReceiver<Placed>,
    pub(super) order: watch::Receiver<Order>,
}

/// The mailbox of a channel of a socket of a node.
pub(crate) fn mailbox(socket: Arc<SocketRoom>, node: Arc<NodeRoom>) -> (Mailbox, Mails) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (orders, order) = watch::channel(Order::Run);
    let waiting = Arc::default();
    let mailbox = Mailbox { sender, waiting, socket, node, order: Arc::new(orders) };
    (mailbox, Mails { receiver, order })
}

impl Mailbox {
    /// Queues, unless too much waits or the channel is gone.
    pub(crate) fn push(&self, mail: Mail) -> bool {
        self.place(mail).is_some_and(|placed| self.sender.send(placed).is_ok())
    }

    fn place(&self, mail: Mail) -> Option<Placed> {
        let cost = mail.cost();
        let mails = self.waiting.mails.fetch_add(1, Ordering::Relaxed);
        let place = Place(self.waiting.clone());
        if mails >= MAX_MAILS && !matches!(mail, Mail::Leave(_)) {
            return None;
        }
        let (of_socket, of_node) = match &mail {
            Mail::In { .. } => (self.socket.claim(cost, &self.node)?, self.node.claim(cost)?),
            // Its payload is in the room of the node already.
            Mail::Out { .. } => (self.socket.claim(cost, &self.node)?, self.node.owe(OVERHEAD)),
            // What no other channel of the socket may keep from it.
            Mail::Info(_) | Mail::Leave(_) => (self.socket.owe(cost), self.node.owe(cost)),
        };
        Some(Placed { mail, _place: place, _of_socket: of_socket, _of_node: of_node })
    }

    /// Queues after a time; false when too many wait for theirs.
    pub(crate) fn push_after(&self, after: Duration, mail: Mail) -> bool {
        if self.waiting.timers.fetch_add(1, Ordering::Relaxed) >= MAX_TIMERS {
            self.waiting.timers.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        let mailbox = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tokio::time::sleep(after) => { mailbox.push(mail); }
                () = mailbox.sender.closed() => {}
            }
            mailbox.waiting.timers.fetch_sub(1, Ordering::Relaxed);
        });
        true
    }

    /// Tells the channel to end; the first such order that is as strong holds.
    pub(crate) fn order(&self, order: Order) {
        self.order.send_if_modified(|now| {
            let weaker = matches!((&now, order), (Order::Run, _))
                || (*now == Order::Withdraw && order.ends())
                || matches!((&now, order), (Order::Stop(_), Order::Abort(_) | Order::Kill));
            if weaker {
                *now = order;
            }
            weaker
        });
    }

    /// Ends when the channel has any order.
    pub(super) async fn told(&self) {
        // This is a sender: there is one.
        let _ = self.order.subscribe().wait_for(|order| *order != Order::Run).await;
    }

    /// What the channel is told now.
    pub(crate) fn ordered(&self) -> Order {
        *self.order.borrow()
    }

    /// Whether the channel has ended.
    pub(crate) fn is_gone(&self) -> bool {
        self.sender.is_closed()
    }

    /// Ends when the channel has ended.
    pub(crate) async fn ended(&self) {
        self.sender.closed().await;
    }
}

impl Mails {
    /// The next mail, in order. The channel's own [`Mailbox`] keeps the queue open.
    pub(super) async fn next(&mut self) -> Option<Mail> {
        self.receiver.recv().await.map(|placed| placed.mail)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::gauge::Gauge;

    use super::*;

    fn event() -> Mail {
        let payload = Payload::binary(vec![0]);
        Mail::In { event: String::new(), payload, reference: Ref::NULL }
    }

    fn alone() -> (Mailbox, Mails, Arc<SocketRoom>) {
        let socket = Arc::<SocketRoom>::default();
        let (mailbox, mails) = mailbox(socket.clone(), NodeRoom::new(Gauge::default()));
        (mailbox, mails, socket)
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_a_leave_finds_room() {
        let (mailbox, mut mails, socket) = alone();
        let full = socket.owe(16 << 20);
        assert!(!mailbox.push(event()));
        assert!(mailbox.push(Mail::Info(Box::new(()))));
        assert!(mailbox.push(Mail::Leave(Ref::NULL)));
        drop(full);
        for _ in 0..2 {
            mails.next().await;
        }
        let taken = (0..2 * MAX_MAILS).filter(|_| mailbox.push(event())).count();
        assert_eq!(taken, MAX_MAILS);
        assert!(mailbox.push(Mail::Leave(Ref::NULL)));
        drop(mails);
        assert!(!mailbox.push(event()));
        assert_eq!(mailbox.waiting.mails.load(Ordering::Relaxed), 0, "all is given back");
        assert!(socket.claim(16 << 20, &mailbox.node).is_some());
    }

    #[test]
    fn a_stronger_order_holds() {
        let (mailbox, mails, _) = alone();
        mailbox.order(Order::Withdraw);
        assert_eq!(*mails.order.borrow(), Order::Withdraw);
        mailbox.order(Order::Stop(End::Disconnected));
        mailbox.order(Order::Stop(End::Replaced));
        mailbox.order(Order::Withdraw);
        assert_eq!(*mails.order.borrow(), Order::Stop(End::Disconnected));
        mailbox.order(Order::Kill);
        mailbox.order(Order::Abort(End::Replaced));
        assert_eq!(*mails.order.borrow(), Order::Kill);
    }
}
