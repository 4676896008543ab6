//! The keys that an issuer publishes, kept up to date: fetched at the start and every so often, and
//! at once for a token that no key of the set can have signed (rotation), though not more often than
//! the configuration says. One task fetches; all others wait for it, for a bounded time. A fetch that
//! fails changes nothing and is counted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use http::header::ACCEPT;
use http_body_util::Empty;
use parking_lot::RwLock;
use prometheus_client::metrics::{counter::Counter, family::Family};
use sluice_node_api::auth::Jwks as Settings;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::keys::Keys;
use crate::{
    https::{self, Unread, chain},
    hub::Reason,
};

/// Largest key set, in bytes.
const MAX_BODY: usize = 256 << 10;

/// Gives the key set's text.
pub(super) type Source = Arc<dyn Fn() -> BoxFuture<'static, Result<Vec<u8>, String>> + Send + Sync>;

/// The key set in force.
pub(super) struct Jwks {
    settings: Settings,
    keys: RwLock<Arc<Keys>>,
    /// The last fetch that ended; how often one has.
    last: watch::Sender<(Option<Instant>, u64)>,
    wanted: Notify,
    /// Fetches by result, `ok` or `failed`.
    pub(super) fetches: Family<Reason, Counter>,
}

impl Jwks {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            keys: RwLock::default(),
            last: watch::Sender::new((None, 0)),
            wanted: Notify::new(),
            fetches: Family::default(),
        }
    }

    /// The keys of the last fetch that succeeded.
    pub(super) fn keys(&self) -> Arc<Keys> {
        self.keys.read().clone()
    }

    /// Has the set fetched, if that may be; whether it was. Waits no longer than a fetch may take.
    pub(super) async fn refetched(&self) -> bool {
        let mut last = self.last.subscribe();
        let (at, seen) = *last.borrow();
        if at.is_some_and(|at| at.elapsed() < seconds(self.settings.unknown_kid_seconds)) {
            return false;
        }
        self.wanted.notify_one();
        let fetched = last.wait_for(|(_, count)| *count > seen);
        let bound = seconds(self.settings.timeout_seconds);
        tokio::time::timeout(bound, fetched).await.is_ok_and(|fetched| fetched.is_ok())
    }

    /// Fetches, until `stop`.
    pub(super) async fn run(self: Arc<Self>, source: Source, stop: CancellationToken) {
        let refresh = seconds(self.settings.refresh_seconds);
        let soonest = seconds(self.settings.unknown_kid_seconds);
        loop {
            let Some(good) = stop.run_until_cancelled(self.fetch(&source)).await else { return };
            // Without any keys nobody gets in: the next try comes sooner.
            let pause = if good { refresh } else { refresh.min(soonest.max(seconds(1))) };
            let ended = Instant::now();
            // Whoever asked meanwhile has got what they asked for.
            let _ = self.wanted.notified().now_or_never();
            self.last.send_modify(|(at, count)| {
                *at = Some(ended);
                *count += 1;
            });
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {
                    let pause = tokio::time::sleep_until(ended + soonest);
                    if stop.run_until_cancelled(pause).await.is_none() {
                        return;
                    }
                }
            }
        }
    }

    async fn fetch(&self, source: &Source) -> bool {
        let bound = seconds(self.settings.timeout_seconds);
        let text = tokio::time::timeout(bound, source()).await;
        let text = text.unwrap_or_else(|_| Err("no answer in time".into()));
        let keys = text.and_then(|text| {
            Keys::jwks(&text, &self.settings.algorithms).map_err(ToOwned::to_owned)
        });
        let reason = if keys.is_ok() { "ok" } else { "failed" };
        let before = self.fetches.get_or_create(&Reason { reason: "ok" }).get();
        self.fetches.get_or_create(&Reason { reason }).inc();
        match keys {
            Ok(keys) => {
                *self.keys.write() = Arc::new(keys);
                if before == 0 {
                    info!(url = self.settings.url, "fetched the keys of tokens");
                }
                true
            }
            Err(error) => {
                warn!(url = self.settings.url, error, "cannot fetch the keys of tokens");
                false
            }
        }
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

/// The source that is configured: GET of the URL, without redirects.
///
/// # Errors
/// No authorities to trust, or bad ones.
pub(super) fn http(settings: &Settings) -> Result<Source, String> {
    let client = https::client(&settings.url, settings.ca_file.as_deref(), 0)?;
    let uri: http::Uri = settings.url.parse().map_err(|_| "`url` is no URL".to_owned())?;
    Ok(Arc::new(move || {
        let request = http::Request::get(uri.clone()).header(ACCEPT, "application/json");
        let response = request.body(Empty::<Bytes>::new()).map(|request| client.request(request));
        Box::pin(async move {
            let response = response.map_err(|error| chain(&error))?;
            let response = response.await.map_err(|error| chain(&error))?;
            if response.status() != http::StatusCode::OK {
                return Err(format!("the answer is {}", response.status().as_u16()));
            }
            https::read(response.into_body(), MAX_BODY).await.map_err(|unread| match unread {
                Unread::Large => format!("the answer has more than {MAX_BODY} bytes"),
                Unread::Failed(error) => error,
            })
        })
    }))
}

#[cfg(test)]
#[path = "jwks_tests.rs"]
mod tests;
