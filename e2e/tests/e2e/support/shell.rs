//! kubectl and helm, as a person runs them.

use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{Space, wait::LONG};

/// What a program said.
#[derive(Debug, Clone)]
pub struct Said {
    /// Whether it ended well.
    pub success: bool,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub err: String,
}

impl Space {
    /// Runs kubectl in the namespace, with an object on its standard input, and gives what it said either way.
    pub async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Said> {
        let mut all = vec!["--namespace", &self.name];
        if let Some(context) = self.place.context() {
            all.extend(["--context", context]);
        }
        all.extend(arguments);
        self.program("kubectl", &all, input).await
    }

    /// Runs kubectl in the namespace; it must end well.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let said = self.try_kubectl(arguments, "").await?;
        if !said.success {
            bail!("kubectl {}: {}", arguments.join(" "), said.err.trim());
        }
        Ok(said.out)
    }

    /// Runs helm; it must end well.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut all = arguments.to_vec();
        if let Some(context) = self.place.context() {
            all.extend(["--kube-context", context]);
        }
        let said = self.program("helm", &all, "").await?;
        if !said.success {
            bail!("helm {}: {}{}", arguments.join(" "), said.out.trim(), said.err.trim());
        }
        Ok(said.out)
    }

    async fn program(&self, name: &str, arguments: &[&str], input: &str) -> Result<Said> {
        let mut child = Command::new(self.place.program(name))
            .args(arguments)
            .envs(self.place.environment())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{name} is missing"))?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes()).await?;
        }
        let done = timeout(LONG, child.wait_with_output())
            .await
            .with_context(|| format!("{name} {} did not end", arguments.join(" ")))??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Said { success: done.status.success(), out: text(&done.stdout), err: text(&done.stderr) })
    }
}
