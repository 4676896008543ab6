//! The command line of `cargo e2e`.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};

use crate::say::say;
use crate::settings::{CONTEXT_VARIABLE, REGISTRY_VARIABLE, Target};
use crate::up::{self, Extent};
use crate::{
    Cluster, Settings, check, down, fuzz, holder, load, lock, matrix, processes, record, status,
};

/// A real three-node Kubernetes on this machine with Sluice on it, and everything that is checked.
#[derive(Debug, Parser)]
#[command(name = "cargo e2e", version)]
struct Arguments {
    /// Use this context of your kubeconfig instead of the local cluster.
    #[arg(long, global = true, env = CONTEXT_VARIABLE)]
    context: Option<String>,
    /// The registry that the context's cluster pulls images from and you may push to.
    #[arg(long, global = true, env = REGISTRY_VARIABLE, requires = "context")]
    registry: Option<String>,
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Bring the cluster up, install Sluice and the chat example, and wait until it is Ready.
    Up {
        /// Stop when Kubernetes is up and the images are on its nodes.
        #[arg(long)]
        bare: bool,
        /// Stop when Kubernetes is up, and build no images.
        #[arg(long, conflicts_with = "bare")]
        kubernetes: bool,
    },
    /// Check everything: format, lints, generated files, docs, charts, unit tests, end-to-end tests.
    Test {
        /// Run only the end-to-end tests whose names hold this.
        filter: Option<String>,
        /// How many end-to-end tests run side by side.
        #[arg(long, default_value_t = 2)]
        threads: usize,
    },
    /// Try unmodified Phoenix clients of several versions and languages on a node, without a cluster.
    Clients,
    /// Fuzz everything in the node that reads bytes from outside, guided by coverage.
    Fuzz {
        /// Only this target of `node/fuzz`.
        target: Option<String>,
        /// For how long each target runs.
        #[arg(long, default_value_t = fuzz::SECONDS)]
        seconds: u32,
        /// Begin with the committed corpus alone and this seed, as the checks do, not with chance and earlier finds.
        #[arg(long)]
        seed: Option<u32>,
    },
    /// Measure what a node costs on this machine, beside a bare epoll server in the same run; prints JSON.
    #[command(disable_help_flag = true)]
    Load {
        /// Arguments of the load program: `--help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Record a deploy under live clients, and make the docs' timeline and picture of it.
    Record,
    /// End the local cluster, leaving nothing of it; uninstall from a cluster of yours.
    Down {
        /// Remove logs, images and certificates too.
        #[arg(long)]
        purge: bool,
    },
    /// Say what runs.
    Status,
    /// Rebuild the images and load them on the nodes.
    Images,
    /// Run kubectl on the cluster.
    #[command(disable_help_flag = true)]
    Kubectl {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run helm on the cluster.
    #[command(disable_help_flag = true)]
    Helm {
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Print the log of a component, or the names of all.
    Logs {
        /// A component, such as `operator` or `kube-apiserver`.
        component: Option<String>,
        /// Go on as it grows.
        #[arg(short, long)]
        follow: bool,
    },
}

/// Runs the program.
pub fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let target = match arguments.context.filter(|name| !name.is_empty()) {
        Some(name) => Target::Context { name, registry: arguments.registry },
        None => Target::Local,
    };
    let settings = Settings::new(target)?;
    match arguments.action {
        Action::Up { bare, kubernetes } => {
            let _lock = changing(&settings)?;
            let extent = match (bare, kubernetes) {
                (_, true) => Extent::Kubernetes,
                (true, _) => Extent::Images,
                _ => Extent::Example,
            };
            up::up(&settings, extent)
        }
        Action::Test { filter, threads } => {
            let _lock = changing(&settings)?;
            check::test(&settings, filter.as_deref(), threads)
        }
        Action::Clients => matrix::run(&settings),
        Action::Fuzz { target, seconds, seed } => {
            fuzz::run(&settings, target.as_deref(), fuzz::Length { seconds, seed })
        }
        Action::Load { arguments } => load::run(&settings, &arguments),
        Action::Record => {
            let _lock = changing(&settings)?;
            record::record(&settings)
        }
        Action::Down { purge } => {
            let _lock = changing(&settings)?;
            down::down(&settings, purge)
        }
        Action::Images => {
            let _lock = changing(&settings)?;
            up::images(&settings)
                .map(|images| images.names().iter().for_each(|name| say!("{name}")))
        }
        Action::Status => status::status(&settings),
        Action::Kubectl { arguments } => {
            if settings.is_local() && processes::recorded(&settings).is_empty() {
                bail!("the local cluster is down: bring it up with `cargo e2e up`");
            }
            become_tool(Cluster::of(&settings)?.kubectl_command(arguments)?)
        }
        Action::Helm { arguments } => become_tool(Cluster::of(&settings)?.helm_command(arguments)?),
        Action::Logs { component, follow } => status::logs(&settings, component.as_deref(), follow),
    }
}

/// What changes the cluster is done by one run at a time.
fn changing(settings: &Settings) -> Result<Vec<lock::Lock>> {
    let own = || lock::take(&settings.state);
    if settings.is_local() {
        crate::packages::check_machine()?;
        let machine = lock::take_machine()?;
        holder::refuse_other(settings)?;
        return Ok(vec![machine, own()?]);
    }
    Cluster::of(settings)?.check_context()?;
    Ok(vec![own()?])
}

fn become_tool(mut command: Command) -> Result<()> {
    command.stdin(std::process::Stdio::inherit());
    if let Ok(folder) = std::env::current_dir() {
        command.current_dir(folder);
    }
    let error = command.exec();
    Err(error).context("starting the program")?;
    bail!("the program was not started")
}
