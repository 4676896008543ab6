//! Builds the images from the repository's Dockerfiles with buildah, in a storage of its own below the state folder.
//!
//! No image is pulled: the base is made from the machine's own C library. What is already built is not built again.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::binaries::{hex, sources};
use crate::cargo::{built, cargo};
use crate::command::{LONG, SHORT, capture, capture_and_log, command, logged, output, tail};
use crate::images::{Archive, Images, archive};
use crate::processes::write_whole;
use crate::settings::Target;
use crate::{Settings, npm, packages, rootfs};

/// Where local images are named to come from: nothing answers there.
const LOCAL: &str = "localhost/sluice";
const BASE: &str = "base";
const POLICY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

/// The built programs of the product.
#[derive(Debug)]
pub struct Programs {
    /// The realtime node.
    pub channel_node: PathBuf,
    /// The operator.
    pub operator: PathBuf,
    /// The example's page.
    pub chat_page: PathBuf,
}

/// Builds the product's programs with cargo.
pub fn programs(settings: &Settings) -> Result<Programs> {
    let log = settings.log("cargo-build");
    let mut build = cargo(settings, &["build", "--profile", "local"]);
    build
        .args(["--package", "sluice-node", "--package", "sluice-operator"])
        .args(["--bins", "--example", "chat_page"])
        .args(["--message-format", "json-render-diagnostics"]);
    // cargo tells on its standard output where each program is; what people read goes to the log.
    let done = capture_and_log(&mut build, &log, LONG)?;
    if !done.success {
        bail!("cargo build failed; its log is {}, which ends:\n{}", log.display(), tail(&log, 30));
    }
    let built = |name: &str| built(&done.stdout, name);
    Ok(Programs {
        channel_node: built("channel-node")?,
        operator: built("sluice-operator")?,
        chat_page: built("chat_page")?,
    })
}

/// Builds images into one registry's names.
#[derive(Debug)]
pub struct Builder<'a> {
    settings: &'a Settings,
    prefix: String,
    remote: bool,
}

impl<'a> Builder<'a> {
    /// A builder for the cluster that is meant.
    pub fn new(settings: &'a Settings) -> Result<Self> {
        let (prefix, remote) = match &settings.target {
            Target::Local => (LOCAL.to_owned(), false),
            Target::Context { registry: Some(registry), .. } => (registry.clone(), true),
            Target::Context { registry: None, .. } => bail!(
                "a cluster of yours pulls its images from a registry: name one that you may push to with --registry"
            ),
        };
        fs::create_dir_all(settings.state.join("images"))?;
        write_whole(&settings.state.join("images/policy.json"), POLICY.as_bytes())?;
        Ok(Self { settings, prefix, remote })
    }

    /// The image of the pods' sandboxes, for local nodes.
    pub fn pause(&self, program: &Path) -> Result<Archive> {
        let context = self.context("pause")?;
        rootfs::copy(program, &context.join("pause"))?;
        let name = self.build("pause", "e2e/images/pause", &context, None, None)?;
        Ok(archive(self.settings, &name))
    }

    /// The product's images and Redis.
    pub fn product(&self, programs: &Programs) -> Result<Images> {
        let redis = packages::find("redis-check-rdb").context("install the package redis-tools")?;
        let redis = fs::canonicalize(redis)?;
        let command_line =
            packages::find("redis-cli").context("install the package redis-tools")?;
        let all = [&programs.channel_node, &programs.operator, &programs.chat_page];

        let context = self.context("base")?;
        let paths: Vec<&Path> = all.iter().map(|path| path.as_path()).collect();
        rootfs::base(&context.join("rootfs"), &paths)?;
        let base = self.build(BASE, "e2e/images/base", &context, None, None)?;

        let one = |name: &str, dockerfile: &str, program: &Path, label: Option<&str>| {
            let context = self.context(name)?;
            let file = program.file_name().context("a program has a name")?;
            rootfs::copy(program, &context.join(file))?;
            if name == "example-chat" {
                self.page(&context.join("srv"))?;
            }
            self.build(name, dockerfile, &context, Some(&base), label)
        };
        let node = programs.channel_node.as_path();
        let channel_node = one("channel-node", "images/channel-node", node, None)?;
        let channel_node_next = one("channel-node", "images/channel-node", node, Some("next"))?;
        let operator = one("operator", "images/sluice-operator", &programs.operator, None)?;
        let example_chat = one("example-chat", "images/example-chat", &programs.chat_page, None)?;

        let context = self.context("redis")?;
        let root = context.join("rootfs");
        rootfs::libraries(&root, &[&redis, &command_line])?;
        // One program under two names: which one it is called by decides what it does.
        rootfs::copy(&redis, &root.join("usr/bin/redis-server"))?;
        rootfs::copy(&command_line, &root.join("usr/bin/redis-cli"))?;
        rootfs::open_folder(&root.join("data"))?;
        let redis = self.build("redis", "e2e/images/redis", &context, Some(&base), None)?;

        let context = self.context("python")?;
        rootfs::python(&context.join("rootfs"))?;
        let python = self.build("python", "e2e/images/python", &context, Some(&base), None)?;

        let images =
            Images { channel_node, channel_node_next, operator, example_chat, redis, python };
        images.write(self.settings)?;
        self.prune(&images, &base)?;
        Ok(images)
    }

    /// The page's files with the stock client beside them.
    fn page(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        let folder = self.settings.in_repo("examples/chat");
        for file in ["index.html", "app.js", "style.css"] {
            fs::copy(folder.join(file), to.join(file))
                .with_context(|| format!("copying {file}"))?;
        }
        fs::copy(npm::phoenix(self.settings)?, to.join("phoenix.mjs"))?;
        Ok(())
    }

    fn build(
        &self,
        name: &str,
        folder: &str,
        context: &Path,
        base: Option<&str>,
        label: Option<&str>,
    ) -> Result<String> {
        let dockerfile = self.settings.in_repo(folder).join("Dockerfile");
        let mut hash = Sha256::new();
        hash.update(
            fs::read(&dockerfile).with_context(|| format!("reading {}", dockerfile.display()))?,
        );
        hash.update(base.unwrap_or_default());
        for file in sources(context)? {
            hash.update(file.strip_prefix(context)?.as_os_str().as_encoded_bytes());
            hash.update(fs::read(&file)?);
        }
        let mut tag = hex(&hash.finalize(), 12);
        if let Some(label) = label {
            tag = format!("{tag}-{label}");
        }
        let full = format!("{}/{name}:{tag}", self.prefix);
        let archive = archive(self.settings, &full);
        let there = match name {
            BASE => self.stored(&full)?,
            // What a registry still has only it can tell: a push sends nothing that is there.
            _ => !self.remote && archive.file.exists(),
        };
        if there {
            return Ok(full);
        }
        let log = self.settings.log("images");
        let mut bud =
            self.buildah(&["bud", "--quiet", "--pull-never", "--layers=false", "--format=oci"]);
        bud.arg("--signature-policy").arg(self.policy()).arg("--file").arg(&dockerfile);
        bud.args(["--tag", &full]);
        if let Some(base) = base {
            bud.arg("--build-arg").arg(format!("BASE={base}"));
        }
        if let Some(label) = label {
            bud.arg("--label").arg(format!("sluice.dev/build={label}"));
        }
        logged(bud.arg(context), &log, LONG)?;
        if name == BASE {
            return Ok(full);
        }
        let mut push = self.buildah(&["push", "--quiet"]);
        push.arg("--signature-policy").arg(self.policy());
        if self.remote {
            push.arg(format!("--tls-verify={}", !on_this_machine(&self.prefix))).arg(&full);
            logged(push.arg(format!("docker://{full}")), &log, LONG)?;
        } else {
            // Written beside and renamed, so that a file that is there is whole.
            let part = archive.file.with_extension("part");
            let _ = fs::remove_file(&part);
            let to = format!("docker-archive:{}:{full}", part.display());
            logged(push.args([&full, &to]), &log, LONG)?;
            fs::rename(&part, &archive.file)?;
        }
        Ok(full)
    }

    fn stored(&self, full: &str) -> Result<bool> {
        let mut inspect = self.buildah(&["inspect", "--type", "image", full]);
        Ok(capture(&mut inspect, SHORT)?.success)
    }

    /// Removes what earlier builds left: archives under other names, and in buildah's storage all but the base.
    fn prune(&self, images: &Images, base: &str) -> Result<()> {
        let wanted: Vec<PathBuf> =
            images.archives(self.settings).into_iter().map(|archive| archive.file).collect();
        for entry in fs::read_dir(self.settings.state.join("images"))?.flatten() {
            let path = entry.path();
            let archive = path.extension().is_some_and(|end| end == "tar" || end == "part");
            let pause = path.to_string_lossy().contains("_pause_");
            if archive && !pause && !wanted.contains(&path) {
                fs::remove_file(path)?;
            }
        }
        let list = ["images", "--format", "{{.Name}}:{{.Tag}}"];
        for name in output(&mut self.buildah(&list))?.lines().filter(|name| *name != base) {
            // Another build's image may be in use by it at this moment: then it stays for once.
            let _ = capture(&mut self.buildah(&["rmi", "--force", name]), SHORT)?;
        }
        Ok(())
    }

    fn buildah(&self, arguments: &[&str]) -> Command {
        let storage = self.settings.state.join("images/storage");
        let mut buildah = command("buildah", ["--storage-driver", "vfs", "--root"]);
        buildah.arg(&storage).arg("--runroot").arg(storage.with_extension("run")).args(arguments);
        buildah
    }

    fn policy(&self) -> PathBuf {
        self.settings.state.join("images/policy.json")
    }

    fn context(&self, name: &str) -> Result<PathBuf> {
        let folder = self.settings.state.join("images/contexts").join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Whether a registry is at a loopback address, where container runtimes speak HTTP by custom: kind's usual registry is.
fn on_this_machine(registry: &str) -> bool {
    let host = registry.split('/').next().unwrap_or_default();
    let host = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::on_this_machine;

    #[test]
    fn only_a_registry_at_a_loopback_address_is_spoken_to_without_tls() {
        for near in ["localhost:5001", "127.0.0.1:5000/sluice", "[::1]:5000", "localhost"] {
            assert!(on_this_machine(near), "{near}");
        }
        for far in ["ghcr.io/sluice", "10.0.0.1:5000", "localhost.example:5000", "registry"] {
            assert!(!on_this_machine(far), "{far}");
        }
    }
}
