//! What is done for the pods of a cluster that is deleted, alone or with its whole namespace: their
//! nodes are told not to wait for their clients. There is no pod left for these to go to, and a
//! drain of mode `Wait` would keep the pods, and their namespace, for half an hour. (Of a namespace
//! Kubernetes ends the pods first, while the cluster still stands.)
//!
//! It needs no finalizer: without an operator the pods go by themselves, only later. It must never
//! tell a pod that stays: one that is not terminating (`--cascade=orphan`), or whose cluster is
//! there, in a namespace that is, or is held by somebody's finalizer.

use std::{collections::HashSet, net::IpAddr, time::Duration};

use futures::{StreamExt, stream};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{Namespace, Pod, Secret},
};
use kube::{Api, api::ListParams, core::PartialObjectMeta, runtime::reflector::ObjectRef};
use sluice_crds::{ChannelCluster, names};

use crate::{
    observe::{self, address},
    plan::at_once,
    reconcile::{Context, Guarded},
    secrets::AdminToken,
};

/// Nodes told at the same time.
const TOLD_AT_ONCE: usize = 32;
/// Between two looks: pods begin to go one after the other.
const LOOK: Duration = Duration::from_secs(1);
/// Looks after which a cluster is left alone; the next change of one of its pods begins anew.
const LOOKS: u32 = 30;

/// What Kubernetes' own garbage collector puts on an object that is deleted.
const COLLECTED: [&str; 2] = ["foregroundDeletion", "orphan"];

/// Whether a cluster is deleted, and its pods with it or before it (`--cascade=foreground`). One that only
/// somebody's finalizer holds is looked after for as long as its StatefulSet stands: its clients are there
/// still. Nothing is made for it anew.
pub async fn goes(context: &Context, cluster: &ChannelCluster) -> bool {
    let meta = &cluster.metadata;
    if meta.deletion_timestamp.is_none() {
        return false;
    }
    let held = meta.finalizers.as_deref().unwrap_or_default();
    let (Some(namespace), Some(name)) = (&meta.namespace, &meta.name) else { return true };
    if held.is_empty() || held.iter().any(|by| COLLECTED.contains(&by.as_str())) {
        return true;
    }
    let sets: Api<PartialObjectMeta<StatefulSet>> =
        Api::namespaced(context.client.clone(), namespace);
    let set = sets.get_metadata_opt(name).await.ok().flatten();
    set.is_none_or(|set| set.metadata.deletion_timestamp.is_some())
}

/// Looks after the pods of `gone` until there are none. `token`: the one last used, as the Secret
/// goes with the cluster.
pub async fn farewell(context: &Context, gone: &ObjectRef<Guarded>, token: Option<&AdminToken>) {
    let mut told = HashSet::new();
    for _ in 0..LOOKS {
        match look(context, gone, token, &mut told).await {
            Ok(true) => return,
            Ok(false) => {}
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::debug!(%gone, error, "can't see the pods of a deleted cluster");
            }
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Tells those that were not told yet; whether nobody is left to be told.
pub async fn look(
    context: &Context,
    gone: &ObjectRef<Guarded>,
    token: Option<&AdminToken>,
    told: &mut HashSet<String>,
) -> Result<bool, kube::Error> {
    let namespace = gone.namespace.as_deref().unwrap_or_default();
    let clusters: Api<PartialObjectMeta<ChannelCluster>> =
        Api::namespaced(context.client.clone(), namespace);
    let live = clusters.get_metadata_opt(&gone.name).await?;
    let stands = live.is_some_and(|cluster| cluster.metadata.deletion_timestamp.is_none());
    if stands && !namespace_goes(context, namespace).await? {
        return Ok(true);
    }
    let pods: Api<Pod> = Api::namespaced(context.client.clone(), namespace);
    let selector = observe::selector(&gone.name);
    let pods = pods.list(&ListParams::default().labels(&selector)).await?.items;
    let mut waiting = to_tell(&pods);
    waiting.retain(|(uid, _)| !told.contains(uid));
    if waiting.is_empty() {
        return Ok(pods.is_empty());
    }
    let read;
    let token = match token {
        Some(token) => token,
        None => {
            let secrets: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
            let Some(secret) = secrets.get_opt(&names::tokens_secret(&gone.name)).await? else {
                tracing::debug!(%gone, "the tokens are gone: the pods end their drains by themselves");
                return Ok(true);
            };
            let version = secret.metadata.resource_version.unwrap_or_default();
            read = AdminToken::of(&secret.data.unwrap_or_default(), &version);
            &read
        }
    };
    if !context.leadership.still_valid() {
        return Ok(true);
    }
    let request = at_once();
    let answers: Vec<(String, bool)> = stream::iter(waiting)
        .map(|(uid, address)| {
            let request = &request;
            async move {
                let answer = context.nodes.start_drain(address, token, request).await;
                (uid, answer.is_ok())
            }
        })
        .buffer_unordered(TOLD_AT_ONCE)
        .collect()
        .await;
    let done: Vec<String> = answers.into_iter().filter(|(_, ok)| *ok).map(|(uid, _)| uid).collect();
    if !done.is_empty() {
        tracing::info!(%gone, pods = done.len(), "the cluster goes: its pods do not wait");
    }
    told.extend(done);
    Ok(false)
}

/// Whether the namespace is being deleted, and everything in it.
pub async fn namespace_goes(context: &Context, namespace: &str) -> Result<bool, kube::Error> {
    let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(context.client.clone());
    let live = namespaces.get_metadata_opt(namespace).await?;
    Ok(live.is_none_or(|namespace| namespace.metadata.deletion_timestamp.is_some()))
}

/// UID and address of the pods that go and whose node may still have clients.
fn to_tell(pods: &[Pod]) -> Vec<(String, IpAddr)> {
    pods.iter()
        .filter(|pod| pod.metadata.deletion_timestamp.is_some() && observe::runs(pod))
        .filter_map(|pod| Some((pod.metadata.uid.clone()?, address(pod)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(uid: &str, going: bool, state: &str) -> Pod {
        let mut pod = json!({
            "metadata": { "uid": uid },
            "status": {
                "podIP": "10.0.0.1",
                "containerStatuses": [{
                    "name": names::NODE_CONTAINER, "image": "", "imageID": "", "ready": true,
                    "restartCount": 0, "state": { state: {} },
                }],
            },
        });
        if going {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn only_pods_that_go_and_run_are_told() {
        let pods =
            [pod("a", true, "running"), pod("b", false, "running"), pod("c", true, "waiting")];
        let told: Vec<String> = to_tell(&pods).into_iter().map(|(uid, _)| uid).collect();
        assert_eq!(told, ["a"]);
    }
}
