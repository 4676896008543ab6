//! `kubectl drain` moves clients first: a validating webhook on `pods/eviction` defers the eviction
//! of a pod on a cordoned Kubernetes node until its clients have been moved.
//!
//! The way through it: [`start`] wires the parts → `server` serves over TLS what is in the Secret →
//! `review` reads what matters and answers. The leader keeps the certificate in the Secret
//! (`rotation`). [`decide()`] is the decision, a pure function. What it knows of the past is what the pod's
//! annotations tell. It must never hold up the eviction of a pod that is not a channel node, nor one
//! for which no drain could ever end: whoever evicts would wait for ever.

mod certificate;
mod decide;
mod review;
mod rotation;
mod server;

use std::sync::Arc;

use anyhow::Context as _;
use kube::Client;
use tokio_util::sync::CancellationToken;

pub use decide::{Answer, decide};
pub use rotation::{Place, keep};

use crate::{args::Args, events::Recorder, listen, metrics::Metrics};

/// Where the webhook's parts are, if there is to be one. `own`: the namespace of the operator.
pub fn place(args: &Args, own: &str) -> Option<Place> {
    args.webhook_addr?;
    Some(Place {
        namespace: args.leader_election_namespace.clone().unwrap_or_else(|| own.to_owned()),
        secret: args.webhook_name.clone(),
        service: args.webhook_name.clone(),
        configuration: args.webhook_configuration.clone()?,
    })
}

/// Serves reviews until `stop`: every replica does, the leader or not.
pub async fn start(
    args: &Args,
    client: &Client,
    recorder: &Recorder,
    metrics: &Arc<Metrics>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let (Some(address), Some(place)) = (args.webhook_addr, place(args, client.default_namespace()))
    else {
        return Ok(());
    };
    let listener =
        listen::bind(address).with_context(|| format!("failed to listen at {address}"))?;
    let reviewer = Arc::new(review::Reviewer {
        client: client.clone(),
        namespaces: args.namespaces.clone(),
        metrics: metrics.clone(),
        recorder: recorder.clone(),
    });
    let served = Arc::new(server::Served::default());
    tokio::spawn(server::follow(client.clone(), place, served.clone(), stop.clone()));
    tokio::spawn(server::serve(listener, served, reviewer, stop.clone()));
    Ok(())
}
