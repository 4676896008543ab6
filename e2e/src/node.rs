//! One node: containerd, the kubelet and kube-proxy in a network namespace of their own.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries::Binaries;
use crate::command::{LONG, SHORT, capture, command, logged, output, tail, wait_until};
use crate::images::Archive;
use crate::network::{HOST, Node};
use crate::pki::Pki;
use crate::processes::{self, Component, write_whole};
use crate::{Settings, cgroups, node_config, packages};

/// A node and what it is made with.
#[derive(Debug)]
pub struct Machine<'a> {
    /// Where everything is.
    pub settings: &'a Settings,
    /// The programs.
    pub binaries: &'a Binaries,
    /// The certificates.
    pub pki: &'a Pki,
    /// Which node.
    pub node: Node,
}

impl Machine<'_> {
    /// Starts what is missing of the node, with the image its pods' sandboxes are made of.
    pub fn ensure(&self, pause: &Archive) -> Result<()> {
        let folder = self.folder();
        for inner in ["cni", "kubelet", "pods"] {
            fs::create_dir_all(folder.join(inner))?;
        }
        cgroups::ensure(self.node.name)?;
        write_whole(&folder.join("resolv.conf"), b"")?;
        let network = node_config::pod_network(&self.node, &folder);
        write_whole(&folder.join("cni/10-pods.conflist"), network.as_bytes())?;

        self.containerd(&pause.name)?;
        self.load(std::slice::from_ref(pause))?;

        let config = node_config::kubelet(&self.node, &folder, self.pki);
        let file = folder.join("kubelet.yaml");
        write_whole(&file, config.as_bytes())?;
        let kubeconfig = self.pki.path(&format!("{}.kubeconfig", self.node.name));
        let arguments = vec![
            format!("--config={}", file.display()),
            format!("--kubeconfig={kubeconfig}"),
            format!("--hostname-override={}", self.node.name),
            format!("--node-ip={}", self.node.address),
            format!("--root-dir={}", folder.join("kubelet").display()),
        ];
        self.run("kubelet", "kubelet", arguments, config)?;

        let config = node_config::proxy(&self.node, self.pki);
        let file = folder.join("proxy.yaml");
        write_whole(&file, config.as_bytes())?;
        let arguments = vec![format!("--config={}", file.display())];
        self.run("proxy", "kube-proxy", arguments, config)?;
        Ok(())
    }

    /// Loads the images that the node does not have yet.
    pub fn load(&self, archives: &[Archive]) -> Result<()> {
        let there = output(self.ctr().args(["images", "ls", "-q"]))?;
        let log = self.settings.log(&self.component("images"));
        for archive in
            archives.iter().filter(|wanted| !there.lines().any(|name| name == wanted.name))
        {
            let mut import = self.ctr();
            import.args(["images", "import"]).arg(&archive.file);
            logged(&mut import, &log, LONG)
                .with_context(|| format!("loading {} on {}", archive.name, self.node.name))?;
        }
        Ok(())
    }

    fn containerd(&self, pause: &str) -> Result<()> {
        let folder = self.folder();
        let runc = packages::find("runc").context("no `runc` on this machine")?;
        let config = node_config::containerd(&folder, self.binaries, &runc, pause);
        let file = folder.join("containerd.toml");
        write_whole(&file, config.as_bytes())?;
        let arguments = vec!["--config".into(), file.display().to_string()];
        self.run("containerd", "containerd", arguments, config)?;
        let answers = wait_until(SHORT, || {
            Ok(capture(self.ctr().arg("version"), Duration::from_secs(10))?.success)
        })?;
        if !answers {
            let log = self.settings.log(&self.component("containerd"));
            bail!(
                "containerd did not answer; its log is {}, which ends:\n{}",
                log.display(),
                tail(&log, 8)
            );
        }
        Ok(())
    }

    fn run(
        &self,
        part: &str,
        program: &str,
        arguments: Vec<String>,
        config: String,
    ) -> Result<bool> {
        let component = Component {
            name: self.component(part),
            program: self.binaries.path(program),
            arguments,
            namespace: Some(self.node.name.into()),
            config: format!("{config}{HOST}"),
            path: self.binaries.folder().into(),
        };
        processes::ensure(self.settings, &component)
    }

    fn component(&self, part: &str) -> String {
        format!("{}-{part}", self.node.name)
    }

    fn folder(&self) -> PathBuf {
        self.settings.state.join("nodes").join(self.node.name)
    }

    fn ctr(&self) -> Command {
        let mut ctr = command(self.binaries.path("ctr"), ["--address"]);
        ctr.arg(self.folder().join("containerd.sock")).args(["--namespace", "k8s.io"]);
        ctr
    }
}
