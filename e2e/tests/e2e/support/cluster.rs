//! A `ChannelCluster` under test: its state, its pods, and how its clients reach it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{
        core::v1::{Pod, Secret, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};
use sluice_crds::{ChannelCluster, ChannelClusterStatus, ConditionType, names};
use sluice_node_api::admin::NodeStatus;

use super::{Space, eventually, space::MANAGER, wait::LONG};

/// On an EndpointSlice: whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// A cluster in a test's namespace.
#[derive(Clone)]
pub struct Cluster<'a> {
    /// Where it is.
    pub space: &'a Space,
    /// Its name.
    pub name: String,
}

/// A spec for tests: everything as in production, only quicker, and without rebalancing: they count moves. `more` is
/// merged over it.
pub fn spec(replicas: i32, more: Value) -> Value {
    let mut spec = json!({
        "replicas": replicas,
        "minReadySeconds": 1,
        "service": { "type": "NodePort" },
        "discovery": { "intervalSeconds": 1 },
        "channels": [{ "topic": "room:*", "announceNode": true }],
        "rebalance": { "mode": "Off" },
        "drain": {
            "initialDelaySeconds": 1, "batchSize": 5, "batchIntervalSeconds": 1, "timeoutSeconds": 120,
        },
    });
    merge(&mut spec, more);
    spec
}

/// A change of the pods that is a deploy, and nothing else.
pub fn colour(value: &str) -> Value {
    json!({ "podTemplate": { "env": [{ "name": "COLOUR", "value": value }] } })
}

/// How often a pod's containers were started anew.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

fn merge(into: &mut Value, from: Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from,
    }
}

impl<'a> Cluster<'a> {
    /// A handle for a cluster that was applied.
    pub fn new(space: &'a Space, name: &str) -> Self {
        Self { space, name: name.to_owned() }
    }

    /// The object, read live.
    pub async fn get(&self) -> Result<ChannelCluster> {
        let got = self.space.api::<ChannelCluster>().get(&self.name).await;
        got.with_context(|| format!("reading ChannelCluster {}", self.name))
    }

    /// Changes the spec by a merge patch.
    pub async fn change(&self, spec: Value) -> Result<()> {
        let params = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "spec": spec }));
        let api = self.space.api::<ChannelCluster>();
        api.patch(&self.name, &params, &patch).await.context("changing the spec")?;
        Ok(())
    }

    /// The status, once it is about the spec as it is now.
    pub async fn status(&self) -> Result<ChannelClusterStatus> {
        let object = self.get().await?;
        let status = object.status.context("no status yet")?;
        ensure!(
            status.observed_generation == object.metadata.generation,
            "the status is about generation {:?} and not {:?}",
            status.observed_generation,
            object.metadata.generation
        );
        Ok(status)
    }

    /// One condition.
    pub async fn condition(&self, type_: ConditionType) -> Result<Condition> {
        let status = self.status().await?;
        let name = format!("{type_:?}");
        let found = status.conditions.iter().find(|condition| condition.type_ == name);
        found.cloned().with_context(|| format!("no condition {name}: {:?}", brief(&status)))
    }

    /// Waits until a condition has a status.
    pub async fn wait_for(&self, type_: ConditionType, status: &str) -> Result<Condition> {
        let what = format!("{} to be {type_:?}={status}", self.name);
        eventually(&what, LONG, async || {
            let condition = self.condition(type_).await?;
            ensure!(condition.status == status, "{:?}", brief(&self.status().await?));
            Ok(condition)
        })
        .await
    }

    /// Waits until everything that the spec asks for is there.
    pub async fn wait_ready(&self) -> Result<ChannelClusterStatus> {
        self.wait_for(ConditionType::Ready, "True").await?;
        self.status().await
    }

    /// The pods, by a live list, without those that Redis has.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        let mut pods = self
            .space
            .api::<Pod>()
            .list(&ListParams::default().labels(&self.selector()))
            .await?
            .items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// Selects the cluster's nodes.
    pub fn selector(&self) -> String {
        format!(
            "{}={},{}={}",
            names::CLUSTER_LABEL,
            self.name,
            names::COMPONENT_LABEL,
            names::COMPONENT_NODE
        )
    }

    /// UID and restarts of each pod, by name.
    pub async fn identities(&self) -> Result<BTreeMap<String, (String, i32)>> {
        let pods = self.pods().await?;
        Ok(pods
            .iter()
            .map(|pod| (pod.name_any(), (pod.uid().unwrap_or_default(), restarts(pod))))
            .collect())
    }

    /// URLs of the socket, one for each Kubernetes node, by the client Service's NodePort.
    pub async fn urls(&self) -> Result<Vec<String>> {
        let service = self.space.api::<Service>().get(&self.name).await?;
        let ports = service.spec.and_then(|spec| spec.ports).unwrap_or_default();
        let port =
            ports.iter().find_map(|port| port.node_port).context("the Service has no NodePort")?;
        let addresses = self.space.place.addresses.iter();
        Ok(addresses.map(|address| format!("ws://{address}:{port}/socket")).collect())
    }

    /// URL of the socket of one pod, past the Service.
    pub fn pod_url(&self, pod: &Pod) -> Result<String> {
        Ok(format!("ws://{}:{}/socket", ip(pod)?, names::HTTP_PORT))
    }

    /// One of the cluster's tokens.
    pub async fn token(&self, key: &str) -> Result<String> {
        let secret = self.space.api::<Secret>().get(&names::tokens_secret(&self.name)).await?;
        let data = secret.data.unwrap_or_default();
        let token = data.get(key).with_context(|| format!("the Secret has no {key}"))?;
        Ok(String::from_utf8(token.0.clone())?)
    }

    /// Publish URLs of the pods that are ready and not about to go.
    pub async fn publish_urls(&self) -> Result<Vec<String>> {
        let pods = self.pods().await?;
        let staying = pods.iter().filter(|pod| {
            ready(pod)
                && pod.metadata.deletion_timestamp.is_none()
                && !pod.annotations().contains_key(names::DRAIN_STARTED_AT)
        });
        staying
            .map(|pod| Ok(format!("http://{}:{}/api/publish", ip(pod)?, names::PUBLISH_PORT)))
            .collect()
    }

    /// Publish URLs of the pods behind the publish Service now.
    pub async fn publish_service_urls(&self) -> Result<Vec<String>> {
        let service = names::publish_service(&self.name);
        let slices = ListParams::default().labels(&format!("{SERVICE_NAME}={service}"));
        let slices = self.space.api::<EndpointSlice>().list(&slices).await?;
        let endpoints =
            slices.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
        let ready = endpoints.filter(|endpoint| {
            endpoint.conditions.as_ref().is_some_and(|conditions| conditions.ready == Some(true))
        });
        let addresses = ready.flat_map(|endpoint| endpoint.addresses);
        Ok(addresses
            .map(|address| format!("http://{address}:{}/api/publish", names::PUBLISH_PORT))
            .collect())
    }

    /// What a node says of itself.
    pub async fn node_status(&self, pod: &Pod, token: &str) -> Result<NodeStatus> {
        let url = format!("http://{}:{}/status", ip(pod)?, names::ADMIN_PORT);
        let request = http()?.get(url).bearer_auth(token);
        Ok(request.send().await?.error_for_status()?.json().await?)
    }

    /// What every ready node says of itself.
    pub async fn node_statuses(&self) -> Result<Vec<NodeStatus>> {
        let token = self.token(names::ADMIN_TOKEN).await?;
        let mut statuses = Vec::new();
        for pod in self.pods().await?.iter().filter(|pod| ready(pod)) {
            statuses.push(self.node_status(pod, &token).await?);
        }
        Ok(statuses)
    }
}

/// A client for plain HTTP calls to pods.
pub fn http() -> Result<reqwest::Client> {
    let limit = std::time::Duration::from_secs(5);
    Ok(reqwest::Client::builder().timeout(limit).no_proxy().build()?)
}

/// A pod's address.
pub fn ip(pod: &Pod) -> Result<&str> {
    let ip = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    ip.with_context(|| format!("{} has no address yet", pod.name_any()))
}

/// Whether a pod is Ready.
pub fn ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// The conditions in one line each, for messages.
pub fn brief(status: &ChannelClusterStatus) -> Vec<String> {
    let line = |c: &Condition| format!("{}={} {}: {}", c.type_, c.status, c.reason, c.message);
    status.conditions.iter().map(line).collect()
}
