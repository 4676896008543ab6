//! The programs of Kubernetes, built from their Go modules into a cache of the user's that all checkouts share.
//!
//! A set is named by the hash of its sources and appears whole or not at all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::command::{LONG, logged, mortal};
use crate::{Settings, lock, settings};

/// What the one binary of `e2e/kubernetes/kubernetes` is called as.
const NAMES: &[&str] = &[
    "containerd",
    "ctr",
    "etcd",
    "helm",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// The release that `go.mod` names, which the programs are told since nothing else would.
const VERSION_PACKAGE: &str = "k8s.io/component-base/version";

/// The folder of the built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    folder: PathBuf,
}

impl Binaries {
    /// The programs of this checkout's sources, if they are built.
    pub fn find(settings: &Settings) -> Result<Option<Self>> {
        let folder = folder(settings)?;
        Ok(folder.exists().then_some(Self { folder }))
    }

    /// The programs of this checkout's sources, built if they are not there yet.
    pub fn build(settings: &Settings) -> Result<Self> {
        if let Some(found) = Self::find(settings)? {
            return Ok(found);
        }
        let cache = settings::cache()?;
        let _lock = lock::wait_for(&cache)?;
        if let Some(found) = Self::find(settings)? {
            return Ok(found);
        }
        let sources = settings.in_repo("e2e/kubernetes");
        let building = cache.join("building");
        if building.exists() {
            fs::remove_dir_all(&building)?;
        }
        fs::create_dir_all(&building)?;
        let release = release(&sources.join("go.mod"))?;
        let (major, minor) = release.split_once('.').unwrap_or((&release, ""));
        let minor = minor.split('.').next().unwrap_or_default();
        let link = format!(
            "-s -w -X {VERSION_PACKAGE}.gitVersion=v{release} -X {VERSION_PACKAGE}.gitMajor={major} -X {VERSION_PACKAGE}.gitMinor={minor}"
        );
        let mut go = mortal("go", ["build", "-trimpath", "-buildvcs=false", "-mod=readonly"]);
        // No line tables, which the linker would leave out anyway, and a lazy collector in the compiler.
        go.args(["-gcflags", "all=-dwarf=false", "-ldflags", &link, "-o"])
            .arg(&building)
            .arg("./...");
        go.env("CGO_ENABLED", "0")
            .env("GOGC", "400")
            .env("GOMEMLIMIT", "2GiB")
            .env_remove("GOFLAGS")
            .current_dir(&sources);
        logged(&mut go, &settings.log("go-build"), LONG)?;
        for name in NAMES {
            symlink("kubernetes", building.join(name))?;
        }
        let folder = folder(settings)?;
        fs::rename(&building, &folder)
            .with_context(|| format!("moving the built programs to {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// The path of one program.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder that holds them all.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn folder(settings: &Settings) -> Result<PathBuf> {
    let mut hash = Sha256::new();
    for file in sources(&settings.in_repo("e2e/kubernetes"))? {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(fs::read(&file).with_context(|| format!("reading {}", file.display()))?);
    }
    Ok(settings::cache()?.join(format!("kubernetes-{}", hex(&hash.finalize(), 16))))
}

/// Every file below a folder, in an order that does not change.
pub fn sources(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The first hexadecimal digits of a hash.
pub fn hex(bytes: &[u8], digits: usize) -> String {
    let mut text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    text.truncate(digits);
    text
}

fn release(go_mod: &Path) -> Result<String> {
    let text = fs::read_to_string(go_mod)?;
    text.lines()
        .find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes v"))
        .map(|rest| rest.split_whitespace().next().unwrap_or_default().to_owned())
        .with_context(|| format!("{} requires no k8s.io/kubernetes", go_mod.display()))
}
