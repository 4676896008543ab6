//! The operator under test: which pod leads, its metrics, and faults in its process. Faults need the local Kubernetes,
//! whose containers are processes of this machine.

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use sluice_e2e::{network::CLUSTER_IP, pods::Container};
use tokio::sync::{Mutex, MutexGuard};

use super::{
    Cut,
    cluster::{http, ip, ready},
    place::{OPERATOR_NAMESPACE, Place},
    wait::{LONG, eventually},
};

const LEASE: &str = "sluice-operator";
const SELECTOR: &str = "app.kubernetes.io/name=sluice-operator";
pub const METRICS_PORT: u16 = 8080;

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

/// Who leads since a moment, as the lease and the machine's processes have it.
pub async fn leading_since(place: &Place, since: Timestamp) -> Result<(Pod, Container)> {
    let leases = Api::<Lease>::namespaced(place.client.clone(), OPERATOR_NAMESPACE);
    let renewed = leases.get(LEASE).await?.spec.and_then(|spec| spec.renew_time);
    ensure!(renewed.as_ref().is_some_and(|time| time.0 > since), "renewed at {renewed:?}");
    let pod = leader(place).await?;
    let process = process(place, &pod)?;
    Ok((pod, process))
}

/// Removes an operator pod at once: its container would be back within a second, and lead again.
pub async fn remove(place: &Place, pod: &Pod) -> Result<()> {
    let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
    let pods = Api::<Pod>::namespaced(place.client.clone(), OPERATOR_NAMESPACE);
    pods.delete(&pod.name_any(), &now).await?;
    Ok(())
}

/// Puts the API server out of reach of every operator pod of this moment: calls get no answer, open connections neither.
pub async fn cut_off(place: &Place) -> Result<Cut> {
    let mut cut = Cut::default();
    for pod in pods(place).await? {
        cut.drop_packets(&process(place, &pod)?, &["OUTPUT", "--destination", CLUSTER_IP])?;
    }
    Ok(cut)
}

/// Puts a port of another pod out of reach of every operator pod of this moment.
pub async fn cut_off_from(place: &Place, pod: &Container, port: u16) -> Result<Cut> {
    let mut cut = Cut::default();
    for operator in pods(place).await? {
        let port = port.to_string();
        let from = ["INPUT", "--protocol", "tcp", "--dport", &port, "--source", ip(&operator)?];
        cut.drop_packets(pod, &from)?;
    }
    Ok(cut)
}

/// The sum of a metric over the operator's pods and the metric's labels.
pub async fn metric(place: &Place, name: &str) -> Result<f64> {
    metric_with(place, name, "").await
}

/// As [`metric`], of the series that have a label, as it stands in Prometheus' format.
pub async fn metric_with(place: &Place, name: &str, label: &str) -> Result<f64> {
    let mut sum = 0.0;
    for pod in pods(place).await?.iter().filter(|pod| ready(pod)) {
        let url = format!("http://{}:{METRICS_PORT}/metrics", ip(pod)?);
        let text = http()?.get(url).send().await?.error_for_status()?.text().await?;
        sum += total(&text, name, label);
    }
    Ok(sum)
}

/// The sum of a metric's series that have a label, in what `/metrics` answered.
pub fn total(text: &str, name: &str, label: &str) -> f64 {
    let samples = text.lines().filter(|line| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ']));
        rest.is_some_and(|rest| rest.contains(label))
    });
    samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// The operator's process in one of its pods, to be stopped or killed. Local only.
pub fn process(place: &Place, pod: &Pod) -> Result<Container> {
    place.kubernetes.container(OPERATOR_NAMESPACE, &pod.name_any(), "operator")
}
