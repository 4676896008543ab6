//! `record`: a deploy under live clients, and the docs page with its timeline and picture made anew from it.

use std::fs;

use anyhow::{Context, Result, bail};

use crate::Settings;
use crate::cargo::cargo;
use crate::command::{LONG, stream};
use crate::recording::{Recording, VARIABLE};
use crate::say::say;
use crate::steps::step;
use crate::up::{self, Extent};
use crate::{npm, plot};

/// The test that is recorded.
const TEST: &str = "deploys::env_change_moves_each_of_60_clients_exactly_once";
const PAGE: &str = "docs/what-happens-in-a-deploy.md";
const PICTURE: &str = "docs/deploy.svg";

/// Records a deploy on the cluster, and writes the page.
pub fn record(settings: &Settings) -> Result<()> {
    up::up(settings, Extent::Example)?;
    npm::install(settings, &settings.in_repo("e2e/clients"))?;
    let file = settings.state.join("recording.json");
    step("a deploy, recorded", || {
        let test = ["test", "--package", "sluice-e2e", "--test", "*", "--", "--exact", TEST];
        let mut test = cargo(settings, &test);
        test.envs(settings.environment()).env(VARIABLE, &file);
        if !stream(&mut test, LONG)?.success() {
            bail!("what it said is above");
        }
        Ok(())
    })?;
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let recording: Recording = serde_json::from_str(&text).context("the recording")?;
    let page = settings.in_repo(PAGE);
    let old = fs::read_to_string(&page).with_context(|| format!("reading {}", page.display()))?;
    fs::write(&page, recording.into_page(&old)?)?;
    fs::write(settings.in_repo(PICTURE), plot::svg(&recording))?;
    say!("Written: {PAGE} and {PICTURE}");
    Ok(())
}
