//! The operator under test: which pod leads, its metrics, and faults in its process. Faults need the local Kubernetes,
//! whose containers are processes of this machine.

use std::fs;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{Api, ResourceExt, api::ListParams};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
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
        sum += samples
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>();
    }
    Ok(sum)
}

/// Sends a signal to the operator's process in a pod on this machine.
pub fn signal(pod: &Pod, signal: Signal) -> Result<()> {
    let uid = pod.uid().context("a pod has a UID")?;
    let pid = process(&uid).with_context(|| format!("no operator process of pod {uid} is here"))?;
    let pid = Pid::from_raw(pid).context("a process number is positive")?;
    // The handle is taken first and the process looked at again: the number can't come to mean another one.
    let handle = pidfd_open(pid, PidfdFlags::empty())?;
    ensure!(process(&uid) == Some(pid.as_raw_nonzero().get()), "the operator's process just ended");
    pidfd_send_signal(handle, signal)?;
    Ok(())
}

/// The process number of the operator in the pod: its cgroup names the pod's UID, its program is no pause.
fn process(uid: &str) -> Option<i32> {
    let entries = fs::read_dir("/proc").ok()?;
    entries.flatten().find_map(|entry| {
        let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
        let cgroup = fs::read_to_string(entry.path().join("cgroup")).ok()?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        let ours = cgroup.contains(uid) || cgroup.contains(&uid.replace('-', "_"));
        (ours && name.starts_with("sluice-operator")).then_some(pid)
    })
}
