//! npm packages by their lock files: those of the example's page and of the tests' clients.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::binaries::hex;
use crate::command::{LONG, command, logged};
use crate::{Settings, packages};

/// Installs the packages that a folder's lock file names, into that folder, unless they are there.
pub fn install(settings: &Settings, folder: &Path) -> Result<()> {
    let lock = folder.join("package-lock.json");
    let text = fs::read(&lock).with_context(|| format!("reading {}", lock.display()))?;
    let mark = folder.join("node_modules/.installed");
    let hash = hex(&Sha256::digest(&text), 32);
    if fs::read_to_string(&mark).is_ok_and(|installed| installed == hash) {
        return Ok(());
    }
    if packages::find("npm").is_none() {
        bail!("no `npm` is on the PATH: install Node.js 20 or later with npm");
    }
    let mut npm = command("npm", ["ci", "--no-audit", "--no-fund"]);
    logged(npm.current_dir(folder), &settings.log("npm"), LONG)?;
    fs::write(&mark, hash).with_context(|| format!("writing {}", mark.display()))
}

/// The stock client's one file for browsers, in the version of the example's lock file.
pub fn phoenix(settings: &Settings) -> Result<PathBuf> {
    // Beside the images, not in the checkout: building an image leaves the checkout as it was.
    let folder = settings.state.join("images/page");
    fs::create_dir_all(&folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(settings.in_repo("examples/chat").join(file), folder.join(file))?;
    }
    install(settings, &folder)?;
    Ok(folder.join("node_modules/phoenix/priv/static/phoenix.mjs"))
}
