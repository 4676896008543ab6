//! `test`: everything that is checked, in order, from the format of the code to the end-to-end tests.
//!
//! The runners write to this program's own output, so that their summaries are what a reader sees last.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::binaries::Binaries;
use crate::cargo::cargo;
use crate::command::{LONG, command, stream, stream_and_keep};
use crate::image_build::Builder;
use crate::steps::{heading, seconds, step};
use crate::up::{self, Extent};
use crate::{Cluster, Settings, fuzz, matrix, npm, packages};

/// So many failed tests are tried again; more are no accident.
const AGAIN: usize = 4;
/// Set while they are: what a test does by chance is what it did before.
pub const AGAIN_VARIABLE: &str = "SLUICE_E2E_AGAIN";

/// Runs all checks; with a filter, only the end-to-end tests whose names hold it.
pub fn test(settings: &Settings, filter: Option<&str>, threads: usize) -> Result<()> {
    let began = Instant::now();
    if !settings.is_local() {
        Builder::new(settings)?; // says at once when there is no registry to push to
    }
    packages::need(settings, packages::TESTS)?;
    if filter.is_none() {
        without_cluster(settings)?;
    }
    heading("The cluster");
    up::up(settings, Extent::Example)?;
    clients(settings)?;
    step("end-to-end tests", || end_to_end(settings, filter, threads))?;
    heading(&format!("All checks passed after {}.", seconds(began)));
    Ok(())
}

/// The end-to-end tests, in parallel. A few that fail are tried once more, alone, and named: on a
/// machine that others keep busy a wait can run out, but a defect fails again.
fn end_to_end(settings: &Settings, filter: Option<&str>, threads: usize) -> Result<()> {
    let run = |arguments: &[&str], again: Option<(&str, &str)>| {
        let mut all = vec!["test", "--package", "sluice-e2e", "--test", "*", "--"];
        all.extend(arguments);
        let mut tests = cargo(settings, &all);
        stream_and_keep(tests.envs(settings.environment()).envs(again), LONG)
    };
    let threads = format!("--test-threads={threads}");
    let mut arguments = vec![threads.as_str()];
    arguments.extend(filter);
    let (status, said) = run(&arguments, None)?;
    if status.success() {
        return Ok(());
    }
    let failed = failures(&said);
    if failed.is_empty() || failed.len() > AGAIN {
        bail!("what they said is above");
    }
    heading(&format!("Failed among others, now once more alone: {}", failed.join(", ")));
    let mut again = vec!["--test-threads=1", "--exact"];
    again.extend(&failed);
    if !run(&again, Some((AGAIN_VARIABLE, "1")))?.0.success() {
        bail!("what they said is above");
    }
    heading(&format!("Passed alone, so they are unsteady: {}", failed.join(", ")));
    Ok(())
}

/// The names in the last list of failures that a test runner printed.
fn failures(said: &str) -> Vec<&str> {
    let list = said.rsplit_once("\nfailures:\n").map_or("", |(_, list)| list);
    list.lines().take_while(|line| line.starts_with("    ")).map(str::trim).collect()
}

fn without_cluster(settings: &Settings) -> Result<()> {
    let checks: [(&str, &[&str]); 4] = [
        ("format", &["fmt", "--all", "--check"]),
        ("lints", &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]),
        (
            "generated files",
            &["run", "--quiet", "-p", "sluice-crds", "--bin", "crdgen", "--", "--check"],
        ),
        (
            "unit, property and integration tests",
            &["test", "--workspace", "--exclude", "sluice-e2e"],
        ),
    ];
    let (tests, first) = checks.split_last().context("there are checks")?;
    for (what, arguments) in first {
        watched(what, &mut cargo(settings, arguments))?;
    }
    // A link that leads nowhere is a warning of rustdoc's.
    let documents = ["doc", "--workspace", "--no-deps", "--quiet"];
    watched("docs of the code", cargo(settings, &documents).env("RUSTDOCFLAGS", "-D warnings"))?;
    charts(settings)?;
    watched(tests.0, &mut cargo(settings, tests.1))?;
    watched(
        "unit tests of the end-to-end library",
        &mut cargo(settings, &["test", "-p", "sluice-e2e", "--lib", "--bins", "--test", "pipes"]),
    )?;
    watched(
        "doc tests of the end-to-end library",
        &mut cargo(settings, &["test", "-p", "sluice-e2e", "--doc"]),
    )?;
    heading("The fuzz targets");
    let length = fuzz::Length { seconds: fuzz::SECONDS, seed: Some(fuzz::SEED) };
    fuzz::run(settings, None, length)?;
    heading("The matrix of clients");
    matrix::run(settings)
}

fn charts(settings: &Settings) -> Result<()> {
    if settings.is_local() && Binaries::find(settings)?.is_none() {
        packages::check_machine()?;
        packages::check_go()?;
        crate::steps::long_step("Kubernetes, built from its Go modules", || {
            Binaries::build(settings)
        })?;
    }
    let cluster = Cluster::of(settings)?;
    for chart in ["charts/sluice-crds", "charts/sluice"] {
        watched(
            &format!("lint of {chart}"),
            &mut cluster.helm_command(["lint", "--strict", chart])?,
        )?;
    }
    Ok(())
}

fn clients(settings: &Settings) -> Result<()> {
    let folder = settings.in_repo("e2e/clients");
    if !folder.join("package-lock.json").exists() {
        return Ok(());
    }
    step("npm packages of the clients", || npm::install(settings, &folder))?;
    watched("tests of the clients", command("node", ["--test"]).current_dir(&folder))
}

fn watched(what: &str, command: &mut Command) -> Result<()> {
    step(what, || {
        let status = stream(command, LONG)?;
        if !status.success() {
            bail!("what it said is above");
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::failures;

    #[test]
    fn failures_are_read_from_the_runners_last_list() {
        let said = "test a::b ... FAILED\n\nfailures:\n\n---- a::b stdout ----\nfailures:\n\n\
                    failures:\n    a::b\n    c\n\ntest result: FAILED. 0 passed; 2 failed";
        assert_eq!(failures(said), ["a::b", "c"]);
        assert!(failures("test result: ok. 2 passed; 0 failed").is_empty());
    }
}
