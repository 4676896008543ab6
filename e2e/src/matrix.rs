//! The matrix of clients: unmodified Phoenix clients of several versions and languages against one `channel-node`.
//!
//! Everything that it installs is pinned: npm packages by their lock file, Python's by hashes, Rust's by a lock file of
//! their own, since they are no part of Sluice. No cluster is needed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::binaries::hex;
use crate::cargo::{built, cargo};
use crate::command::{LONG, capture, command, logged, stream};
use crate::steps::step;
use crate::{Settings, npm, packages};

/// Installs the clients and runs them.
pub fn run(settings: &Settings) -> Result<()> {
    let folder = settings.in_repo("e2e/matrix");
    packages::need(settings, packages::MATRIX)?;
    step("npm packages of the client matrix", || npm::install(settings, &folder))?;
    let python = step("Python package of the client matrix", || python(settings, &folder))?;
    let rust = step("Rust program of the client matrix", || {
        let manifest = folder.join("rust/Cargo.toml").display().to_string();
        let target = settings.in_repo("target/matrix").display().to_string();
        let more = ["--locked", "--manifest-path", &manifest, "--target-dir", &target];
        program(settings, "matrix-client", &more)
    })?;
    let node = step("channel-node", || {
        program(settings, "channel-node", &["--package", "sluice-node", "--bin", "channel-node"])
    })?;
    let chromium = packages::find("chromium").context("no `chromium` is on the PATH")?;
    step("client matrix", || {
        let mut tests = command("node", ["--test", "--test-reporter=spec"]);
        tests.envs([("CHANNEL_NODE", node), ("CHROMIUM", chromium)]);
        tests.envs([("MATRIX_PYTHON", python), ("MATRIX_RUST", rust)]);
        if !stream(tests.current_dir(&folder), LONG)?.success() {
            bail!("what it said is above");
        }
        Ok(())
    })
}

/// A Python with the packages of `requirements.txt`, and no others.
fn python(settings: &Settings, folder: &Path) -> Result<PathBuf> {
    let requirements = folder.join("requirements.txt");
    let text =
        fs::read(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let hash = hex(&Sha256::digest(&text), 32);
    let environment = settings.state.join("matrix-python");
    let python = environment.join("bin/python");
    let mark = environment.join(".installed");
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == hash) && python.exists() {
        return Ok(python);
    }
    let log = settings.log("pip");
    let mut venv = command("python3", ["-m", "venv", "--clear"]);
    logged(venv.arg(&environment), &log, LONG)?;
    let mut pip = command(&python, ["-m", "pip", "install", "--require-hashes", "--requirement"]);
    logged(pip.arg(&requirements), &log, LONG)?;
    fs::write(&mark, hash).with_context(|| format!("writing {}", mark.display()))?;
    Ok(python)
}

/// Builds a program with cargo; says where it is.
fn program(settings: &Settings, name: &str, arguments: &[&str]) -> Result<PathBuf> {
    let mut build = cargo(settings, &["build"]);
    build.args(arguments).args(["--message-format", "json-render-diagnostics"]);
    let done = capture(&mut build, LONG)?;
    if !done.success {
        bail!("cargo build failed:\n{}", done.stderr);
    }
    built(&done.stdout, name)
}
