//! A test's own namespace, and running a test in one.

use std::{
    any::Any, collections::BTreeSet, mem, panic::AssertUnwindSafe, sync::Once, time::Duration,
};

use anyhow::{Context, Result, anyhow};
use futures::FutureExt;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Namespace};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sluice_crds::ChannelCluster;
use tokio::sync::{Mutex, RwLock};

use super::{Cluster, dump, place::Place};

/// Label of the namespaces that tests make, its value the process that did.
const LABEL: &str = "sluice.dev/e2e-run";
/// Field manager of what tests apply.
pub const MANAGER: &str = "sluice-e2e";
/// No test takes longer, whatever happens; but those that say how long they take.
const LIMIT: Duration = Duration::from_secs(420);

/// Held by each test that counts on an operator that works, and alone by one that takes the operator away for long.
static OPERATOR: RwLock<()> = RwLock::const_new(());
/// Held by every test, and alone by one whose figures others would spoil. Taken before [`OPERATOR`].
static MACHINE: RwLock<()> = RwLock::const_new(());

/// What a test needs of the operator, and of the machine.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    /// An operator that works, on any Kubernetes.
    Operator,
    /// The same, on the local Kubernetes.
    LocalOperator,
    /// No other test beside that needs the operator, on the local Kubernetes.
    Alone,
    /// An operator that works, and no other test beside.
    Quiet,
    /// Nothing: it bears an operator that is away.
    Nothing,
}

/// A namespace that one test has for itself.
pub struct Space {
    /// The test's name.
    pub test: String,
    /// The namespace's name.
    pub name: String,
    /// The Kubernetes it is in.
    pub place: Place,
    /// A client for it.
    pub client: Client,
    /// Releases in it, which have objects in no namespace.
    releases: Mutex<BTreeSet<String>>,
}

/// Runs a test in a namespace of its own, which is deleted at the end, also on failure. With `SLUICE_E2E_KEEP` set it is
/// kept.
pub fn test(name: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    run(name, Need::Operator, LIMIT, body);
}

/// As [`test`], for what only the local Kubernetes allows, such as stopping a container's process.
pub fn local_test(name: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    run(name, Need::LocalOperator, LIMIT, body);
}

/// As [`local_test`], for what takes the operator away for so long that tests beside it would fail: none runs.
pub fn test_without_operator(
    name: &str,
    limit: Duration,
    body: impl AsyncFnOnce(&Space) -> Result<()>,
) {
    run(name, Need::Alone, limit, body);
}

/// As [`test`], for figures that other tests beside would spoil.
pub fn quiet_test(name: &str, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    run(name, Need::Quiet, LIMIT, body);
}

/// As [`test`], for what holds although the operator is away for a while: it may run beside such a test.
pub fn hardy_test(name: &str, limit: Duration, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    run(name, Need::Nothing, limit, body);
}

fn run(name: &str, need: Need, limit: Duration, body: impl AsyncFnOnce(&Space) -> Result<()>) {
    static CRYPTO: Once = Once::new();
    CRYPTO.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime needs two threads");
    let outcome = runtime.block_on(async {
        let _quiet = match need {
            Need::Quiet => Some(MACHINE.write().await),
            _ => None,
        };
        let _beside = match need {
            Need::Quiet => None,
            _ => Some(MACHINE.read().await),
        };
        let _alone = match need {
            Need::Alone => Some(OPERATOR.write().await),
            _ => None,
        };
        let _shared = match need {
            Need::Operator | Need::LocalOperator => Some(OPERATOR.read().await),
            _ => None,
        };
        let place = Place::connect().await?;
        let local_only = matches!(need, Need::LocalOperator | Need::Alone);
        if local_only && !place.is_local() {
            eprintln!("  {name}: skipped: needs the local Kubernetes");
            return Ok(());
        }
        let space = Space::create(name, place).await?;
        let result = tokio::time::timeout(limit, AssertUnwindSafe(body(&space)).catch_unwind())
            .await
            .map_err(|_| anyhow!("not done within {} s", limit.as_secs()))
            .and_then(|ended| ended.unwrap_or_else(|panic| Err(anyhow!(message(&*panic)))));
        if let Err(error) = &result {
            dump::dump(&space, error).await;
        }
        let removed = space.remove().await;
        result.and(removed)
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    if let Err(error) = outcome {
        panic!("{name}: {error:#}");
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| String::from(*text)))
        .unwrap_or_else(|| String::from("the test panicked"))
}

impl Space {
    async fn create(test: &str, place: Place) -> Result<Self> {
        let client = place.client.clone();
        clear(&client, &place).await?;
        let name = short(test);
        create_namespace(&client, &name).await?;
        Ok(Self::new(test, name, place))
    }

    /// A second namespace, deleted by the caller with [`Space::remove`].
    pub async fn second(&self) -> Result<Self> {
        let name = format!("{}-b", self.name);
        create_namespace(&self.client, &name).await?;
        Ok(Self::new(&self.test, name, self.place.clone()))
    }

    fn new(test: &str, name: String, place: Place) -> Self {
        let client = place.client.clone();
        Self { test: test.to_owned(), name, place, client, releases: Mutex::default() }
    }

    /// Has a release of helm's uninstalled before the namespace is deleted, unless it is by then.
    pub async fn owns(&self, release: &str) {
        self.releases.lock().await.insert(release.to_owned());
    }

    /// Deletes the namespace, without waiting until it is gone, and what its releases have outside of it.
    pub async fn remove(&self) -> Result<()> {
        if std::env::var_os("SLUICE_E2E_KEEP").is_some() {
            eprintln!("  {}: kept namespace {}", self.test, self.name);
            return Ok(());
        }
        let mut result = Ok(());
        for release in mem::take(&mut *self.releases.lock().await) {
            let uninstall =
                ["uninstall", &release, "--namespace", &self.name, "--ignore-not-found"];
            let gone = self.helm(&uninstall).await.with_context(|| format!("ending {release}"));
            result = result.and(gone.map(drop));
        }
        let namespaces = Api::<Namespace>::all(self.client.clone());
        namespaces.delete(&self.name, &DeleteParams::default()).await.context("deleting it")?;
        result
    }

    /// The objects of one kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies an object, server-side.
    pub async fn apply<K>(&self, name: &str, object: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
        K: Clone + DeserializeOwned + std::fmt::Debug,
    {
        let params = PatchParams::apply(MANAGER).force();
        let applied = self.api::<K>().patch(name, &params, &Patch::Apply(object)).await;
        applied.with_context(|| format!("applying {name}"))
    }

    /// Applies a `ChannelCluster` with a spec.
    pub async fn cluster(&self, name: &str, spec: Value) -> Result<Cluster<'_>> {
        let object = serde_json::json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "ChannelCluster",
            "metadata": { "name": name },
            "spec": spec,
        });
        self.apply::<ChannelCluster>(name, object).await?;
        Ok(Cluster::new(self, name))
    }
}

async fn create_namespace(client: &Client, name: &str) -> Result<()> {
    let labels = [
        ("pod-security.kubernetes.io/enforce", String::from("restricted")),
        (LABEL, std::process::id().to_string()),
    ];
    let labels = labels.map(|(key, value)| (String::from(key), value)).into();
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.create(&PostParams::default(), &namespace).await.context("making a namespace")?;
    Ok(())
}

/// Deletes what a run that was killed left: namespaces of a process that is no more. Only the machine that runs the local
/// Kubernetes can tell.
async fn clear(client: &Client, place: &Place) -> Result<()> {
    if !place.is_local() || std::env::var_os("SLUICE_E2E_KEEP").is_some() {
        return Ok(());
    }
    let namespaces = Api::<Namespace>::all(client.clone());
    for namespace in namespaces.list(&ListParams::default().labels(LABEL)).await? {
        let run = namespace.metadata.labels.iter().flatten().find(|(key, _)| *key == LABEL);
        let alive = run.is_some_and(|(_, pid)| std::path::Path::new("/proc").join(pid).exists());
        if let (false, None, Some(name)) =
            (alive, &namespace.metadata.deletion_timestamp, &namespace.metadata.name)
        {
            let _ = namespaces.delete(name, &DeleteParams::default()).await;
        }
    }
    Ok(())
}

fn short(test: &str) -> String {
    let words: String = test.replace('_', "-").chars().take(36).collect();
    format!("e2e-{}-{:05x}", words.trim_end_matches('-'), rand::random_range(0..0x10_0000u32))
}
