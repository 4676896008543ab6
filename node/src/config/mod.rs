//! What a node is told: its file, its tokens, its environment; all checked before anything starts.
//!
//! Nothing here listens or connects, and no token or password is ever in an error or a log.

mod auth;
mod check;
mod env;
mod file;
pub mod live;
mod locate;
pub(crate) mod small_file;
mod tokens;
mod webhooks;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sluice_node_api::config::{Adapter, NodeConfig};
use tokio_util::sync::CancellationToken;

use crate::auth::Bearer;
use crate::webhook::Secrets;

pub use check::{check_live, check_node};
pub use env::Env;
pub use file::{ConfigError, Problem, hash, parse_live, parse_node};
pub use live::LiveFile;
pub use tokens::{MIN_TOKEN, Tokens};

/// Everything that a node needs to start.
pub struct Loaded {
    /// The node's configuration.
    pub config: NodeConfig,
    /// What the environment says.
    pub env: Env,
    /// The tokens, read, and where they are read again.
    pub tokens: Tokens,
    /// Who may connect, if not everybody.
    pub auth: Option<Bearer>,
    /// What signs calls to the backend, if there is one.
    pub webhook_secrets: Option<Secrets>,
    /// The live configuration in force at the start, and where it is read again.
    pub live: LiveFile,
}

/// Reads and checks everything; without `path` the defaults hold.
///
/// # Errors
/// Each problem with file, line if known, and what to do: all at once, or the first of a file that cannot be read.
pub fn load(path: Option<&Path>, env: Env) -> Result<Loaded, ConfigError> {
    let (config, text) = match path {
        Some(path) => {
            let text = file::read(path)?;
            (parse_node(path, &text)?, text)
        }
        None => (NodeConfig::default(), String::new()),
    };
    let shown = path.map_or_else(|| PathBuf::from("(defaults)"), Path::to_path_buf);
    let mut problems = check_node(&config);
    problems.extend(env.check());
    let tokens = Tokens::open(&config, &mut problems);
    if config.pubsub.adapter == Adapter::Redis
        && let Some(redis) = &config.pubsub.redis
        && let Err(reason) = crate::redis_adapter::read_url(Path::new(&redis.url_file))
    {
        problems.push(("pubsub.redis.urlFile".into(), reason.to_string()));
    }
    let secrets = config.webhooks.as_ref().map(|webhooks| Secrets::open(&webhooks.secret_file));
    let webhook_secrets = secrets.and_then(|secrets| match secrets {
        Ok(secrets) => Some(secrets),
        Err(reason) => {
            problems.push(("webhooks.secretFile".into(), reason));
            None
        }
    });
    // Keys of a configuration that is refused anyway are of no use.
    let bearer = match problems.is_empty() {
        true => auth::load(&config.auth, &mut problems),
        false => None,
    };
    if !problems.is_empty() {
        return Err(ConfigError::located(&shown, &text, problems));
    }
    let live_file = config.live_file.as_ref().map(PathBuf::from);
    let live = LiveFile::open(live_file, config.webhooks.is_some())?;
    Ok(Loaded { config, env, tokens, auth: bearer, webhook_secrets, live })
}

/// Looks at files every `interval` and hands what was found to `apply`, until `stop`.
pub(crate) async fn every<T: Send + 'static>(
    interval: Duration,
    stop: CancellationToken,
    look: impl Fn() -> T + Clone + Send + 'static,
    apply: impl Fn(T) + Send,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(interval) => {}
        }
        // A mounted volume may hang; the runtime's threads must not hang with it.
        if let Ok(found) = tokio::task::spawn_blocking(look.clone()).await {
            apply(found);
        }
    }
}

#[cfg(test)]
mod tests;
