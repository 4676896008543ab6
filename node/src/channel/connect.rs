//! The connect callback: who a socket is, decided once, before it opens.
//!
//! The same for every transport: nothing here sees a connection.

use std::{future::Future, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use http::{Extensions, HeaderMap, Uri, header};
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::farewell::Farewell;

/// How a client is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// One WebSocket.
    Websocket,
    /// HTTP requests that wait.
    Longpoll,
}

impl Transport {
    /// Its name: `websocket` or `longpoll`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Longpoll => "longpoll",
        }
    }
}

/// What is known of a client that connects.
#[derive(Clone, Debug)]
pub struct Connect {
    /// Query parameters, `a[b]=c` nested, and those of the mount's path (`P-CON-3`).
    pub params: Map<String, Value>,
    /// The request's headers.
    pub headers: HeaderMap,
    /// The other end of the connection: the client, or a proxy.
    pub peer: SocketAddr,
    /// The request's target.
    pub uri: Uri,
    /// The auth token (`P-CON-6`), if the mount takes one and the client sent it.
    pub auth_token: Option<String>,
    /// By which transport.
    pub transport: Transport,
}

impl Connect {
    /// What a socket of the stock node keeps: its parameters, peer and transport.
    pub(crate) fn kept(&self) -> Self {
        let Self { params, peer, transport, .. } = self;
        Self { params: params.clone(), transport: *transport, ..Self::unknown(*peer) }
    }

    /// A WebSocket from `peer`, of which nothing else is known.
    pub(crate) fn unknown(peer: SocketAddr) -> Self {
        Self {
            params: Map::new(),
            headers: HeaderMap::new(),
            peer,
            uri: Uri::default(),
            auth_token: None,
            transport: Transport::Websocket,
        }
    }

    /// A parameter that is a plain string.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params.get(name).and_then(Value::as_str)
    }

    /// The page that connects, if the request comes from one.
    pub fn origin(&self) -> Option<&str> {
        self.headers.get(header::ORIGIN).and_then(|value| value.to_str().ok())
    }

    /// The host that the client asked for, without its port.
    pub fn host(&self) -> Option<&str> {
        let host = self.headers.get(header::HOST).and_then(|value| value.to_str().ok())?;
        let bare = host.rsplit_once(':').filter(|(_, port)| !port.contains(']'));
        Some(bare.map_or(host, |(host, _)| host))
    }
}

/// A socket that is let in.
#[derive(Clone, Debug, Default)]
pub struct Accept {
    pub(crate) id: Option<Arc<str>>,
    pub(crate) assigns: Extensions,
    pub(crate) until: Option<Instant>,
    pub(crate) farewell: Option<Arc<Farewell>>,
}

impl Accept {
    /// A socket without an id and assigns.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the socket: a broadcast of event `disconnect` on this topic, from any node, closes it
    /// (`P-CON-10`).
    #[must_use]
    pub fn id(mut self, id: impl Into<Arc<str>>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Closes the socket at this time, with code 1008: what let it in holds no longer.
    #[must_use]
    pub fn until(mut self, at: Instant) -> Self {
        self.until = Some(at);
        self
    }

    /// Calls `then` once when the socket has ended, with its close code: 1006 when the connection broke,
    /// 0 when it was let in and never opened. A panic of it is logged, and costs nobody else anything.
    #[must_use]
    pub fn on_end(mut self, then: impl FnOnce(u16) + Send + 'static) -> Self {
        self.farewell = Some(Arc::new(Farewell::new(then)));
        self
    }

    /// Keeps a value for the socket's channels, one of each type.
    #[must_use]
    pub fn assign<T: Clone + Send + Sync + 'static>(mut self, value: T) -> Self {
        self.assigns.insert(value);
        self
    }
}

/// A socket that is not let in: 403 with an empty body, but for a mount that answers reasons in
/// its own way (`P-CON-4`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// What the mount's refusal handler is told; without one nothing is.
    pub reason: Option<String>,
}

impl Refused {
    /// Refused, and nothing said.
    pub fn silently() -> Self {
        Self::default()
    }

    /// Refused with a reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self { reason: Some(reason.into()) }
    }
}

/// What decides on the sockets of a mount.
///
/// ```
/// use sluice_node::channel::{Accept, Connect, Refused, UserSocket};
///
/// struct Users;
///
/// impl UserSocket for Users {
///     async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
///         let user = connect.param("user").ok_or_else(Refused::silently)?;
///         Ok(Accept::new().id(format!("users:{user}")).assign(user.to_owned()))
///     }
/// }
/// ```
pub trait UserSocket: Send + Sync + 'static {
    /// Lets a client in, or not. One that takes longer than ten seconds is refused with 503.
    fn connect(&self, connect: &Connect) -> impl Future<Output = Result<Accept, Refused>> + Send;
}

/// Lets everybody in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anyone;

impl UserSocket for Anyone {
    async fn connect(&self, _: &Connect) -> Result<Accept, Refused> {
        Ok(Accept::new())
    }
}

/// A [`UserSocket`] whose type is forgotten.
pub(crate) type Connector =
    Arc<dyn Fn(Arc<Connect>) -> BoxFuture<'static, Result<Accept, Refused>> + Send + Sync>;

pub(crate) fn connector(socket: impl UserSocket) -> Connector {
    let socket = Arc::new(socket);
    Arc::new(move |connect| {
        let socket = socket.clone();
        Box::pin(async move { socket.connect(&connect).await })
    })
}
