//! What a program that is built on this library says: who may connect, where, and what its topics
//! do. Start at [`Channel`], [`Router`], [`UserSocket`] and [`Mount`]; `examples/chat_room.rs` is a
//! whole program.
//!
//! Nothing here sees a connection: a WebSocket and a long-poll session are the same to it. `session`
//! is the protocol, `task` the life of one channel.

mod behaviour;
mod connect;
pub(crate) mod ctx;
pub(crate) mod farewell;
pub(crate) mod mailbox;
mod mount;
pub(crate) mod params;
mod payload;
pub(crate) mod room;
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod task;

pub use behaviour::{Answer, Channel, Crash, End, Handled, JoinError, Message, ReplyTo};
pub use connect::{Accept, Anyone, Connect, Refused, Transport, UserSocket};
pub use ctx::{Ctx, SendError, Socket};
pub use mount::{Mount, Origins};
pub use payload::Payload;
pub use router::Router;

pub use crate::{message::Status, presence::PresenceError};
