//! A place where clients connect. It decides nothing itself: the callback that it holds does.

use std::sync::Arc;

use super::connect::{Anyone, Connector, UserSocket, connector};

/// Sockets under one path. [`Builder::mount`](crate::server::Builder::mount) serves it.
#[derive(Clone)]
pub struct Mount {
    pub(crate) path: String,
    pub(crate) connect: Option<Connector>,
}

impl Mount {
    /// Sockets under `path`, such as `/socket`; `{name}` stands for one segment, which becomes the
    /// parameter `name`.
    pub fn new(path: impl AsRef<str>, socket: impl UserSocket) -> Self {
        let path = path.as_ref().trim_end_matches('/').to_owned();
        Self { path, connect: Some(connector(socket)) }
    }

    /// As [`Mount::new`], for a socket that lets everybody in.
    pub fn open(path: impl AsRef<str>) -> Self {
        Self::new(path, Anyone)
    }

    /// The mount of a node that asks nobody.
    pub(crate) fn stock(path: &str) -> Arc<Self> {
        Arc::new(Self { path: path.trim_end_matches('/').to_owned(), connect: None })
    }
}

impl std::fmt::Debug for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mount").field("path", &self.path).finish_non_exhaustive()
    }
}
