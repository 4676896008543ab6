//! A backend that decides and is told, over HTTP, so that any language can hold an application's logic.
//! [`Webhook`] is the handle; start there. `secrets` signs, `call` is one request, `breaker` leaves a
//! backend alone that is down, `answer` reads what it says, `notices` is what it is told, `door` asks it
//! who may connect.
//!
//! Everything here is bounded: questions under way, those that wait, notices that wait, answers, and
//! time. No payload, token, claim or answer is ever in a log or a metric.

mod answer;
mod breaker;
mod call;
mod door;
mod metrics;
mod notices;
mod secrets;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use sluice_node_api::webhooks::{OnFailure, Webhooks};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use call::Event;
pub use door::Door;
pub use secrets::Secrets;

use call::{Caller, Failure, Letter, Said};
use notices::Notices;

/// Of `maxConcurrent`, the part that notices have beside it.
const NOTICES: u32 = 4;

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
    /// Requests run here, wherever they are asked from.
    runtime: tokio::runtime::Handle,
}

/// Counts a question that waits out, however its wait ends.
struct Waiting<'a>(&'a Shared);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.caller.metrics.waiting.dec();
    }
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
        let (cluster, node, waiting) = (cluster.to_owned(), node.to_owned(), AtomicUsize::new(0));
        let shared =
            Shared { settings, cluster, node, caller, secrets, notices, room, waiting, runtime };
        Ok(Self(Arc::new(shared)))
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

    /// Asks, within the configured time; the answer by `read`. A question that is given up by whoever
    /// asks ends by itself.
    async fn ask<T>(
        &self,
        event: Event,
        data: Value,
        read: impl Fn(&Said) -> Result<answer::Verdict<T>, Failure>,
    ) -> Result<answer::Verdict<T>, Failure> {
        let (this, letter) = (self.clone(), self.letter(event, data));
        let bound = timeout(&self.0.settings);
        let asked = self.0.runtime.spawn(async move {
            let post = this.in_turn(&letter);
            tokio::time::timeout(bound, post).await.unwrap_or(Err(Failure::Timeout))
        });
        let said = asked.await.unwrap_or(Err(Failure::Unreachable));
        let verdict = said.and_then(|said| read(&said));
        let outcome = match &verdict {
            Ok(answer::Verdict::Allowed(_)) => "allowed",
            Ok(answer::Verdict::Denied) => "denied",
            Err(failure) => failure.word(),
        };
        self.0.caller.metrics.count(event, outcome, 1);
        verdict
    }

    /// Posts when there is room.
    async fn in_turn(&self, letter: &Letter) -> Result<Said, Failure> {
        let most = usize::try_from(self.0.settings.max_queued).unwrap_or(usize::MAX);
        let permit = match self.0.room.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                self.0.caller.metrics.waiting.inc();
                let before = self.0.waiting.fetch_add(1, Ordering::Relaxed);
                let _waiting = Waiting(&self.0);
                if before >= most {
                    return Err(Failure::Full);
                }
                self.0.room.acquire().await.map_err(|_| Failure::Unreachable)?
            }
        };
        let said = self.0.caller.post(letter).await;
        drop(permit);
        said
    }

    /// Whether what the backend does not answer is allowed.
    fn lenient(&self) -> bool {
        self.0.settings.on_failure == OnFailure::Allow
    }

    fn tell(&self, event: Event, data: Value) {
        self.0.notices.tell(self.letter(event, data));
    }

    fn letter(&self, event: Event, mut data: Value) -> Letter {
        data["cluster"] = self.0.cluster.as_str().into();
        data["node"] = self.0.node.as_str().into();
        let now = Timestamp::now().to_string();
        let body = json!({ "type": event.name(), "timestamp": now, "data": data }).to_string();
        let id = format!("msg_{:032x}", rand::random::<u128>());
        Letter { event, id, body: body.into() }
    }
}

fn timeout(settings: &Webhooks) -> Duration {
    Duration::from_millis(settings.timeout_milliseconds.into())
}
