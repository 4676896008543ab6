//! Where everything is: the repository, the state folder, the kubeconfig and the cluster that is meant.
//!
//! It names places, and makes none of them but the state folder.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Environment variable that moves the state folder.
pub const STATE_VARIABLE: &str = "SLUICE_E2E_STATE";
/// Environment variable that names a cluster of the user's, as `--context` does.
pub const CONTEXT_VARIABLE: &str = "SLUICE_E2E_CONTEXT";
/// Environment variable that names the registry, as `--registry` does.
pub const REGISTRY_VARIABLE: &str = "SLUICE_E2E_REGISTRY";

/// Socket paths are limited to 107 bytes, and the longest one below the state folder needs the rest.
const LONGEST_STATE_PATH: usize = 40;

/// The cluster that a command is about.
#[derive(Debug, Clone)]
pub enum Target {
    /// The three nodes on this machine.
    Local,
    /// A cluster that the user has.
    Context {
        /// Its context in the user's kubeconfig.
        name: String,
        /// Where its nodes pull images from.
        registry: Option<String>,
    },
}

/// What every command starts from.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The root of the checkout.
    pub repo: PathBuf,
    /// The state folder: processes, logs, images, certificates.
    pub state: PathBuf,
    /// The cluster that is meant.
    pub target: Target,
}

impl Settings {
    /// Settings for a target, with the state folder from the environment or its default.
    pub fn new(target: Target) -> Result<Self> {
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repo = manifest
            .ancestors()
            .find(|folder| folder.join("e2e/kubernetes/go.mod").exists())
            .with_context(|| format!("{} is not in a checkout of Sluice", manifest.display()))?
            .to_path_buf();
        let state = match env::var_os(STATE_VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => default_state(&target)?,
        };
        if !state.is_absolute() {
            bail!("{STATE_VARIABLE} must be an absolute path, and is {}", state.display());
        }
        if matches!(target, Target::Local) && state.as_os_str().len() > LONGEST_STATE_PATH {
            bail!(
                "{} is longer than the {LONGEST_STATE_PATH} bytes that socket paths leave: set {STATE_VARIABLE} to a shorter path",
                state.display()
            );
        }
        Ok(Self { repo, state, target })
    }

    /// Settings from the environment alone, as tests get them.
    pub fn from_environment() -> Result<Self> {
        let set = |name| env::var(name).ok().filter(|value| !value.is_empty());
        Self::new(match set(CONTEXT_VARIABLE) {
            Some(name) => Target::Context { name, registry: set(REGISTRY_VARIABLE) },
            None => Target::Local,
        })
    }

    /// Whether the cluster is the one on this machine.
    pub fn is_local(&self) -> bool {
        matches!(self.target, Target::Local)
    }

    /// The environment that tells a child process of these settings.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![(STATE_VARIABLE, self.state.display().to_string())];
        if let Target::Context { name, registry } = &self.target {
            variables.push((CONTEXT_VARIABLE, name.clone()));
            variables.push((REGISTRY_VARIABLE, registry.clone().unwrap_or_default()));
        }
        if let Some(kubeconfig) = self.kubeconfig() {
            variables.push(("KUBECONFIG", kubeconfig.display().to_string()));
        }
        variables
    }

    /// Makes the state folder with the folder of the logs, and sees that it can be written to.
    pub fn prepare(&self) -> Result<()> {
        let logs = self.logs();
        let writable = fs::create_dir_all(&logs).and_then(|()| {
            let probe = logs.join(format!(".{}", std::process::id()));
            fs::write(&probe, "").and_then(|()| fs::remove_file(&probe))
        });
        writable.with_context(|| {
            format!(
                "{} can't be written to: run the same command as root, or set {STATE_VARIABLE} to a folder of yours",
                self.state.display()
            )
        })
    }

    /// The local cluster's kubeconfig; none where the user's own is used.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        self.is_local().then(|| self.state.join("kubeconfig"))
    }

    /// The folder of the components' logs.
    pub fn logs(&self) -> PathBuf {
        self.state.join("log")
    }

    /// The log of one component or step.
    pub fn log(&self, component: &str) -> PathBuf {
        self.logs().join(format!("{component}.log"))
    }

    /// A path in the checkout.
    pub fn in_repo(&self, path: impl AsRef<Path>) -> PathBuf {
        self.repo.join(path)
    }
}

/// The user's own cache folder for Sluice, shared by all checkouts.
pub fn cache() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => home()?.join(".cache"),
    };
    Ok(base.join("sluice"))
}

fn default_state(target: &Target) -> Result<PathBuf> {
    Ok(match target {
        Target::Local => PathBuf::from("/var/lib/sluice-e2e"),
        Target::Context { name, .. } => {
            let folder: String =
                name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
            home()?.join(".local/state/sluice-e2e").join(folder)
        }
    })
}

fn home() -> Result<PathBuf> {
    env::var_os("HOME").map(PathBuf::from).context("HOME is not set: set it to your home folder")
}
