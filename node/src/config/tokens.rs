//! The files with the tokens: read at the start, and again every second, since a mounted Secret
//! changes while the node runs. A token that is refused later leaves the last one in force.
//!
//! No token is ever in an error or a log.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_node_api::config::NodeConfig;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::small_file;
use crate::keys::{Keys, OVERLAP};

/// Fewest bytes of a token, which must be beyond guessing: a handshake of the mesh lets whoever sits on
/// the path test guesses offline, and no API counts them.
pub const MIN_TOKEN: usize = 16;
const MAX_TOKEN: usize = 4096;
/// A token and the blanks around it.
const MAX_FILE: u64 = 8192;

/// The tokens of a node. Never printed: no `Debug`.
#[derive(Clone, Default)]
pub struct Tokens {
    /// Of the mesh.
    pub mesh: Option<Keys>,
    /// Of the admin API.
    pub admin: Option<Keys>,
    /// Of the publish API.
    pub publish: Option<Keys>,
    files: Arc<Vec<File>>,
}

/// Where one of them is read again.
struct File {
    field: &'static str,
    path: String,
    keys: Keys,
    /// Why it was last refused, so that it is said once.
    refused: Mutex<Option<String>>,
}

impl Tokens {
    /// Reads those that `config` names; what is wrong goes to `problems`.
    pub(super) fn open(config: &NodeConfig, problems: &mut Vec<(String, String)>) -> Self {
        let mut files = Vec::new();
        let mut open = |field: &'static str, path: &Option<String>| {
            let path = path.clone()?;
            match read(&path) {
                Ok(token) => {
                    let keys = Keys::new(token);
                    let refused = Mutex::default();
                    files.push(File { field, path, keys: keys.clone(), refused });
                    Some(keys)
                }
                Err(reason) => {
                    problems.push((field.to_owned(), reason));
                    None
                }
            }
        };
        let named = &config.tokens;
        let mesh = open("tokens.meshFile", &named.mesh_file);
        let admin = open("tokens.adminFile", &named.admin_file);
        let publish = open("tokens.publishFile", &named.publish_file);
        Self { mesh, admin, publish, files: Arc::new(files) }
    }

    /// Looks at the files once.
    pub fn look(&self, at: Instant) {
        for file in &*self.files {
            let refused = match read(&file.path) {
                Ok(token) => {
                    if file.keys.replace(token, at) {
                        info!(file.field, before_taken_for = ?OVERLAP, "the token changed");
                    }
                    None
                }
                Err(reason) => Some(reason),
            };
            let mut said = file.refused.lock();
            if let Some(reason) = refused.as_ref().filter(|_| *said != refused) {
                error!(file.field, reason, "refused the changed token: the last one holds");
            }
            *said = refused;
        }
    }

    /// Looks every `interval`, until `stop`.
    pub async fn watch(self, interval: Duration, stop: CancellationToken) {
        if self.files.is_empty() {
            return;
        }
        super::every(interval, stop, move || self.look(Instant::now()), drop).await;
    }
}

pub(super) fn read(path: &str) -> Result<Bytes, String> {
    let text = small_file::read(path, MAX_FILE)
        .map_err(|e| format!("cannot read the token in {path}: {e}"))?;
    let token = text.trim_ascii();
    if token.len() < MIN_TOKEN {
        return Err(format!(
            "the token in {path} must have at least {MIN_TOKEN} bytes: `openssl rand -hex 16` makes one"
        ));
    }
    if token.len() > MAX_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(format!(
            "the token in {path} must be printable ASCII, at most {MAX_TOKEN} bytes"
        ));
    }
    Ok(Bytes::copy_from_slice(token))
}
