//! The [`Channel`] trait: what a program does with a topic. One value lives for one join of one
//! socket; its callbacks never run at the same time, those of different channels do.

use std::{error::Error, future::Future};

use super::{ctx::Ctx, payload::Payload};
use crate::message::{Ref, Status};

/// What ends a channel abnormally: any error. The client is told `phx_error` (`P-ERR-1`).
pub type Crash = Box<dyn Error + Send + Sync>;

/// An event of the client.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its name.
    pub event: String,
    /// What came with it.
    pub payload: Payload,
    /// What a reply answers; keep it to reply later.
    pub reply_to: ReplyTo,
}

/// The message that a reply answers; can be used any number of times (`P-PUSH-4`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyTo(pub(crate) Ref);

/// What a callback wants to happen next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Nothing.
    None,
    /// A reply to the message that is being handled.
    Reply(Status, Payload),
    /// The channel ends gracefully (`P-CLOSE-1`).
    Stop,
    /// A reply, then the channel ends gracefully.
    StopWith(Status, Payload),
}

impl Answer {
    /// Replies `ok`; `Answer::ok(())` has the response `{}`.
    pub fn ok(response: impl Into<Payload>) -> Self {
        Self::Reply(Status::Ok, response.into())
    }

    /// Replies `error`.
    pub fn error(response: impl Into<Payload>) -> Self {
        Self::Reply(Status::Error, response.into())
    }
}

/// What became of a callback; an `Err` crashes the channel, as a panic does.
pub type Handled = Result<Answer, Crash>;

/// Why a join is not accepted.
#[derive(Debug)]
pub enum JoinError {
    /// Refused with a reason for the client (`P-JOIN-3`).
    Refused(Payload),
    /// The join crashed: the client hears no more than that.
    Crashed(Crash),
}

impl JoinError {
    /// Refuses with `response`.
    pub fn refuse(response: impl Into<Payload>) -> Self {
        Self::Refused(response.into())
    }
}

impl<E: Into<Crash>> From<E> for JoinError {
    fn from(error: E) -> Self {
        Self::Crashed(error.into())
    }
}

/// Why a channel ends, as [`Channel::terminate`] is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client has left (`P-LEAVE-1`).
    Left,
    /// A callback has asked for it.
    Stopped,
    /// The client has joined the topic again (`P-JOIN-5`).
    Replaced,
    /// The socket is gone or closing (`P-ERR-5`): nothing that is pushed now arrives.
    Disconnected,
    /// A callback has failed. One that panics ends the channel without `terminate`.
    Crashed,
}

/// A channel.
///
/// ```
/// use sluice_node::channel::{Answer, Channel, Ctx, Handled, JoinError, Message, Payload};
///
/// struct Room;
///
/// impl Channel for Room {
///     type Info = ();
///
///     async fn join(_: Payload, ctx: &Ctx) -> Result<(Self, Payload), JoinError> {
///         if ctx.topic() == "room:secret" {
///             return Err(JoinError::refuse(serde_json::json!({"reason": "unauthorized"})));
///         }
///         Ok((Room, Payload::empty()))
///     }
///
///     async fn handle_in(&mut self, message: Message, ctx: &Ctx) -> Handled {
///         match message.event.as_str() {
///             "say" => ctx.broadcast("said", message.payload)?,
///             other => return Err(format!("no event {other}").into()),
///         }
///         Ok(Answer::ok(()))
///     }
/// }
/// ```
pub trait Channel: Sized + 'static {
    /// What other parts of the program, and the channel itself, send it; see [`Ctx::send`].
    type Info: Send + 'static;

    /// Events whose broadcasts go through [`Channel::handle_out`] instead of straight to the
    /// socket (`P-BC-4`).
    const INTERCEPT: &'static [&'static str] = &[];

    /// Decides on a join; gives the channel and the response. Nothing can be pushed or broadcast
    /// before the join is accepted: use [`Ctx::send`] and [`Channel::handle_info`] for that.
    /// It is dropped, as crashed, after ten seconds: all else that its socket sends waits for it.
    fn join(
        payload: Payload,
        ctx: &Ctx<Self::Info>,
    ) -> impl Future<Output = Result<(Self, Payload), JoinError>>;

    /// An event of the client. By default there are none, and each crashes the channel
    /// (`P-PUSH-5`).
    fn handle_in(
        &mut self,
        message: Message,
        ctx: &Ctx<Self::Info>,
    ) -> impl Future<Output = Handled> {
        let _ = ctx;
        async move { Err(format!("no event {:?}", message.event).into()) }
    }

    /// A broadcast of an intercepted event. By default it is pushed as it is.
    fn handle_out(
        &mut self,
        event: &str,
        payload: Payload,
        ctx: &Ctx<Self::Info>,
    ) -> impl Future<Output = Handled> {
        async move {
            ctx.push(event, payload)?;
            Ok(Answer::None)
        }
    }

    /// A message of the program.
    fn handle_info(
        &mut self,
        info: Self::Info,
        ctx: &Ctx<Self::Info>,
    ) -> impl Future<Output = Handled> {
        let _ = (info, ctx);
        async { Ok(Answer::None) }
    }

    /// The channel ends; five seconds at the most are given to it.
    fn terminate(&mut self, end: End, ctx: &Ctx<Self::Info>) -> impl Future<Output = ()> {
        let _ = (end, ctx);
        async {}
    }
}
