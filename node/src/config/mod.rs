//! What a node is told: its file, its tokens, its environment; all checked before anything starts.
//!
//! Nothing here listens or connects, and no token or password is ever in an error or a log.

mod auth;
mod check;
mod env;
mod file;
pub mod live;
mod locate;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use sluice_node_api::config::{Adapter, NodeConfig};

use crate::auth::Bearer;

pub use check::{check_live, check_node};
pub use env::Env;
pub use file::{ConfigError, Problem, hash, parse_live, parse_node};
pub use live::LiveFile;

/// Fewest bytes of a mesh token. A handshake lets whoever sits on the path test guesses offline,
/// so a token must be beyond guessing.
pub const MIN_MESH_TOKEN: usize = 16;
const MAX_TOKEN: usize = 4096;

/// Everything that a node needs to start.
pub struct Loaded {
    /// The node's configuration.
    pub config: NodeConfig,
    /// What the environment says.
    pub env: Env,
    /// The tokens, read.
    pub tokens: TokenValues,
    /// Who may connect, if not everybody.
    pub auth: Option<Bearer>,
    /// The live configuration in force at the start, and where it is read again.
    pub live: LiveFile,
}

/// The tokens themselves. Never printed: no `Debug`.
#[derive(Clone, Default)]
pub struct TokenValues {
    /// Of the mesh.
    pub mesh: Option<Bytes>,
    /// Of the admin API.
    pub admin: Option<Bytes>,
    /// Of the publish API.
    pub publish: Option<Bytes>,
}

/// Reads and checks everything; without `path` the defaults hold.
///
/// # Errors
/// All problems at once, each with file, line if known, and what to do.
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
    let mut tokens = TokenValues::default();
    for (field, file, slot, min) in [
        ("tokens.meshFile", &config.tokens.mesh_file, &mut tokens.mesh, MIN_MESH_TOKEN),
        ("tokens.adminFile", &config.tokens.admin_file, &mut tokens.admin, 1),
        ("tokens.publishFile", &config.tokens.publish_file, &mut tokens.publish, 1),
    ] {
        match file.as_ref().map(|f| read_token(f, min)).transpose() {
            Ok(token) => *slot = token,
            Err(reason) => problems.push((field.to_owned(), reason)),
        }
    }
    if config.pubsub.adapter == Adapter::Redis
        && let Some(redis) = &config.pubsub.redis
        && let Err(reason) = crate::redis_adapter::read_url(Path::new(&redis.url_file))
    {
        problems.push(("pubsub.redis.urlFile".into(), reason));
    }
    // Keys of a configuration that is refused anyway are of no use.
    let bearer = match problems.is_empty() {
        true => auth::load(&config.auth, &mut problems),
        false => None,
    };
    if !problems.is_empty() {
        return Err(ConfigError::located(&shown, &text, problems));
    }
    let live = LiveFile::open(config.live_file.as_ref().map(PathBuf::from))?;
    Ok(Loaded { config, env, tokens, auth: bearer, live })
}

fn read_token(path: &str, min: usize) -> Result<Bytes, String> {
    let text = std::fs::read(path).map_err(|e| format!("cannot read the token in {path}: {e}"))?;
    let token = text.trim_ascii();
    if token.len() < min || token.is_empty() {
        return Err(format!("the token in {path} must have at least {min} bytes"));
    }
    if token.len() > MAX_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(format!(
            "the token in {path} must be printable ASCII, at most {MAX_TOKEN} bytes"
        ));
    }
    Ok(Bytes::copy_from_slice(token))
}

#[cfg(test)]
mod tests;
