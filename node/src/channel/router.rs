//! Which channel a topic is for. Decides by the topic alone.

use std::sync::Arc;

use super::{
    behaviour::Channel,
    task::{Starter, starter},
};
use crate::message::{MAX_FIELD, matches};

/// Topic patterns in their order.
///
/// ```
/// # use sluice_node::channel::*;
/// # struct Room;
/// # impl Channel for Room {
/// #     type Info = ();
/// #     async fn join(_: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
/// #         Ok((Room, Payload::empty()))
/// #     }
/// # }
/// let router = Router::new().channel::<Room>("room:lobby").channel::<Room>("room:*");
/// let mount = Mount::open("/socket").channels(router);
/// ```
#[derive(Clone, Default)]
pub struct Router {
    routes: Vec<(Arc<str>, Route)>,
}

/// What a pattern leads to.
#[derive(Clone)]
pub(crate) struct Route {
    pub(crate) start: Starter,
    pub(crate) intercept: &'static [&'static str],
}

impl Route {
    /// To the channel `C`.
    pub(crate) fn to<C: Channel>() -> Self {
        Self { start: starter::<C>(), intercept: C::INTERCEPT }
    }
}

impl Router {
    /// A router without a route: every join is "unmatched topic".
    pub fn new() -> Self {
        Self::default()
    }

    /// Topics that match `pattern`, an exact topic or a prefix with one trailing `*`, and no
    /// pattern before it, are for the channel `C` (`P-JOIN-1`).
    #[must_use]
    pub fn channel<C: Channel>(mut self, pattern: impl Into<Arc<str>>) -> Self {
        self.routes.push((pattern.into(), Route::to::<C>()));
        self
    }

    /// The first route that matches; none for a topic over 255 bytes.
    pub(crate) fn find(&self, topic: &str) -> Option<&Route> {
        let fits = topic.len() <= MAX_FIELD;
        let mut routes = self.routes.iter();
        routes.find(|(pattern, _)| fits && matches(pattern, topic)).map(|(_, route)| route)
    }
}

impl std::fmt::Debug for Router {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.routes.iter().map(|(pattern, _)| pattern)).finish()
    }
}
