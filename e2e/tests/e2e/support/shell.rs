//! kubectl and helm, as a person runs them.

use anyhow::{Context, Result, bail};
use sluice_e2e::{Cluster, command::Output};

use super::Space;

impl Space {
    /// Runs kubectl in the namespace, with an object on its standard input, and gives what it said either way.
    pub async fn try_kubectl(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let all: Vec<String> =
            ["--namespace", &self.name].iter().chain(arguments).map(ToString::to_string).collect();
        let input = input.to_owned();
        self.blocking(move |cluster| cluster.kubectl_with_input(&all, &input)).await
    }

    /// Runs kubectl in the namespace; it must end well.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let said = self.try_kubectl(arguments, "").await?;
        if !said.success {
            bail!("kubectl {}: {}", arguments.join(" "), said.stderr.trim());
        }
        Ok(said.stdout)
    }

    /// Runs helm; it must end well.
    pub async fn helm(&self, arguments: &[&str]) -> Result<String> {
        let all: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        self.blocking(move |cluster| cluster.helm(&all)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Cluster) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let cluster = self.place.kubernetes.clone();
        tokio::task::spawn_blocking(move || work(&cluster)).await.context("a program's thread")?
    }
}
