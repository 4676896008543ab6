//! The life of one channel: join, then one mail after another, then the end. Whatever the program's
//! code does, a panic included, ends this channel alone, and its transport is told.

use std::{
    panic::AssertUnwindSafe,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use futures::{FutureExt, future::LocalBoxFuture};
use tokio::{sync::watch, time::timeout};

use super::{
    behaviour::{Answer, Channel, End, Handled, JoinError, Message, ReplyTo},
    ctx::{Ctx, Inner},
    mailbox::{Mail, Mailbox, Mails, Order},
    payload::Payload,
};
use crate::{interest::Ready, message::Ref, shard::inbox::Said};

/// How long a join may take: its socket waits for it.
const JOINING: Duration = Duration::from_secs(10);
/// How long a channel may take to end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a channel begins with.
pub(crate) struct Start {
    pub(crate) inner: Arc<Inner>,
    pub(crate) mails: Mails,
    pub(crate) payload: Payload,
    /// The channel that this one replaces, and which must end first (`P-JOIN-5`).
    pub(crate) after: Option<Mailbox>,
    /// The other nodes know of the join.
    pub(crate) ready: Option<Ready>,
}

/// A [`Channel`] whose type is forgotten.
pub(crate) type Starter = Arc<dyn Fn(Start) -> LocalBoxFuture<'static, ()> + Send + Sync>;

pub(super) fn starter<C: Channel>() -> Starter {
    Arc::new(|start| Box::pin(run::<C>(start)))
}

/// Tells the transport of the end, however it comes. The mails are dropped with it, which tells
/// whoever waits for the end.
struct Life {
    inner: Arc<Inner>,
    mails: Mails,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.inner.joined.store(false, Ordering::Release);
        self.inner.say(Said::Ended);
        // After that, so that a client that leaves is not told of itself (`P-PRES-7`).
        let Inner { plane, address, .. } = &*self.inner;
        plane.presence.untrack(plane, address.owner(), None);
    }
}

async fn run<C: Channel>(start: Start) {
    let Start { inner, mails, payload, after, ready } = start;
    let ctx = Ctx::<C::Info>::new(inner.clone());
    let mut orders = mails.order.clone();
    let mut life = Life { inner, mails };
    let born = async {
        if let Some(old) = after {
            old.order(Order::Abort(End::Replaced));
            if timeout(LAST_WORDS, old.ended()).await.is_err() {
                old.order(Order::Kill);
                old.ended().await;
            }
        }
        let joining = AssertUnwindSafe(timeout(JOINING, C::join(payload, &ctx))).catch_unwind();
        let joined = joining.await.map(|joined| joined.unwrap_or_else(|late| Err(late.into())));
        if let Some(ready) = ready {
            ready.await;
        }
        joined
    };
    let joined = tokio::select! {
        joined = born => joined,
        // Without a channel there is nobody to say goodbye.
        _ = told(&mut orders, Order::ends) => return,
    };
    let mut channel = match joined {
        Ok(Ok((channel, response))) => {
            life.inner.joined.store(true, Ordering::Release);
            life.inner.accept(response);
            channel
        }
        Ok(Err(JoinError::Refused(response))) => return life.inner.say(Said::Refused(response)),
        Ok(Err(JoinError::Crashed(error))) => {
            return tracing::debug!(%error, topic = %life.inner.topic, "a join crashed");
        }
        Err(_) => return tracing::debug!(topic = %life.inner.topic, "a join panicked"),
    };
    let end = live(&mut channel, &mut life, &ctx, &mut orders).await;
    let Some(end) = end else { return };
    if matches!(end, End::Left | End::Stopped) {
        life.inner.say(Said::Close);
    }
    let last = AssertUnwindSafe(timeout(LAST_WORDS, channel.terminate(end, &ctx))).catch_unwind();
    tokio::select! {
        _ = last => {}
        _ = told(&mut orders, |order| order == Order::Kill) => {}
    }
}

/// Handles mails until the channel ends; `None` when it has no last words.
async fn live<C: Channel>(
    channel: &mut C,
    life: &mut Life,
    ctx: &Ctx<C::Info>,
    orders: &mut watch::Receiver<Order>,
) -> Option<End> {
    loop {
        let mail = tokio::select! {
            biased;
            order = told(orders, Order::ends) => return order.end(),
            mail = life.mails.next() => mail?,
        };
        let reference = match &mail {
            Mail::In { reference, .. } => reference.clone(),
            Mail::Leave(reference) => {
                life.inner.reply(reference.clone(), crate::message::Status::Ok, ().into());
                return Some(End::Left);
            }
            Mail::Out { .. } | Mail::Info(_) => Ref::NULL,
        };
        let handled = {
            let handling = AssertUnwindSafe(handle(channel, mail, ctx)).catch_unwind();
            let late = overdue(orders.clone());
            tokio::select! {
                handled = handling => handled,
                order = told(orders, |order| matches!(order, Order::Abort(_) | Order::Kill)) => {
                    return order.end();
                }
                order = late => return order.end(),
            }
        };
        match handled {
            Ok(Ok(Answer::None)) => {}
            Ok(Ok(Answer::Reply(status, response))) => {
                life.inner.reply(reference, status, response);
            }
            Ok(Ok(Answer::Stop)) => return Some(End::Stopped),
            Ok(Ok(Answer::StopWith(status, response))) => {
                life.inner.reply(reference, status, response);
                return Some(End::Stopped);
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, topic = %life.inner.topic, "a channel crashed");
                return Some(End::Crashed);
            }
            Err(_) => {
                tracing::debug!(topic = %life.inner.topic, "a channel panicked");
                return None;
            }
        }
    }
}

async fn handle<C: Channel>(channel: &mut C, mail: Mail, ctx: &Ctx<C::Info>) -> Handled {
    match mail {
        Mail::In { event, payload, reference } => {
            let message = Message { event, payload, reply_to: ReplyTo(reference) };
            channel.handle_in(message, ctx).await
        }
        Mail::Out { event, payload, .. } => channel.handle_out(&event, payload, ctx).await,
        Mail::Info(info) => match info.downcast() {
            Ok(info) => channel.handle_info(*info, ctx).await,
            Err(_) => Ok(Answer::None),
        },
        Mail::Leave(_) => Ok(Answer::None),
    }
}

/// Waits for an order; the sender lives in the channel's own context.
async fn told(orders: &mut watch::Receiver<Order>, wanted: impl Fn(Order) -> bool) -> Order {
    match orders.wait_for(|order| wanted(*order)).await {
        Ok(order) => *order,
        Err(_) => Order::Kill,
    }
}

/// A channel that is to stop and goes on handling one message: it is given some time.
async fn overdue(mut orders: watch::Receiver<Order>) -> Order {
    let order = told(&mut orders, Order::ends).await;
    tokio::time::sleep(LAST_WORDS).await;
    order
}
