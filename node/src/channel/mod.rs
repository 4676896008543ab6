//! What a program that is built on this library says: who may connect, and where. Topics follow the
//! node's rules. Start at [`UserSocket`] and [`Mount`].
//!
//! Nothing here sees a connection: a WebSocket and a long-poll session are the same to it.

mod connect;
mod mount;
pub(crate) mod params;

pub use connect::{Accept, Anyone, Connect, Refused, Transport, UserSocket};
pub use mount::Mount;
