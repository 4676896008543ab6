//! `status` and `logs`: what runs, and what it says.

use std::{fs, time::Duration};

use anyhow::{Result, bail};

use crate::cluster::{Cluster, OPERATOR_LOGS};
use crate::command::{LONG, command, stream};
use crate::say::{heard, say};
use crate::{Settings, holder, leftovers, processes};

/// Longest that a log is followed.
const FOLLOWED: Duration = Duration::from_secs(7 * 24 * 3600);

/// Prints what runs.
pub fn status(settings: &Settings) -> Result<()> {
    if settings.is_local() {
        let recorded = processes::recorded(settings);
        if recorded.is_empty() {
            if let Some(other) = holder::other(settings) {
                say!("{}.", holder::said(&other, settings));
                return Ok(());
            }
            say!("The local cluster is down: bring it up with `cargo e2e up`.");
            if !rustix::process::geteuid().is_root() {
                say!("Whether another state folder's runs here, only root can tell.");
            } else if leftovers::any(settings) {
                say!("Something of it was left, which `cargo e2e down` clears.");
            }
            return Ok(());
        }
        for name in recorded {
            match processes::running(settings, &name) {
                Some(record) => say!("  {name:<26} process {}", record.pid),
                None if !rustix::process::geteuid().is_root() => {
                    say!("  {name:<26} unknown: only root can tell");
                }
                None => say!("  {name:<26} ENDED, see {}", settings.log(&name).display()),
            }
        }
        say!("  state and logs             {}", settings.state.display());
    }
    let cluster = Cluster::of(settings)?;
    for what in [&["get", "nodes", "-o", "wide"][..], &["get", "pods", "-A", "-o", "wide"]] {
        say!("");
        if !heard(stream(&mut cluster.kubectl_command(what)?, LONG)?).success() {
            bail!("the cluster does not answer; what kubectl said is above");
        }
    }
    say!("");
    // The kind may not be installed yet, which is no failure of this command.
    stream(&mut cluster.kubectl_command(["get", "channelclusters", "-A"])?, LONG)?;
    Ok(())
}

/// Prints a component's log.
pub fn logs(settings: &Settings, component: Option<&str>, follow: bool) -> Result<()> {
    let Some(component) = component else {
        say!("operator");
        names(settings).iter().for_each(|name| say!("{name}"));
        return Ok(());
    };
    if component == "operator" {
        let mut arguments = [&OPERATOR_LOGS[..], &["--tail=-1"]].concat();
        if follow {
            arguments.push("--follow");
        }
        stream(&mut Cluster::of(settings)?.kubectl_command(arguments)?, FOLLOWED)?;
        return Ok(());
    }
    let log = settings.log(component);
    if !log.exists() {
        bail!("there is no log {component}; there are: operator {}", names(settings).join(" "));
    }
    let lines: &[&str] = if follow { &["-n", "200", "-F"] } else { &["-n", "+1"] };
    stream(command("tail", lines).arg(&log), FOLLOWED)?;
    Ok(())
}

fn names(settings: &Settings) -> Vec<String> {
    let Ok(entries) = fs::read_dir(settings.logs()) else { return Vec::new() };
    let mut names: Vec<String> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.strip_suffix(".log").map(String::from))
        .collect();
    names.sort();
    names
}
