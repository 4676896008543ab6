//! Watches over the objects that the operator made, and the last state they told of. The state is
//! behind the API server's, and behind our own writes: it serves to notice that something changed,
//! never to decide a disruption.

use std::collections::HashMap;

use futures::Stream;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject},
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};

use crate::build::Kind;

/// The kinds that are watched. Secrets are not: they are read by name, so that the operator needs
/// no right to list them.
pub const WATCHED: [Kind; 5] = [
    Kind::StatefulSet,
    Kind::Service,
    Kind::ServiceAccount,
    Kind::ConfigMap,
    Kind::PodDisruptionBudget,
];

/// Selects what the operator made.
const SELECTOR: &str = "app.kubernetes.io/managed-by=sluice-operator";

/// The watched objects of one namespace, or of all.
#[derive(Default)]
pub struct Stores {
    stores: HashMap<Kind, Store<DynamicObject>>,
}

/// An API of objects of `kind`, in one namespace or in all.
pub fn api(client: &Client, namespace: Option<&str>, kind: Kind) -> Api<DynamicObject> {
    let resource = kind.resource();
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

/// An API of objects of a kind with a type of its own, in one namespace or in all.
pub fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

impl Stores {
    /// Watches objects of `kind`; the stream must be polled for the store to fill.
    pub fn watch(
        &mut self,
        client: &Client,
        namespace: Option<&str>,
        kind: Kind,
    ) -> (impl Stream<Item = Result<DynamicObject, watcher::Error>> + Send + use<>, ApiResource)
    {
        let resource = kind.resource();
        let writer = reflector::store::Writer::<DynamicObject>::new(resource.clone());
        self.stores.insert(kind, writer.as_reader());
        let stream =
            watcher(api(client, namespace, kind), watcher::Config::default().labels(SELECTOR))
                .default_backoff()
                .modify(move |object| {
                    // Whose a field is matters in a pod template alone.
                    if kind != Kind::StatefulSet {
                        object.metadata.managed_fields = None;
                    }
                })
                .reflect(writer)
                .touched_objects();
        (stream, resource)
    }

    /// The last known state of an object; `None` also while the watch has not synced.
    pub fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> Option<std::sync::Arc<DynamicObject>> {
        let key = ObjectRef::new_with(name, kind.resource()).within(namespace);
        self.stores.get(&kind)?.get(&key)
    }

    /// Waits until every watch has listed what there is.
    pub async fn synced(&self) -> bool {
        for store in self.stores.values() {
            if store.wait_until_ready().await.is_err() {
                return false;
            }
        }
        true
    }
}
