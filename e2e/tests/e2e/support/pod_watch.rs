//! A watch on a cluster's pods, and what it says about drains: how many at a time, and whether anything was deleted
//! before it was drained.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Result;
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, ResourceExt,
    api::{ListParams, WatchEvent, WatchParams},
};
use parking_lot::Mutex;
use sluice_crds::names;
use tokio::task::JoinHandle;

use super::{Cluster, cluster::ready};

/// One sight of a pod.
#[derive(Debug, Clone)]
pub struct Sight {
    /// Milliseconds since the epoch.
    pub at: f64,
    pub name: String,
    pub uid: String,
    /// When its drain was decided, if one was.
    pub started: Option<String>,
    /// When its drain's time is over, if it has one.
    pub deadline: Option<f64>,
    pub drained: bool,
    pub ready: bool,
    /// Whether the client Service selects it.
    pub accepting: bool,
    pub deleting: bool,
    pub gone: bool,
}

impl Sight {
    fn of(pod: &Pod, gone: bool) -> Self {
        let annotations = pod.annotations();
        Self {
            at: now(),
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            started: annotations.get(names::DRAIN_STARTED_AT).cloned(),
            deadline: annotations
                .get(names::DRAIN_DEADLINE)
                .and_then(|deadline| deadline.parse::<Timestamp>().ok())
                .map(|deadline| deadline.as_millisecond() as f64),
            drained: annotations.contains_key(names::DRAINED_AT),
            ready: ready(pod),
            accepting: pod.labels().get(names::ACCEPTING_LABEL).is_some_and(|is| is == "true"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            gone,
        }
    }
}

/// Milliseconds since the epoch.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// A running watch; it ends with this value.
pub struct PodWatch {
    sights: Arc<Mutex<Vec<Sight>>>,
    task: JoinHandle<()>,
}

impl Drop for PodWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl PodWatch {
    /// Starts to watch the cluster's pods.
    pub async fn start(cluster: &Cluster<'_>) -> Result<Self> {
        let api = cluster.space.api::<Pod>();
        let selector = cluster.selector();
        let list = api.list(&ListParams::default().labels(&selector)).await?;
        let first = list.items.iter().map(|pod| Sight::of(pod, false)).collect();
        let sights = Arc::new(Mutex::new(first));
        let version = list.metadata.resource_version.unwrap_or_default();
        let task = tokio::spawn(follow(api, selector, version, sights.clone()));
        Ok(Self { sights, task })
    }

    /// Everything seen so far.
    pub fn sights(&self) -> Vec<Sight> {
        self.sights.lock().clone()
    }

    /// The most pods that were draining, or drained and not yet deleted, at one time.
    pub fn most_drains_at_a_time(&self) -> usize {
        let mut draining = BTreeSet::new();
        let mut most = 0;
        for sight in self.sights() {
            if sight.started.is_some() && !sight.deleting && !sight.gone {
                draining.insert(sight.uid);
            } else {
                draining.remove(&sight.uid);
            }
            most = most.max(draining.len());
        }
        most
    }

    /// Pods with the number of different drains that were decided for them.
    pub fn drains(&self) -> BTreeMap<String, usize> {
        let mut starts: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for sight in self.sights() {
            if let Some(started) = sight.started {
                starts.entry(sight.name).or_default().insert(started);
            }
        }
        starts.into_iter().map(|(name, starts)| (name, starts.len())).collect()
    }

    /// How often each pod began or ceased to take clients while it stayed, by name.
    pub fn label_changes(&self) -> BTreeMap<String, usize> {
        let mut last: BTreeMap<String, (String, bool)> = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for sight in self.sights().into_iter().filter(|sight| !sight.deleting && !sight.gone) {
            let before = last.insert(sight.name.clone(), (sight.uid.clone(), sight.accepting));
            if before.is_some_and(|(uid, was)| uid == sight.uid && was != sight.accepting) {
                *changes.entry(sight.name).or_default() += 1;
            }
        }
        changes
    }

    /// The names of all pods that there ever were.
    pub fn names(&self) -> BTreeSet<String> {
        self.sights().into_iter().map(|sight| sight.name).collect()
    }

    /// The first sight of each pod's deletion.
    pub fn deletions(&self) -> Vec<Sight> {
        let mut seen = BTreeSet::new();
        let ends = self.sights().into_iter().filter(|sight| sight.deleting || sight.gone);
        ends.filter(|sight| seen.insert(sight.uid.clone())).collect()
    }
}

async fn follow(
    api: Api<Pod>,
    selector: String,
    mut version: String,
    sights: Arc<Mutex<Vec<Sight>>>,
) {
    let params = WatchParams::default().labels(&selector);
    loop {
        let mut ended = false;
        if let Ok(stream) = api.watch(&params, &version).await {
            let mut stream = std::pin::pin!(stream);
            while let Ok(Some(event)) = stream.try_next().await {
                let (pod, gone) = match event {
                    WatchEvent::Added(pod) | WatchEvent::Modified(pod) => (pod, false),
                    WatchEvent::Deleted(pod) => (pod, true),
                    WatchEvent::Bookmark(mark) => {
                        version = mark.metadata.resource_version;
                        continue;
                    }
                    // What happened since is not told any more.
                    WatchEvent::Error(_) => {
                        ended = true;
                        break;
                    }
                };
                version = pod.resource_version().unwrap_or(version);
                sights.lock().push(Sight::of(&pod, gone));
            }
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        if ended && let Ok(list) = api.list(&ListParams::default().labels(&selector)).await {
            version = list.metadata.resource_version.unwrap_or_default();
            let there = list.items.iter().map(|pod| Sight::of(pod, false));
            sights.lock().extend(there);
        }
    }
}
