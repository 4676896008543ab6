//! Whether there is anything to see: the CRD is installed, and each namespace that the operator looks
//! after may be read. A namespace that is gone takes the operator's rights in it along.
//!
//! It must never stop anything: it tells `/readyz` and the log, and the watches try on by themselves.

use std::{sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client,
    api::{ListParams, Resource as _},
    core::Status,
};
use sluice_crds::ChannelCluster;
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    health::{Crd, Readiness, Reading},
    stores::{self, Stores, WATCHED},
    telemetry,
};

/// Between two looks for what is missing.
const SOON: Duration = Duration::from_secs(5);
/// Between two looks for the CRD while it is there.
const SELDOM: Duration = Duration::from_secs(15);
/// Between two looks at a namespace, however often its watches fail.
const PAUSE: Duration = Duration::from_secs(1);
/// For an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until the CRD is there. `false`: told to stop first.
pub async fn await_crd(client: &Client, readiness: &Readiness, stop: &CancellationToken) -> bool {
    loop {
        match timeout(PATIENCE, has_crd(client)).await {
            Ok(Ok(true)) => {
                readiness.crd(Crd::There);
                return true;
            }
            Ok(Ok(false)) => {
                readiness.crd(Crd::Missing);
                tracing::error!("{}", Crd::MISSING);
            }
            Ok(Err(error)) => {
                tracing::error!(error = telemetry::told(&error), "can't look for the CRD");
            }
            Err(_) => tracing::error!("the API server does not answer"),
        }
        tokio::select! {
            () = stop.cancelled() => return false,
            () = sleep(SOON) => {}
        }
    }
}

/// Says when the CRD goes, and when it is back. An API server that does not answer tells neither.
pub async fn keep_crd(client: Client, readiness: Arc<Readiness>, stop: CancellationToken) {
    let mut there = true;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(if there { SELDOM } else { SOON }) => {}
        }
        match timeout(PATIENCE, has_crd(&client)).await {
            Ok(Ok(now)) if now != there => {
                there = now;
                readiness.crd(if there { Crd::There } else { Crd::Missing });
                match there {
                    true => tracing::info!("the ChannelCluster CRD is back"),
                    false => tracing::error!("{}", Crd::MISSING),
                }
            }
            _ => {}
        }
    }
}

/// Asked of discovery: a list needs a namespace, whose rights may be gone.
async fn has_crd(client: &Client) -> Result<bool, kube::Error> {
    let version = ChannelCluster::api_version(&());
    match client.list_api_group_resources(&version).await {
        Ok(list) => Ok(list.resources.iter().any(|r| r.name == ChannelCluster::plural(&()))),
        Err(kube::Error::Api(answer)) if answer.code == 404 => Ok(false),
        // Who may not ask finds out by the watches.
        Err(kube::Error::Api(answer)) if answer.code == 403 => Ok(true),
        Err(error) => Err(error),
    }
}

/// A namespace that is looked after, or all of them.
pub struct Scope {
    namespace: Option<String>,
    readiness: Arc<Readiness>,
    failed: Notify,
}

impl Scope {
    /// `None`: all namespaces.
    pub fn new(namespace: Option<&str>, readiness: Arc<Readiness>) -> Self {
        let scope = Self { namespace: namespace.map(Into::into), readiness, failed: Notify::new() };
        scope.tell(Reading::Filling);
        scope
    }

    fn name(&self) -> &str {
        self.namespace.as_deref().unwrap_or("all namespaces")
    }

    fn tell(&self, reading: Reading) {
        self.readiness.reads(self.name(), reading);
    }

    /// A watch in it failed; what is known already is said once only.
    pub fn watch_failed(&self, error: &(dyn std::error::Error + 'static)) {
        let (namespace, error) = (self.name(), telemetry::told(error));
        match self.readiness.reading(namespace) {
            Some(Reading::Denied) => tracing::debug!(namespace, error, "watch failed"),
            _ => tracing::warn!(namespace, error, "watch failed, trying again"),
        }
        self.failed.notify_one();
    }

    /// Says when its caches are in sync, when it may not be read, and when it may again.
    pub async fn follow(&self, client: &Client, stores: &Stores, stop: &CancellationToken) {
        let (mut synced, mut unsure) = (false, false);
        let (mut denied, mut was_denied) = (false, false);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = stores.synced(), if !synced => {
                    synced = true;
                    tracing::info!(namespace = self.name(), "caches are in sync");
                }
                () = self.failed.notified() => {}
                () = sleep(SOON), if !synced || denied || unsure => {}
            }
            let looked = timeout(PATIENCE, self.refused(client)).await;
            unsure = !matches!(looked, Ok(Ok(_)));
            if let Ok(Ok(refused)) = looked {
                self.log(denied, refused.as_ref());
                denied = refused.is_some();
                was_denied |= denied;
            }
            self.tell(match (denied, synced) {
                (true, _) => Reading::Denied,
                (false, true) => Reading::Synced,
                // The others are looked after all the while.
                (false, false) if was_denied => Reading::Denied,
                (false, false) => Reading::Filling,
            });
            sleep(PAUSE).await;
        }
    }

    fn log(&self, denied: bool, refused: Option<&Status>) {
        let namespace = self.name();
        match refused {
            Some(status) if !denied => tracing::warn!(
                namespace,
                error = status.message,
                "may not be read: the namespace or the operator's rights in it are gone; its \
                 clusters are not looked after"
            ),
            None if denied => tracing::info!(namespace, "may be read again"),
            _ => {}
        }
    }

    /// What the API server says if one of the watched kinds may not be listed.
    async fn refused(&self, client: &Client) -> Result<Option<Status>, kube::Error> {
        let first = ListParams::default().limit(1);
        let namespace = self.namespace.as_deref();
        // As metadata: whether the objects can be understood is not the question.
        let clusters: Api<ChannelCluster> = stores::scoped(client, namespace);
        let pods: Api<Pod> = stores::scoped(client, namespace);
        let mut answers = vec![
            clusters.list_metadata(&first).await.err(),
            pods.list_metadata(&first).await.err(),
        ];
        for kind in WATCHED {
            answers.push(stores::api(client, namespace, kind).list_metadata(&first).await.err());
        }
        for error in answers.into_iter().flatten() {
            match error {
                kube::Error::Api(status) if status.code == 403 => return Ok(Some(*status)),
                // A CRD that is missing is told by itself.
                kube::Error::Api(status) if status.code == 404 => {}
                error => return Err(error),
            }
        }
        Ok(None)
    }
}
