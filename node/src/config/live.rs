//! The live configuration: read again whenever its content changes, without a restart.
//!
//! Looks at content, not at times or inodes, because a mounted ConfigMap changes by a swap of
//! symlinks. A change for the worse never takes effect: the last valid one stays in force.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use sluice_node_api::config::LiveConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::check::never_used;
use super::file::{ConfigError, hash, names_channels, parse_live, read, without_channels};

/// Between two looks at the file.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// A cheap handle to the live configuration.
#[derive(Clone)]
pub struct LiveFile(Arc<Shared>);

struct Shared {
    path: Option<PathBuf>,
    /// Whether the node has a backend, which rules may call.
    backend: bool,
    now: Mutex<Now>,
    reloads: Family<ResultLabel, Counter>,
}

struct Now {
    config: Arc<LiveConfig>,
    hash: String,
    /// The topic rules in force were written, and are not the defaults.
    ruled: bool,
    /// What was last seen and refused, so that it is logged once, and why.
    refused: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

impl LiveFile {
    /// Reads the file of a node that has a `backend` or none, for the first time; without a file the
    /// defaults hold.
    ///
    /// # Errors
    /// When it is not valid: there is no earlier one to keep.
    pub fn open(path: Option<PathBuf>, backend: bool) -> Result<Self, ConfigError> {
        let (config, hash, ruled) = match &path {
            None => (LiveConfig::default(), String::new(), false),
            Some(path) => {
                let text = read(path)?;
                (parse_live(path, &text, backend)?, hash(&text), names_channels(&text))
            }
        };
        let now = Mutex::new(Now { config: Arc::new(config), hash, ruled, refused: None });
        Ok(Self(Arc::new(Shared { path, backend, now, reloads: Family::default() })))
    }

    /// What is in force.
    pub fn config(&self) -> Arc<LiveConfig> {
        self.0.now.lock().config.clone()
    }

    /// The hash of what is in force; empty without a file.
    pub fn hash(&self) -> String {
        self.0.now.lock().hash.clone()
    }

    /// Why the file as it is now is not in force; empty when it is.
    pub fn refused(&self) -> String {
        self.0.now.lock().refused.clone().map(|(_, why)| why).unwrap_or_default()
    }

    /// Looks at the file once; the new configuration, if there is one.
    pub fn look(&self) -> Option<Arc<LiveConfig>> {
        let path = self.0.path.as_ref()?;
        let text = read(path);
        let seen = match &text {
            Ok(text) => hash(text),
            Err(e) => e.to_string(),
        };
        let mut now = self.0.now.lock();
        if seen == now.hash {
            now.refused = None;
            return None;
        }
        if now.refused.as_ref().is_some_and(|(refused, _)| *refused == seen) {
            return None;
        }
        let ruled_before = now.ruled;
        let changed = text.and_then(|text| {
            let (config, ruled) = (parse_live(path, &text, self.0.backend)?, names_channels(&text));
            if ruled_before && !ruled { Err(without_channels(path)) } else { Ok((config, ruled)) }
        });
        match changed {
            Ok((config, ruled)) => {
                *now = Now { config: Arc::new(config), hash: seen, ruled, refused: None };
                self.count("ok");
                info!(hash = now.hash, "the live configuration changed");
                warn_of(&now.config);
                Some(now.config.clone())
            }
            Err(error) => {
                now.refused = Some((seen, error.to_string()));
                self.count("refused");
                error!(%error, in_force = now.hash, "refused the changed live configuration");
                None
            }
        }
    }

    fn count(&self, result: &'static str) {
        self.0.reloads.get_or_create(&ResultLabel { result }).inc();
    }

    /// Looks every `interval` and hands each new configuration to `apply`, until `stop`.
    pub async fn watch(
        self,
        interval: Duration,
        stop: CancellationToken,
        apply: impl Fn(Arc<LiveConfig>) + Send,
    ) {
        if self.0.path.is_none() {
            return;
        }
        warn_of(&self.config());
        let apply = move |config| {
            if let Some(config) = config {
                apply(config);
            }
        };
        super::every(interval, stop, move || self.look(), apply).await;
    }

    /// Registers the count of reloads.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Changes of the live configuration, taken or refused";
        registry.register("live_config_reloads", help, self.0.reloads.clone());
    }
}

/// Tells of what is valid and most likely not meant.
fn warn_of(config: &LiveConfig) {
    for (rule, reason) in never_used(config) {
        warn!("{rule}: {reason}");
    }
}
