//! The Kubernetes that the tests run against: the local one of `cargo e2e up`, or one that the user names.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use sluice_e2e::Cluster;

/// The namespace of the operator under test.
pub use sluice_e2e::cluster::SYSTEM_NAMESPACE as OPERATOR_NAMESPACE;

/// A Kubernetes with Sluice installed.
#[derive(Clone)]
pub struct Place {
    /// A client of its API server.
    pub client: Client,
    /// The addresses of its nodes, where NodePorts are reached.
    pub addresses: Arc<Vec<String>>,
    /// Its programs, images and, when it is local, processes.
    pub kubernetes: Arc<Cluster>,
}

impl Place {
    /// Connects to the cluster that the environment names, by default the local one.
    pub async fn connect() -> Result<Self> {
        let kubernetes = Arc::new(Cluster::connect()?);
        let kubeconfig = match kubernetes.kubeconfig() {
            Some(file) => Kubeconfig::read_from(file)?,
            None => Kubeconfig::read()?,
        };
        let context = kubernetes.context().map(String::from);
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config).context("a client of the API server")?;
        let addresses: Vec<String> = kubernetes.node_addresses()?.into_values().collect();
        ensure!(!addresses.is_empty(), "the cluster's nodes have no address");
        Ok(Self { client, addresses: Arc::new(addresses), kubernetes })
    }

    /// Whether it is the Kubernetes on this machine.
    pub fn is_local(&self) -> bool {
        self.kubernetes.is_local()
    }

    /// A path in the checkout.
    pub fn in_repo(&self, path: &str) -> PathBuf {
        self.kubernetes.settings().in_repo(path)
    }
}
