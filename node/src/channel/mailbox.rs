//! What waits for one channel: in order, bounded by number and bytes. A leave always finds room:
//! there is one at the most.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{mpsc, watch};

use super::{behaviour::End, payload::Payload};
use crate::message::Ref;

/// Messages that may wait for a channel.
const MAX_MAILS: usize = 1024;
/// Bytes that may wait for a channel; one larger message passes when it is alone.
const MAX_BYTES: usize = 16 << 20;
/// What a message costs beside its payload.
const OVERHEAD: usize = 128;
/// Messages to itself that may wait for their time.
pub(super) const MAX_TIMERS: usize = 1024;

/// One thing for a channel to handle.
pub(crate) enum Mail {
    In { event: String, payload: Payload, reference: Ref },
    Out { event: Arc<str>, payload: Payload },
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
    sender: mpsc::UnboundedSender<Mail>,
    waiting: Arc<Waiting>,
    order: Arc<watch::Sender<Order>>,
}

#[derive(Default)]
struct Waiting {
    mails: AtomicUsize,
    bytes: AtomicUsize,
    timers: AtomicUsize,
}

/// The channel's side.
pub(crate) struct Mails {
    receiver: mpsc::UnboundedReceiver<Mail>,
    waiting: Arc<Waiting>,
    pub(super) order: watch::Receiver<Order>,
}

pub(crate) fn mailbox() -> (Mailbox, Mails) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let (orders, order) = watch::channel(Order::Run);
    let waiting = Arc::<Waiting>::default();
    let mailbox = Mailbox { sender, waiting: waiting.clone(), order: Arc::new(orders) };
    (mailbox, Mails { receiver, waiting, order })
}

impl Mailbox {
    /// Queues, unless too much waits or the channel is gone.
    pub(crate) fn push(&self, mail: Mail) -> bool {
        let cost = mail.cost();
        let mails = self.waiting.mails.fetch_add(1, Ordering::Relaxed);
        let bytes = self.waiting.bytes.fetch_add(cost, Ordering::Relaxed);
        let full = mails >= MAX_MAILS || (mails > 0 && bytes + cost > MAX_BYTES);
        if (full && !matches!(mail, Mail::Leave(_))) || self.sender.send(mail).is_err() {
            self.waiting.take(cost);
            return false;
        }
        true
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

impl Waiting {
    fn take(&self, cost: usize) {
        self.mails.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(cost, Ordering::Relaxed);
    }
}

impl Mails {
    /// The next mail, in order. The channel's own [`Mailbox`] keeps the queue open.
    pub(super) async fn next(&mut self) -> Option<Mail> {
        let mail = self.receiver.recv().await?;
        self.waiting.take(mail.cost());
        Some(mail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(bytes: usize) -> Mail {
        let payload = Payload::binary(vec![0; bytes]);
        Mail::In { event: String::new(), payload, reference: Ref::NULL }
    }

    #[tokio::test]
    async fn what_waits_is_bounded_and_a_leave_finds_room() {
        let (mailbox, mut mails) = mailbox();
        assert!(mailbox.push(event(MAX_BYTES)), "alone it passes");
        assert!(!mailbox.push(event(1)));
        mails.next().await;
        let taken = (0..2 * MAX_MAILS).filter(|_| mailbox.push(event(1))).count();
        assert_eq!(taken, MAX_MAILS);
        assert!(mailbox.push(Mail::Leave(Ref::NULL)));
        drop(mails);
        assert!(!mailbox.push(event(1)));
    }

    #[test]
    fn a_stronger_order_holds() {
        let (mailbox, mails) = mailbox();
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
