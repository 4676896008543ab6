//! A node from its start to its end, in reading order; everything else is a part that this file
//! puts in its place.

mod parts;
mod shutdown;

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use clap::builder::{OsStringValueParser, TypedValueParser};

use crate::config::{self, Env, Loaded};
use crate::telemetry::{self, Logging};

pub use parts::{Addresses, Node, start};
pub use shutdown::{Cause, MARGIN, Signals};

/// The exit code of a configuration that is refused (`EX_CONFIG`).
pub const EX_CONFIG: u8 = 78;
/// Most threads that serve sockets: above what machines have cores, below what files they may open.
const MAX_SHARDS: usize = 256;
/// The exit code after a second signal.
const EX_IMPATIENT: u8 = 130;

/// The command line.
#[derive(Debug, Parser)]
#[command(name = "channel-node", version, about = "A Phoenix-Channels-compatible realtime node")]
pub struct Args {
    /// The configuration file; without one the defaults hold and the node runs alone.
    // Not clap's own parser of paths: its word about an empty one names no variable.
    #[arg(long, env = "SLUICE_CONFIG", value_name = "FILE",
          value_parser = OsStringValueParser::new().map(PathBuf::from))]
    pub config: Option<PathBuf>,
    /// Check the configuration and exit.
    #[arg(long)]
    pub check_config: bool,
    /// Print the JSON Schema of the configuration file, or of the live one, and exit.
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "config")]
    pub print_config_schema: Option<ConfigFile>,
    /// Threads that serve sockets, at most 256; 0 is one a core.
    // Not clap's own parser of numbers: what it refuses ends with the code of a wrong command line.
    #[arg(long, env = "SLUICE_SHARDS", default_value = "0", value_name = "N",
          value_parser = OsStringValueParser::new())]
    pub shards: OsString,
}

/// One of a node's two files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ConfigFile {
    /// What is read when the node starts.
    Config,
    /// What is read whenever it changes.
    Live,
}

impl ConfigFile {
    /// Its JSON Schema; `crdgen` writes it.
    pub fn schema(self) -> &'static str {
        match self {
            Self::Config => include_str!("../schema/config.json"),
            Self::Live => include_str!("../schema/live.json"),
        }
    }
}

/// Runs a node until it is told to end; the process's exit code.
pub fn main(args: &Args) -> ExitCode {
    if let Some(file) = args.print_config_schema {
        print!("{}", file.schema());
        return ExitCode::SUCCESS;
    }
    let (loaded, logging, shards) = match checked(args) {
        Ok(checked) => checked,
        Err(problems) => return refuse(&problems),
    };
    if args.check_config {
        println!("the configuration is valid");
        return ExitCode::SUCCESS;
    }
    if let Err(error) = telemetry::start(logging) {
        return fail(&error);
    }
    // Sockets are served by threads of their own; these do the rest.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("cannot start a runtime: {error}")),
    };
    let ended = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let node = start(loaded, shards).await?;
        let cause = signals.next().await;
        tokio::select! {
            () = node.shut_down(cause) => Ok::<_, anyhow::Error>(ExitCode::SUCCESS),
            second = signals.next() => {
                tracing::warn!(?second, "told twice: ending at once");
                Ok(ExitCode::from(EX_IMPATIENT))
            }
        }
    });
    // A blocking read of a hanging volume must not keep the process.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| fail(&format!("{error:#}")))
}

/// Reads and checks all that a node is told; all problems of file, command line and environment, a line each.
fn checked(args: &Args) -> Result<(Loaded, Logging, usize), String> {
    let loaded = match &args.config {
        Some(path) if path.as_os_str().is_empty() => {
            Err("--config or SLUICE_CONFIG is empty: name a file, or leave it out".into())
        }
        path => config::load(path.as_deref(), Env::of_process()).map_err(|e| e.to_string()),
    };
    let logging = telemetry::read(|key| std::env::var(key).ok());
    let shards = shards(&args.shards);
    match (loaded, logging, shards) {
        (Ok(loaded), Ok(logging), Ok(shards)) => Ok((loaded, logging, shards)),
        (loaded, logging, shards) => {
            let problems = [loaded.err(), logging.err(), shards.err()];
            Err(problems.into_iter().flatten().collect::<Vec<_>>().join("\n"))
        }
    }
}

fn shards(text: &OsStr) -> Result<usize, String> {
    let from = "--shards or SLUICE_SHARDS";
    match text.to_str().and_then(|text| text.trim().parse().ok()) {
        Some(shards @ 0..=MAX_SHARDS) => Ok(shards),
        Some(many) => Err(format!("{from}: {many} is more than {MAX_SHARDS}")),
        None => Err(format!("{from}: {text:?} is no number from 0 to {MAX_SHARDS}")),
    }
}

fn refuse(problems: &str) -> ExitCode {
    eprintln!("channel-node: the configuration is refused:\n{problems}");
    ExitCode::from(EX_CONFIG)
}

fn fail(error: &str) -> ExitCode {
    eprintln!("channel-node: {error}");
    ExitCode::FAILURE
}
