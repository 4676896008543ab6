//! The operator under test: which pod leads, its metrics, and faults in its process. Faults need the local Kubernetes,
//! whose containers are processes of this machine.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use sluice_e2e::pods::Container;
use tokio::sync::{Mutex, MutexGuard};

use super::{
    cluster::{http, ip, ready},
    place::{OPERATOR_NAMESPACE, Place},
    wait::{LONG, eventually},
};

const LEASE: &str = "sluice-operator";
const SELECTOR: &str = "app.kubernetes.io/name=sluice-operator";
const METRICS_PORT: u16 = 8080;

/// Holds back the other tests that harm the operator: one of them at a time.
pub async fn alone() -> MutexGuard<'static, ()> {
    static LOCK: Mutex<()> = Mutex::const_new(());
    LOCK.lock().await
}

/// The operator's pods.
pub async fn pods(place: &Place) -> Result<Vec<Pod>> {
    let pods = Api::<Pod>::namespaced(place.client.clone(), OPERATOR_NAMESPACE);
    Ok(pods.list(&ListParams::default().labels(SELECTOR)).await?.items)
}

/// The pod that holds the lease.
pub async fn leader(place: &Place) -> Result<Pod> {
    let leases = Api::<Lease>::namespaced(place.client.clone(), OPERATOR_NAMESPACE);
    let holder = leases.get(LEASE).await?.spec.and_then(|spec| spec.holder_identity);
    let holder = holder.filter(|holder| !holder.is_empty()).context("nobody holds the lease")?;
    let found = pods(place).await?.into_iter().find(|pod| holder.starts_with(&pod.name_any()));
    found.with_context(|| format!("the lease is held by {holder}, which is no pod"))
}

/// Waits until two replicas are ready and one of them leads.
pub async fn wait_whole(place: &Place) -> Result<()> {
    eventually("two operator pods to be ready, one leading", LONG, async || {
        let ready_pods = pods(place).await?.iter().filter(|pod| ready(pod)).count();
        ensure!(ready_pods >= 2, "{ready_pods} ready");
        leader(place).await.map(drop)
    })
    .await
}

/// The sum of a metric over the operator's pods and the metric's labels.
pub async fn metric(place: &Place, name: &str) -> Result<f64> {
    let mut sum = 0.0;
    for pod in pods(place).await?.iter().filter(|pod| ready(pod)) {
        let url = format!("http://{}:{METRICS_PORT}/metrics", ip(pod)?);
        let text = http()?.get(url).send().await?.error_for_status()?.text().await?;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        sum += samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>();
    }
    Ok(sum)
}

/// The operator's process in one of its pods, to be stopped or killed. Local only.
pub fn process(place: &Place, pod: &Pod) -> Result<Container> {
    place.kubernetes.container(OPERATOR_NAMESPACE, &pod.name_any(), "operator")
}
