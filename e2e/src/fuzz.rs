//! The fuzz targets of `node/fuzz` under libFuzzer, each from its committed corpus for a bounded time, two at once.
//!
//! `cargo fuzz` builds them: on stable Rust, with the coverage of LLVM and no sanitizer, since there is no unsafe code.
//! What is found stays in the state folder; nothing is written to the checkout. With a seed a run begins with the
//! committed corpus alone, so that the same code meets the same inputs: a check must not fail by chance on a change
//! that has nothing to do with it. New inputs are looked for without one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;
use crate::command::{LONG, command, logged, output, tail};
use crate::say::say;
use crate::steps::{long_step, step};
use crate::{Settings, settings};

/// For how long each target runs unless something else is asked for, in seconds.
pub const SECONDS: u32 = 60;
/// The seed of the checks.
pub const SEED: u32 = 1;
/// The `cargo fuzz` that is installed.
const VERSION: &str = "0.13.2";
/// Targets that run at the same time.
const AT_ONCE: usize = 2;
/// What is taken for a hang, in seconds, and for a leak, in megabytes.
const BOUNDS: [&str; 2] = ["-timeout=10", "-rss_limit_mb=1024"];

/// For how long a target runs, and what it begins with.
#[derive(Clone, Copy, Debug)]
pub struct Length {
    /// In seconds.
    pub seconds: u32,
    /// What chance is made of; without it, chance, and what earlier runs found.
    pub seed: Option<u32>,
}

/// Builds the targets and runs each for some seconds; with a name, that one.
pub fn run(settings: &Settings, only: Option<&str>, length: Length) -> Result<()> {
    let targets = targets(settings, only)?;
    settings.prepare()?;
    let program = step("cargo fuzz", || install(settings))?;
    let built = long_step("fuzz targets", || build(settings, &program, only))?;
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
            step(&format!("fuzz {target}"), || fuzz(settings, &built, target, length))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(_) => bail!("a thread that ran fuzz targets panicked"),
        })
    })
}

/// The names of the targets, in order.
fn targets(settings: &Settings, only: Option<&str>) -> Result<Vec<String>> {
    let folder = settings.in_repo("node/fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if only.is_none_or(|only| only == name) {
            names.push(name);
        }
    }
    names.sort();
    ensure!(!names.is_empty(), "there is no such target in {}", folder.display());
    Ok(names)
}

/// `cargo fuzz` of one version, in the user's cache.
fn install(settings: &Settings) -> Result<PathBuf> {
    let root = settings::cache()?.join(format!("cargo-fuzz-{VERSION}"));
    let program = root.join("bin/cargo-fuzz");
    if !program.exists() {
        let version = ["--locked", "--version", VERSION];
        let mut install = cargo(settings, &["install", "cargo-fuzz"]);
        logged(install.args(version).arg("--root").arg(&root), &settings.log("fuzz"), LONG)?;
    }
    Ok(program)
}

/// Builds the targets; gives the folder that they are in.
fn build(settings: &Settings, program: &Path, only: Option<&str>) -> Result<PathBuf> {
    let folder = settings.in_repo("target/fuzz");
    let version = output(&mut command("rustc", ["-vV"]))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc names no host")?;
    let mut build = command(program, ["fuzz", "build", "--sanitizer", "none", "--target", host]);
    build.arg("--target-dir").arg(&folder).args(only).current_dir(settings.in_repo("node"));
    logged(&mut build, &settings.log("fuzz"), LONG)?;
    Ok(folder.join(host).join("release"))
}

/// Runs one target.
fn fuzz(settings: &Settings, built: &Path, target: &str, length: Length) -> Result<()> {
    let Length { seconds, seed } = length;
    let mut found = settings.state.join("fuzz").join(target);
    if seed.is_some() {
        found = found.with_extension("seeded");
        if found.exists() {
            fs::remove_dir_all(&found).with_context(|| format!("emptying {}", found.display()))?;
        }
    }
    fs::create_dir_all(&found).with_context(|| format!("making {}", found.display()))?;
    let failed = settings.state.join("fuzz").join(format!("{target}-failed-"));
    let mut fuzz = command(built.join(target), BOUNDS);
    fuzz.arg(format!("-max_total_time={seconds}"));
    fuzz.args(seed.map(|seed| format!("-seed={seed}")));
    fuzz.arg(format!("-artifact_prefix={}", failed.display()));
    fuzz.arg(&found).arg(settings.in_repo("node/corpus").join(target));
    let limit = Duration::from_secs(u64::from(seconds) * 2 + 120);
    let log = settings.log(&format!("fuzz-{target}"));
    logged(&mut fuzz, &log, limit).with_context(|| {
        format!("put the input into node/corpus/{target} once it is understood")
    })?;
    say!("       {target}: {}", summary(&tail(&log, 1000)));
    Ok(())
}

/// What libFuzzer says of a run at its end: its executions, and the code that they reached.
fn summary(log: &str) -> String {
    let last = |is: fn(&str) -> bool| log.lines().rev().find(|line| is(line)).unwrap_or_default();
    let (done, reached) =
        (last(|line| line.starts_with("Done ")), last(|line| line.contains("DONE")));
    let words: Vec<&str> = reached.split_whitespace().skip_while(|word| *word != "cov:").collect();
    format!("{done}; {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::summary;

    #[test]
    fn a_run_is_summed_up_in_the_fuzzers_own_words() {
        let log = "#9\tDONE   cov: 1 ft: 1\nDone 9 runs in 1 second(s)\nINFO: Seed: 7\n\
                   #8192\tDONE   cov: 512 ft: 900 corp: 70/4096b lim: 64 exec/s: 4096 rss: 50Mb\n\
                   Done 8192 runs in 2 second(s)\n";
        let told = "Done 8192 runs in 2 second(s); cov: 512 ft: 900 corp: 70/4096b lim: 64 \
                    exec/s: 4096 rss: 50Mb";
        assert_eq!(summary(log), told);
    }
}
