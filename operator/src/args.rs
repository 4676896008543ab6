//! The operator's arguments, from the command line and the environment. Nothing else reads the
//! environment, `RUST_LOG` and the Kubernetes client's own variables aside.

use std::{net::SocketAddr, time::Duration};

use clap::{Parser, ValueEnum};

use crate::leader::Timing;

/// Reconciles ChannelClusters: clusters of Phoenix-Channels-compatible realtime nodes.
#[derive(Clone, Debug, Parser)]
#[command(name = "sluice-operator", version)]
pub struct Args {
    /// A namespace to look after; repeat it, or separate several by commas. None: all namespaces.
    #[arg(long = "namespace", env = "SLUICE_NAMESPACES", value_delimiter = ',')]
    pub namespaces: Vec<String>,
    /// Image of nodes, for clusters that name none.
    #[arg(long, env = "SLUICE_NODE_IMAGE", default_value = "")]
    pub node_image: String,
    /// Image of a managed Redis, for clusters that name none.
    #[arg(long, env = "SLUICE_REDIS_IMAGE", default_value = "redis:8.2-alpine")]
    pub redis_image: String,
    /// The Kubernetes cluster's DNS domain.
    #[arg(long, env = "SLUICE_CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub cluster_domain: String,
    /// Where to serve /metrics, /healthz and /readyz. `[::]` is IPv6 and IPv4, or IPv4 alone where
    /// there is no IPv6.
    #[arg(long, env = "SLUICE_METRICS_ADDR", default_value = "[::]:8080")]
    pub metrics_addr: SocketAddr,
    /// Where to serve the webhook that evictions wait for. Default: nowhere, evictions go through.
    #[arg(long, env = "SLUICE_WEBHOOK_ADDR")]
    pub webhook_addr: Option<SocketAddr>,
    /// Name of the webhook's Service and Secret, in the lease's namespace.
    #[arg(long, env = "SLUICE_WEBHOOK_NAME", default_value = "sluice-operator-webhook")]
    pub webhook_name: String,
    /// Name of the ValidatingWebhookConfiguration.
    #[arg(long, env = "SLUICE_WEBHOOK_CONFIGURATION")]
    pub webhook_configuration: Option<String>,
    /// How log lines are written.
    #[arg(long, env = "SLUICE_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Clusters that are reconciled at the same time.
    #[arg(long, env = "SLUICE_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub concurrency: u16,
    /// Whether replicas of the operator elect a leader; without it there may be only one.
    #[arg(long, env = "SLUICE_LEADER_ELECTION", default_value_t = true, action = clap::ArgAction::Set)]
    pub leader_election: bool,
    /// Namespace of the lease. Default: that of the operator's pod, or of the kubeconfig.
    #[arg(long, env = "POD_NAMESPACE")]
    pub leader_election_namespace: Option<String>,
    /// Name of the lease.
    #[arg(long, env = "SLUICE_LEADER_ELECTION_ID", default_value = "sluice-operator")]
    pub leader_election_id: String,
    /// How this process is called in the lease and in events. Default: a name by chance.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// Seconds after which a lease that nobody renews is free.
    #[arg(long, env = "SLUICE_LEASE_SECONDS", default_value_t = 15)]
    pub leader_election_lease_seconds: u32,
    /// Seconds for which a leader goes on without a renewal.
    #[arg(long, env = "SLUICE_RENEW_DEADLINE_SECONDS", default_value_t = 10)]
    pub leader_election_renew_deadline_seconds: u32,
    /// Seconds between two attempts.
    #[arg(long, env = "SLUICE_RETRY_SECONDS", default_value_t = 2)]
    pub leader_election_retry_seconds: u32,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Args {
    /// The election's times.
    pub fn timing(&self) -> Timing {
        let seconds = |n: u32| Duration::from_secs(n.into());
        Timing {
            lease: seconds(self.leader_election_lease_seconds),
            renew_deadline: seconds(self.leader_election_renew_deadline_seconds),
            retry: seconds(self.leader_election_retry_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_are_repeated_or_separated_by_commas() {
        let args = Args::parse_from(["op", "--namespace=a,b", "--namespace", "c"]);
        assert_eq!(args.namespaces, ["a", "b", "c"]);
        assert_eq!(args.timing(), Timing::default());
    }
}
