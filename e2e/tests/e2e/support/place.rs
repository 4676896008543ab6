//! The Kubernetes that the tests run against: the local one of `cargo e2e up`, or one that the user names.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use sluice_e2e::{Settings, binaries::Binaries, images::Images, settings::Target};

/// The namespace of the operator under test.
pub const OPERATOR_NAMESPACE: &str = "sluice-system";

/// A Kubernetes with Sluice installed.
#[derive(Clone)]
pub struct Place {
    /// A client of its API server.
    pub client: Client,
    /// The addresses of its nodes, where NodePorts are reached.
    pub addresses: Arc<Vec<String>>,
    settings: Arc<Settings>,
}

impl Place {
    /// Connects to the cluster that the environment names, by default the local one.
    pub async fn connect() -> Result<Self> {
        let settings = Settings::from_environment()?;
        let (kubeconfig, options) = match (&settings.target, settings.kubeconfig()) {
            (Target::Context { name, .. }, _) => (
                Kubeconfig::read()?,
                KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() },
            ),
            (Target::Local, file) => {
                let file = file.context("the local cluster has a kubeconfig")?;
                let read = Kubeconfig::read_from(file);
                let read = read.context("no local Kubernetes: bring it up with `cargo e2e up`")?;
                (read, KubeConfigOptions::default())
            }
        };
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await?;
        let client = Client::try_from(config)?;
        let nodes = Api::<Node>::all(client.clone()).list(&Default::default()).await;
        let nodes = nodes.context("the API server does not answer: is the cluster up?")?;
        let addresses: Vec<String> = nodes
            .into_iter()
            .filter_map(|node| node.status)
            .flat_map(|status| status.addresses.unwrap_or_default())
            .filter(|address| address.type_ == "InternalIP")
            .map(|address| address.address)
            .collect();
        ensure!(!addresses.is_empty(), "the cluster's nodes have no address");
        Ok(Self { client, addresses: Arc::new(addresses), settings: Arc::new(settings) })
    }

    /// Whether it is the Kubernetes on this machine.
    pub fn is_local(&self) -> bool {
        self.settings.is_local()
    }

    /// A path in the checkout.
    pub fn in_repo(&self, path: &str) -> PathBuf {
        self.settings.in_repo(path)
    }

    /// A log of a component of the local Kubernetes.
    pub fn log(&self, component: &str) -> PathBuf {
        self.settings.log(component)
    }

    /// The images that are loaded.
    pub fn images(&self) -> Result<Images> {
        Images::read(&self.settings)
    }

    /// What a child process needs to work on this cluster.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        self.settings.environment()
    }

    /// The arguments by which kubectl and helm know the cluster, the latter with `--kube-context`.
    pub fn context(&self) -> Option<&str> {
        match &self.settings.target {
            Target::Local => None,
            Target::Context { name, .. } => Some(name),
        }
    }

    /// A program of Kubernetes: the one built for the local cluster, or the user's own.
    pub fn program(&self, name: &str) -> PathBuf {
        match Binaries::find(&self.settings) {
            Ok(Some(binaries)) => binaries.path(name),
            _ => PathBuf::from(name),
        }
    }
}
