//! A place where clients connect, and what holds there. It decides nothing itself: the callbacks
//! that it holds do.

use std::{sync::Arc, time::Duration};

use http::StatusCode;
use sluice_node_api::config::{CheckOrigin, Socket};

use super::{
    connect::{Anyone, Connector, UserSocket, connector},
    router::Router,
};
use crate::{origin::Policy, plane::Settings};

/// How long a poll of the stock node waits, as in Phoenix (`P-LP-3`).
const WINDOW: Duration = Duration::from_secs(10);

/// Which pages may connect (`P-CON-5`); who comes from no page always may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// Any.
    Any,
    /// Those of this host, by any scheme and port.
    Host(String),
    /// Those of these origins: `//host`, `scheme://host:port`, `//*.host` for a host and those
    /// under it.
    List(Vec<String>),
    /// Those of the scheme, host and port that the request itself is for.
    Connection,
}

/// Joins a second of a socket, unless another number is said: those of all its channels, or so many.
const LEAST_JOINS: u32 = 100;

/// Messages a second of a socket, unless another number is said: what no client sends in good faith.
const MESSAGES: u32 = 20_000;

/// What answers a connect that was refused with a reason.
type RefusalHandler = Arc<dyn Fn(&str) -> (StatusCode, String) + Send + Sync>;

/// Sockets under one path. [`Builder::mount`](crate::server::Builder::mount) serves it. What is not
/// said here is as the node's configuration says.
#[derive(Clone)]
pub struct Mount {
    pub(crate) path: String,
    pub(crate) connect: Option<Connector>,
    pub(crate) router: Option<Router>,
    pub(crate) refusal: Option<RefusalHandler>,
    pub(crate) origins: Option<Policy>,
    pub(crate) auth_token: bool,
    pub(crate) subprotocols: Vec<String>,
    pub(crate) idle_timeout: Option<Duration>,
    /// How long a poll waits; without it there is no long-polling.
    pub(crate) longpoll: Option<Duration>,
    pub(crate) max_frame: Option<usize>,
    pub(crate) max_channels: Option<usize>,
    pub(crate) max_joins: Option<u32>,
    pub(crate) max_messages: Option<u32>,
}

impl Mount {
    /// Sockets under `path`, such as `/socket`; `{name}` stands for one segment, which becomes the
    /// parameter `name`.
    pub fn new(path: impl AsRef<str>, socket: impl UserSocket) -> Self {
        Self { connect: Some(connector(socket)), ..Self::bare(path.as_ref()) }
    }

    /// As [`Mount::new`], for a socket that lets everybody in.
    pub fn open(path: impl AsRef<str>) -> Self {
        Self::new(path, Anyone)
    }

    /// The mount of a stock node that asks nobody.
    pub(crate) fn stock(socket: &Socket) -> Self {
        Self::bare(&socket.path).stock_longpoll(socket)
    }

    /// Long-polling as the node's configuration says.
    pub(crate) fn stock_longpoll(self, socket: &Socket) -> Self {
        Self { longpoll: socket.longpoll.then_some(WINDOW), ..self }
    }

    fn bare(path: &str) -> Self {
        Self {
            path: path.trim_end_matches('/').to_owned(),
            connect: None,
            router: None,
            refusal: None,
            origins: None,
            auth_token: false,
            subprotocols: Vec::new(),
            idle_timeout: None,
            longpoll: None,
            max_frame: None,
            max_channels: None,
            max_joins: None,
            max_messages: None,
        }
    }

    /// Its topics are channels of the program. Without this they follow the node's rules.
    #[must_use]
    pub fn channels(self, router: Router) -> Self {
        Self { router: Some(router), ..self }
    }

    /// Answers a client that the connect callback refuses with a reason, for WebSockets; without it
    /// the answer is 403 with an empty body (`P-CON-4`).
    #[must_use]
    pub fn on_refusal(
        self,
        handler: impl Fn(&str) -> (StatusCode, String) + Send + Sync + 'static,
    ) -> Self {
        Self { refusal: Some(Arc::new(handler)), ..self }
    }

    /// Which pages may connect.
    #[must_use]
    pub fn origins(self, origins: Origins) -> Self {
        let socket = |check_origin, host| Socket { check_origin, host, ..Socket::default() };
        let policy = match origins {
            Origins::Any => Policy::Any,
            Origins::Host(host) => Policy::new(&socket(CheckOrigin::Host, Some(host))),
            Origins::List(list) => Policy::new(&socket(CheckOrigin::List(list), None)),
            Origins::Connection => Policy::Connection,
        };
        Self { origins: Some(policy), ..self }
    }

    /// Takes an auth token, which the client sends as a subprotocol (`P-CON-6`).
    #[must_use]
    pub fn auth_token(self) -> Self {
        let mut subprotocols = self.subprotocols;
        subprotocols.insert(0, "phoenix".to_owned());
        Self { auth_token: true, subprotocols, ..self }
    }

    /// Subprotocols to agree to (`P-CON-9`).
    #[must_use]
    pub fn subprotocols(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.subprotocols.extend(names.into_iter().map(Into::into));
        self
    }

    /// Time without an inbound frame after which a WebSocket is closed (`P-HB-2`).
    #[must_use]
    pub fn idle_timeout(self, timeout: Duration) -> Self {
        Self { idle_timeout: Some(timeout), ..self }
    }

    /// Serves `<path>/longpoll` too; a poll waits for `window` (`P-LP-3`).
    #[must_use]
    pub fn longpoll(self, window: Duration) -> Self {
        Self { longpoll: Some(window), ..self }
    }

    /// Largest message of a client, in bytes (`P-CON-12`).
    #[must_use]
    pub fn max_frame(self, bytes: usize) -> Self {
        Self { max_frame: Some(bytes), ..self }
    }

    /// Channels that a socket may join (`P-CON-11`).
    #[must_use]
    pub fn max_channels(self, channels: usize) -> Self {
        Self { max_channels: Some(channels), ..self }
    }

    /// Joins that a socket may ask for in a second, a second's worth at once; without this as many as
    /// it may have channels, 100 at the least.
    #[must_use]
    pub fn max_joins_per_second(self, joins: u32) -> Self {
        Self { max_joins: Some(joins), ..self }
    }

    /// Messages of any kind that a socket may send in a second, a second's worth at once; without this
    /// 20000. Heartbeats and leaves find room for as many again.
    #[must_use]
    pub fn max_messages_per_second(self, messages: u32) -> Self {
        Self { max_messages: Some(messages), ..self }
    }

    /// Fills in what is not said.
    pub(crate) fn or(mut self, settings: &Settings) -> Self {
        self.idle_timeout.get_or_insert(settings.idle_timeout);
        self.max_frame.get_or_insert(settings.max_frame);
        let channels = *self.max_channels.get_or_insert(settings.max_channels);
        let channels = u32::try_from(channels).unwrap_or(u32::MAX);
        self.max_joins.get_or_insert(settings.max_joins.unwrap_or(channels.max(LEAST_JOINS)));
        self.max_messages.get_or_insert(settings.max_messages.unwrap_or(MESSAGES));
        self.origins.get_or_insert_with(|| settings.origins.clone());
        self
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("path", &self.path).finish_non_exhaustive()
    }
}
