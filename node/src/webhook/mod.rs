//! A backend that decides and is told, over HTTP, so that any language can hold an application's logic.
//! [`Webhook`] is the handle; start there. `secrets` signs, `call` is one request, `breaker` leaves a
//! backend alone that is down, `answer` reads what it says and `decision` its yes or no, `notices` is what
//! it is told, `door` asks it who may connect, `topics` about joins and events; `held` says what a client
//! costs that waits.
//!
//! Everything here is bounded: questions under way, those that wait (by number and bytes), notices that
//! wait, answers, and time. No payload, token, claim or answer is ever in a log or a metric.

mod answer;
mod breaker;
mod call;
mod decision;
mod door;
mod held;
mod metrics;
mod notices;
mod secrets;
mod topics;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sluice_node_api::webhooks::{OnFailure, Webhooks};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

pub use call::Event;
pub use door::Door;
pub use secrets::Secrets;

pub(crate) use answer::{Handling, Spread, Verdict};
pub(crate) use topics::{Seat, Shown};

use call::{Caller, Failure, Letter, Said};
use metrics::Metrics;
use notices::Notices;

/// Of `maxConcurrent`, the part that notices have beside it.
const NOTICES: u32 = 4;
/// Bytes of questions that may wait, with what is kept for them.
const MAX_BYTES: usize = 32 << 20;

/// A cheap handle to the backend.
#[derive(Clone)]
pub struct Webhook(Arc<Shared>);

struct Shared {
    settings: Webhooks,
    cluster: String,
    node: String,
    caller: Arc<Caller>,
    secrets: Secrets,
    notices: Notices,
    room: Semaphore,
    waiting: AtomicUsize,
    waiting_bytes: AtomicUsize,
    /// Whether it is logged that an answer said `allow` twice.
    ambiguous: Once,
    /// Requests run here, wherever they are asked from.
    runtime: tokio::runtime::Handle,
}

/// A question that waits; counted out however its wait ends.
struct Waiting<'a> {
    shared: &'a Shared,
    bytes: usize,
}

impl<'a> Waiting<'a> {
    /// Counts one in, if there is room for it.
    fn new(shared: &'a Shared, bytes: usize) -> Option<Self> {
        shared.caller.metrics.waiting.inc();
        let number = shared.waiting.fetch_add(1, Ordering::Relaxed);
        let before = shared.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let waiting = Self { shared, bytes };
        let most = usize::try_from(shared.settings.max_queued).unwrap_or(usize::MAX);
        (number < most && before.saturating_add(bytes) <= MAX_BYTES).then_some(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
        self.shared.waiting_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.shared.caller.metrics.waiting.dec();
    }
}

/// Counts a question that nobody waits for any more, when it is dropped.
struct GivenUp<'a>(Option<(&'a Metrics, Event)>);

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if let Some((metrics, event)) = self.0 {
            metrics.count(event, "aborted", 1);
        }
    }
}

/// What every call says.
#[derive(Serialize)]
struct Body<'a, T> {
    #[serde(rename = "type")]
    event: &'static str,
    timestamp: String,
    data: Data<'a, T>,
}

#[derive(Serialize)]
struct Data<'a, T> {
    cluster: &'a str,
    node: &'a str,
    #[serde(flatten)]
    more: &'a T,
}

impl Webhook {
    /// By a checked configuration, for the node `node` of `cluster`. To be called on a tokio runtime,
    /// which then carries its requests.
    ///
    /// # Errors
    /// (field of `webhooks`, what is wrong).
    pub fn new(
        settings: Webhooks,
        secrets: Secrets,
        cluster: &str,
        node: &str,
    ) -> Result<Self, (&'static str, String)> {
        let caller = Caller::new(&settings, secrets.clone())?;
        let (timeout, most) = (timeout(&settings), settings.max_queued);
        let notices =
            Notices::new(caller.clone(), timeout, most, settings.max_concurrent / NOTICES);
        let room = Semaphore::new(usize::try_from(settings.max_concurrent).unwrap_or(1));
        let runtime = tokio::runtime::Handle::current();
        runtime.spawn(notices.clone().run());
        Ok(Self(Arc::new(Shared {
            settings,
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            caller,
            secrets,
            notices,
            room,
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            ambiguous: Once::new(),
            runtime,
        })))
    }

    /// Keeps the secrets up to date, until `stop`.
    pub async fn watch(self, interval: Duration, stop: CancellationToken) {
        self.0.secrets.clone().watch(interval, stop).await;
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.0.caller.metrics.register(registry);
    }

    /// Waits until the backend is told of everything, for `bound` at the most.
    pub async fn flush(&self, bound: Duration) {
        self.0.notices.flush(bound).await;
    }

    /// Asks, within the configured time; the answer by `read`. A question that whoever asks gives up
    /// ends at once, and makes room; but one about an event does not: what a client has said before it
    /// went is for the backend. Whoever asks keeps `held` bytes until the answer.
    async fn ask<T>(
        &self,
        letter: Letter,
        held: usize,
        read: impl Fn(&Said) -> Result<Verdict<T>, Failure>,
    ) -> Result<Verdict<T>, Failure> {
        let (this, event) = (self.clone(), letter.event);
        let until = Instant::now() + timeout(&self.0.settings);
        let asked = self.0.runtime.spawn(async move { this.in_turn(&letter, held, until).await });
        let mut given_up = GivenUp(Some((&self.0.caller.metrics, event)));
        let said = match event {
            Event::Event => asked.await,
            _ => AbortOnDropHandle::new(asked).await,
        };
        given_up.0 = None;
        let said = said.unwrap_or(Err(Failure::Unreachable));
        let verdict = said.and_then(|said| read(&said));
        let outcome = match &verdict {
            Ok(Verdict::Allowed(_)) => "allowed",
            Ok(Verdict::Denied(_)) => "denied",
            Err(failure) => failure.word(),
        };
        self.0.caller.metrics.count(event, outcome, 1);
        if verdict.as_ref().is_err_and(|failure| *failure == Failure::Ambiguous) {
            // Each is counted; the log has no room for each.
            self.0.ambiguous.call_once(|| {
                warn!("the backend of webhooks has said `allow` twice in an answer, which refuses");
            });
            return Ok(Verdict::Denied(None));
        }
        verdict
    }

    /// Posts when there is room.
    async fn in_turn(&self, letter: &Letter, held: usize, until: Instant) -> Result<Said, Failure> {
        let permit = match self.0.room.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let bytes = letter.body.len().saturating_add(held);
                let _waiting = Waiting::new(&self.0, bytes).ok_or(Failure::Full)?;
                let room = timeout_at(until, self.0.room.acquire()).await;
                room.map_err(|_| Failure::Timeout)?.map_err(|_| Failure::Unreachable)?
            }
        };
        let said = self.0.caller.post(letter, until).await;
        drop(permit);
        said
    }

    /// Whether what the backend does not answer is allowed.
    pub(crate) fn lenient(&self) -> bool {
        self.0.settings.on_failure == OnFailure::Allow
    }

    fn tell(&self, event: Event, data: &impl Serialize) {
        self.0.notices.tell(self.letter(event, data));
    }

    fn letter(&self, event: Event, data: &impl Serialize) -> Letter {
        let data = Data { cluster: &self.0.cluster, node: &self.0.node, more: data };
        let body = Body { event: event.name(), timestamp: Timestamp::now().to_string(), data };
        let id = format!("msg_{:032x}", rand::random::<u128>());
        // Maps with names for keys can always be written.
        Letter { event, id, body: serde_json::to_vec(&body).unwrap_or_default().into() }
    }
}

fn timeout(settings: &Webhooks) -> Duration {
    Duration::from_millis(settings.timeout_milliseconds.into())
}
