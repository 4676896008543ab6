//! `up`: from whatever is there to a cluster that serves the example. Each part is made only if it is missing.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use crate::binaries::Binaries;
use crate::cluster::Cluster;
use crate::command::{capture, wait_until};
use crate::image_build::{self, Builder};
use crate::images::Images;
use crate::network::NODES;
use crate::node::Machine;
use crate::pki::Pki;
use crate::processes::write_whole;
use crate::say::say;
use crate::steps::{self, long_step, step};
use crate::{Settings, control_plane, install, leftovers, network, packages, processes, storage};

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    /// Kubernetes alone.
    Kubernetes,
    /// Kubernetes with the images on its nodes.
    Images,
    /// All: charts and the example too.
    Example,
}

/// Brings the cluster up as far as is wanted.
pub fn up(settings: &Settings, extent: Extent) -> Result<()> {
    let began = Instant::now();
    if settings.is_local() {
        local(settings, extent)?;
    } else if extent >= Extent::Images {
        Builder::new(settings)?; // says at once when there is no registry to push to
        images(settings)?;
    }
    let cluster = Cluster::of(settings)?;
    if extent == Extent::Example {
        install::charts(&cluster)?;
        install::example(&cluster)?;
    }
    steps::heading(&format!("Up after {}.", steps::seconds(began)));
    if extent == Extent::Example {
        install::farewell(&cluster)?;
    } else if let Some(path) = cluster.kubeconfig() {
        say!("  export KUBECONFIG={}", path.display());
    }
    Ok(())
}

/// Builds the images and gives them to the cluster.
pub fn images(settings: &Settings) -> Result<Images> {
    packages::need(settings, packages::IMAGES)?;
    let images = build_images(settings)?;
    if settings.is_local() {
        let binaries =
            Binaries::find(settings)?.context("there is no cluster yet: run `cargo e2e up`")?;
        load(settings, &binaries, &images)?;
    }
    Ok(images)
}

fn local(settings: &Settings, extent: Extent) -> Result<()> {
    packages::check_machine()?;
    packages::check_go()?;
    packages::need(settings, packages::CLUSTER)?;
    // The two compilers side by side: each has stretches, such as linking, in which it keeps one core busy.
    let (binaries, images) = thread::scope(|scope| {
        let images = (extent >= Extent::Images).then(|| scope.spawn(|| build_images(settings)));
        let kubernetes = kubernetes(settings);
        let images = images.map(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a panic"))));
        (kubernetes, images.transpose())
    });
    let binaries = binaries?;
    if let Some(images) = images? {
        load(settings, &binaries, &images)?;
    }
    Ok(())
}

fn kubernetes(settings: &Settings) -> Result<Binaries> {
    let binaries = match Binaries::find(settings)? {
        Some(found) => found,
        None => long_step("Kubernetes, built from its Go modules", || Binaries::build(settings))?,
    };
    // Other programs, such as of another version, do not take over what those before have begun: containers
    // would run on that nobody knows of.
    let folder = fs::canonicalize(binaries.folder())?;
    let ours = |pid: i32| {
        fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program.starts_with(&folder))
    };
    let whole = control_plane::ESSENTIAL
        .iter()
        .all(|name| processes::running(settings, name).is_some_and(|record| ours(record.pid)));
    if !whole && leftovers::any(settings) {
        step("leftovers of an earlier run cleared", || leftovers::clear(settings))?;
    }
    if !whole {
        set_old_logs_aside(settings)?;
    }
    let pki = step("certificates", || {
        let pki = Pki::ensure(&settings.state)?;
        let admin = fs::read(pki.path("admin.kubeconfig"))?;
        write_whole(&settings.state.join("kubeconfig"), &admin)?;
        Ok(pki)
    })?;
    step("network of three nodes", network::ensure)?;
    let builder = Builder::new(settings)?;
    let pause = builder.pause(&binaries.path("pause"))?;
    step("control plane", || control_plane::ensure(settings, &binaries, &pki))?;
    step("three nodes Ready", || {
        thread::scope(|scope| {
            let nodes = NODES.map(|node| {
                let machine = Machine { settings, binaries: &binaries, pki: &pki, node };
                let pause = &pause;
                scope.spawn(move || machine.ensure(pause))
            });
            nodes
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a panic"))))
        })?;
        wait_for_nodes(settings)
    })?;
    step("volumes", || storage::ensure(&Cluster::of(settings)?))?;
    Ok(binaries)
}

/// A new cluster's logs start empty; the last one's are kept.
fn set_old_logs_aside(settings: &Settings) -> Result<()> {
    let previous = settings.logs().join("previous");
    if previous.exists() {
        fs::remove_dir_all(&previous)?;
    }
    fs::create_dir_all(&previous)?;
    let steps = ["apt-get.log", "cargo-build.log", "go-build.log", "images.log", "npm.log"];
    for entry in fs::read_dir(settings.logs())?.flatten() {
        let name = entry.file_name();
        if entry.path().is_file() && !steps.iter().any(|step| name == *step) {
            fs::rename(entry.path(), previous.join(name))?;
        }
    }
    Ok(())
}

fn wait_for_nodes(settings: &Settings) -> Result<()> {
    let cluster = Cluster::of(settings)?;
    let path =
        r#"jsonpath={range .items[*]}{.status.conditions[?(@.type=="Ready")].status}{" "}{end}"#;
    let ready = wait_until(Duration::from_secs(90), || {
        for name in processes::recorded(settings) {
            if processes::running(settings, &name).is_none() {
                let log = settings.log(&name);
                let end = crate::command::tail(&log, 8);
                bail!("{name} has ended; its log is {}, which ends:\n{end}", log.display());
            }
        }
        let told = capture(
            &mut cluster.kubectl_command(["get", "nodes", "-o", path])?,
            Duration::from_secs(10),
        )?;
        Ok(told.stdout.split_whitespace().filter(|status| *status == "True").count() == NODES.len())
    })?;
    if !ready {
        let logs = settings.logs();
        bail!("the nodes did not become Ready: see {}/sluice-*-kubelet.log", logs.display());
    }
    Ok(())
}

fn build_images(settings: &Settings) -> Result<Images> {
    let programs = long_step("Sluice's programs, built", || image_build::programs(settings))?;
    step("images", || Builder::new(settings)?.product(&programs))
}

fn load(settings: &Settings, binaries: &Binaries, images: &Images) -> Result<()> {
    let pki = Pki::ensure(&settings.state)?;
    let archives = images.archives(settings);
    step("images loaded on the nodes", || {
        thread::scope(|scope| {
            let nodes = NODES.map(|node| {
                let machine = Machine { settings, binaries, pki: &pki, node };
                let archives = &archives;
                scope.spawn(move || machine.load(archives))
            });
            nodes
                .into_iter()
                .try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(anyhow!("a panic"))))
        })
    })
}
