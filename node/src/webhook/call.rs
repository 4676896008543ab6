//! One HTTP request to the backend: signed, bounded, measured. Nothing of it is ever logged but how it
//! failed.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::Full;
use parking_lot::Mutex;
use sluice_node_api::webhooks::Webhooks;

use super::{breaker::Breaker, metrics::Metrics, secrets::Secrets};
use crate::https::{self, Https, Unread};

/// Largest answer, in bytes.
pub(super) const MAX_ANSWER: usize = 256 << 10;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A client connects.
    Connect,
    /// A client joins a topic.
    Join,
    /// A client has sent an event on one.
    Event,
    /// A channel has ended.
    Leave,
    /// A socket has ended.
    Disconnect,
}

impl Event {
    /// Its name, as `type` of a request and as a label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Join => "join",
            Self::Event => "event",
            Self::Leave => "leave",
            Self::Disconnect => "disconnect",
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// None within the time.
    Timeout,
    /// No connection, or one that broke.
    Unreachable,
    /// A status that says nothing.
    Status,
    /// A body that means nothing.
    Garbage,
    /// A body that says `allow` twice: nobody is let in, whatever the policy.
    Ambiguous,
    /// A body that is too large.
    Large,
    /// Too many wait already.
    Full,
    /// The backend is left alone for a while.
    Circuit,
}

impl Failure {
    /// Whether the backend has heard nothing.
    pub(crate) fn is_unheard(self) -> bool {
        matches!(self, Self::Full | Self::Circuit)
    }

    /// As the label `outcome`.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Status => "status",
            Self::Garbage => "garbage",
            Self::Ambiguous => "ambiguous",
            Self::Large => "large",
            Self::Full => "queue",
            Self::Circuit => "circuit",
        }
    }
}

/// A message for the backend; sent again it is the same one, by its id.
#[derive(Clone)]
pub(super) struct Letter {
    pub(super) event: Event,
    pub(super) id: String,
    pub(super) body: Bytes,
}

/// What the backend said: a status of 200, 401 or 403, with its body; or of another success, without.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// Makes calls.
pub(super) struct Caller {
    client: Https<Full<Bytes>>,
    uri: Uri,
    secrets: Secrets,
    pub(super) metrics: Metrics,
    breaker: Mutex<Breaker>,
}

/// Counts a call out, and tells the breaker, however it ends.
struct UnderWay<'a> {
    caller: &'a Caller,
    event: Event,
    since: Instant,
    /// None: it was given up, which says nothing.
    ok: Option<bool>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        let metrics = &self.caller.metrics;
        metrics.in_flight.dec();
        metrics.took(self.event, self.since.elapsed().as_secs_f64());
        let mut breaker = self.caller.breaker.lock();
        let before = breaker.is_open();
        match self.ok {
            Some(ok) => breaker.end(ok, Instant::now()),
            None => breaker.give_up(),
        }
        let open = breaker.is_open();
        metrics.open.set(open.into());
        match (before, open) {
            (false, true) => tracing::error!("the backend of webhooks fails: it is left alone"),
            (true, false) => tracing::info!("the backend of webhooks answers again"),
            _ => {}
        }
    }
}

impl Caller {
    /// By a checked configuration.
    ///
    /// # Errors
    /// (field, what is wrong).
    pub(super) fn new(
        settings: &Webhooks,
        secrets: Secrets,
    ) -> Result<Arc<Self>, (&'static str, String)> {
        let idle = usize::try_from(settings.max_concurrent).unwrap_or(usize::MAX);
        let client = https::client(&settings.url, settings.ca_file.as_deref(), idle);
        let client = client.map_err(|reason| ("caFile", reason))?;
        let uri = settings.url.parse().map_err(|_| ("url", "is no URL".to_owned()))?;
        let (metrics, breaker) = (Metrics::default(), Mutex::default());
        Ok(Arc::new(Self { client, uri, secrets, metrics, breaker }))
    }

    /// How long the backend is left alone yet.
    pub(super) fn wait(&self) -> std::time::Duration {
        self.breaker.lock().wait(Instant::now())
    }

    /// Posts a letter, unless the backend is left alone, and waits for an answer until `until`. It is
    /// sent once: a connection that breaks under it may have brought it there. Only what is still unsent when a
    /// kept connection turns out to be closed goes over another, by the client's own doing.
    pub(super) async fn post(
        &self,
        letter: &Letter,
        until: tokio::time::Instant,
    ) -> Result<Said, Failure> {
        if !self.breaker.lock().admit(Instant::now()) {
            return Err(Failure::Circuit);
        }
        self.metrics.in_flight.inc();
        let (event, since) = (letter.event, Instant::now());
        let mut under_way = UnderWay { caller: self, event, since, ok: None };
        let said = tokio::time::timeout_at(until, self.send(letter)).await;
        let said = said.unwrap_or(Err(Failure::Timeout));
        // Whoever answers is alive, whatever the answer means.
        let failed = matches!(said, Err(Failure::Unreachable | Failure::Timeout | Failure::Status));
        under_way.ok = Some(!failed);
        said
    }

    async fn send(&self, letter: &Letter) -> Result<Said, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let request = Request::post(self.uri.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::USER_AGENT, concat!("sluice-node/", env!("CARGO_PKG_VERSION")))
            .header("webhook-id", &letter.id)
            .header("webhook-timestamp", now)
            .header("webhook-signature", self.secrets.sign(&letter.id, now, &letter.body))
            .body(Full::new(letter.body.clone()))
            .map_err(|_| Failure::Unreachable)?;
        let response = self.client.request(request).await.map_err(|error| {
            tracing::debug!(error = https::chain(&error), "cannot reach the backend of webhooks");
            Failure::Unreachable
        })?;
        let status = response.status();
        let denied = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if !denied && !status.is_success() {
            return Err(Failure::Status);
        }
        // Of all but one status the body says nothing: it must not decide by its length or its pace.
        if status != StatusCode::OK {
            return Ok(Said { status, body: Vec::new() });
        }
        match https::read(response.into_body(), MAX_ANSWER).await {
            Ok(body) => Ok(Said { status, body }),
            Err(Unread::Large) => Err(Failure::Large),
            Err(Unread::Failed(_)) => Err(Failure::Unreachable),
        }
    }
}
