//! A cluster that is up, as the end-to-end tests see it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::binaries::Binaries;
use crate::command::{Output, SHORT, capture, command, output_within};
use crate::images::Images;
use crate::pods::Container;
use crate::settings::Target;
use crate::{Settings, packages, pods};

/// The namespace that the operator is installed in.
pub const SYSTEM_NAMESPACE: &str = "sluice-system";
/// The arguments by which kubectl prints the logs of the operator's pods.
pub const OPERATOR_LOGS: [&str; 6] =
    ["logs", "-n", SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/name=sluice-operator", "--prefix"];

/// The limit for one call of kubectl or helm.
const LIMIT: Duration = Duration::from_secs(300);

/// A cluster to run commands against.
#[derive(Debug, Clone)]
pub struct Cluster {
    settings: Settings,
    binaries: Option<Binaries>,
}

impl Cluster {
    /// The cluster that the environment means: the local one, or the user's own (`SLUICE_E2E_CONTEXT`).
    pub fn connect() -> Result<Self> {
        let cluster = Self::of(&Settings::from_environment()?)?;
        cluster
            .kubectl(["get", "--raw", "/readyz"])
            .context("no cluster answers: bring it up with `cargo e2e up`")?;
        Ok(cluster)
    }

    /// The cluster of these settings, answering or not.
    pub fn of(settings: &Settings) -> Result<Self> {
        let binaries = Binaries::find(settings)?;
        if settings.is_local() && binaries.is_none() {
            bail!(
                "the local Kubernetes is not built for this user: run `cargo e2e up`; one that root has \
                 brought up is root's"
            );
        }
        Ok(Self { settings: settings.clone(), binaries })
    }

    /// Refuses a context that the user's kubeconfig has not, or whose cluster does not answer, before anything is built
    /// for it.
    pub fn check_context(&self) -> Result<()> {
        let Some(context) = self.context() else { return Ok(()) };
        let told = self.kubectl(["config", "get-contexts", "--output", "name"])?;
        check_context(context, &told)?;
        let asked = ["get", "--raw", "/readyz", "--request-timeout", "10s"];
        let done = capture(&mut self.kubectl_command(asked)?, SHORT)?;
        if !done.success {
            bail!("the cluster of context {context} does not answer: {}", done.stderr.trim());
        }
        Ok(())
    }

    /// Whether the cluster is the one on this machine, whose processes tests may touch.
    pub fn is_local(&self) -> bool {
        self.settings.is_local()
    }

    /// Where everything is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The kubeconfig to use; none where the user's own is.
    pub fn kubeconfig(&self) -> Option<PathBuf> {
        self.settings.kubeconfig()
    }

    /// The context to use in the user's kubeconfig; none for the local cluster.
    pub fn context(&self) -> Option<&str> {
        match &self.settings.target {
            Target::Local => None,
            Target::Context { name, .. } => Some(name),
        }
    }

    /// The names of the images that were built last.
    pub fn images(&self) -> Result<Images> {
        Images::read(&self.settings)
    }

    /// Each Kubernetes node's address, at which NodePorts answer.
    pub fn node_addresses(&self) -> Result<BTreeMap<String, String>> {
        let path = r#"{range .items[*]}{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address}{"\n"}{end}"#;
        let told = self.kubectl(["get", "nodes", "-o", &format!("jsonpath={path}")])?;
        Ok(told
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(name, address)| (name.to_owned(), address.to_owned()))
            .collect())
    }

    /// Runs kubectl, which must end well; returns what it printed.
    pub fn kubectl<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        output_within(&mut self.kubectl_command(arguments)?, LIMIT)
    }

    /// Runs kubectl, whether it ends well or not.
    pub fn kubectl_capture<S: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        capture(&mut self.kubectl_command(arguments)?, LIMIT)
    }

    /// Runs kubectl with a text on its standard input (as `apply -f -` reads it), whether it ends well or not.
    pub fn kubectl_with_input<S: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
        input: &str,
    ) -> Result<Output> {
        let mut command = self.kubectl_command(arguments)?;
        command.stdin(Stdio::from(file_with(input)?));
        capture(&mut command, LIMIT)
    }

    /// Applies YAML, which must be accepted.
    pub fn apply(&self, yaml: &str) -> Result<String> {
        let done = self.kubectl_with_input(["apply", "-f", "-"], yaml)?;
        if !done.success {
            bail!("kubectl apply was refused: {}", done.stderr.trim());
        }
        Ok(done.stdout)
    }

    /// Runs helm, which must end well; returns what it printed.
    pub fn helm<S: AsRef<str>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<String> {
        output_within(&mut self.helm_command(arguments)?, LIMIT)
    }

    /// Runs helm, whether it ends well or not.
    pub fn helm_capture<S: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Output> {
        capture(&mut self.helm_command(arguments)?, LIMIT)
    }

    /// kubectl with these arguments, to be run by the caller.
    pub fn kubectl_command<S: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        self.tool("kubectl", "--context", arguments)
    }

    /// helm with these arguments, to be run by the caller.
    pub fn helm_command<S: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        self.tool("helm", "--kube-context", arguments)
    }

    /// The log of a component, such as `kube-apiserver` or `sluice-a-kubelet`. Local only.
    pub fn log(&self, component: &str) -> PathBuf {
        self.settings.log(component)
    }

    /// The API server's audit log, one JSON object a line. Local only.
    pub fn audit_log(&self) -> PathBuf {
        self.settings.log("audit")
    }

    /// The process of a pod's container on this machine. Local only.
    pub fn container(&self, namespace: &str, pod: &str, container: &str) -> Result<Container> {
        pods::find(self, namespace, pod, container)
    }

    fn tool<S: AsRef<str>>(
        &self,
        name: &str,
        context_flag: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Command> {
        let program = match &self.binaries {
            Some(binaries) => binaries.path(name),
            None => packages::find(name)
                .with_context(|| format!("no `{name}` is on the PATH: install {name}"))?,
        };
        let mut tool = command(program, [""; 0]);
        if let Some(context) = self.context() {
            tool.args([context_flag, context]);
        }
        tool.args(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        tool.envs(self.settings.environment()).current_dir(&self.settings.repo);
        Ok(tool)
    }
}

fn file_with(text: &str) -> Result<File> {
    let mut file = tempfile::tempfile().context("making a temporary file")?;
    file.write_all(text.as_bytes())?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Whether a context is among those that kubectl listed.
fn check_context(context: &str, listed: &str) -> Result<()> {
    let there: Vec<&str> = listed.lines().map(str::trim).filter(|name| !name.is_empty()).collect();
    if there.contains(&context) {
        return Ok(());
    }
    match &there[..] {
        [] => bail!("there is no context {context}: your kubeconfig has none"),
        some => bail!("there is no context {context}: your kubeconfig has {}", some.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::check_context;

    #[test]
    fn a_context_that_is_not_listed_is_refused_with_those_that_are() {
        check_context("kind", "kind\nprod\n").unwrap();
        let refused = |listed| check_context("kin", listed).unwrap_err().to_string();
        assert_eq!(
            refused("kind\nprod\n"),
            "there is no context kin: your kubeconfig has kind, prod"
        );
        assert_eq!(refused(""), "there is no context kin: your kubeconfig has none");
    }
}
