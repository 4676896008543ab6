//! What the operator makes for a cluster: put right when changed, left alone when not, gone when the cluster goes.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Namespace, Pod, Secret, Service, ServiceAccount},
    policy::v1::PodDisruptionBudget,
};
use kube::{
    ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use serde_json::json;
use sluice_crds::{ChannelCluster, ConditionType, names};

use crate::{
    figure,
    support::{Clients, LONG, Space, audit, eventually, operator, roll::Roll, spec, test},
};

/// The resource version of everything that belongs to clusters in the namespace.
async fn versions(space: &Space) -> Result<BTreeMap<String, String>> {
    let kinds = "channelclusters,statefulsets,services,configmaps,secrets,serviceaccounts,poddisruptionbudgets,pods";
    let row = "--output=jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{\"\\n\"}{end}";
    let list = space.kubectl(&["get", kinds, row]).await?;
    Ok(list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(a, b)| (a.into(), b.into()))
        .collect())
}

#[test]
fn deleting_the_cluster_removes_everything() {
    test("deleting_the_cluster_removes_everything", async |space| {
        let redis = json!({ "pubsub": { "adapter": "Redis" }, "redis": { "mode": "Managed" } });
        let cluster = space.cluster("chat", spec(2, redis)).await?;
        cluster.wait_ready().await?;
        let before = versions(space).await?;
        let ours: Vec<&String> = before.keys().filter(|name| name.contains("/chat")).collect();
        figure!(space, "there were {ours:?}");
        ensure!(ours.len() >= 12, "the cluster consists of more: {ours:?}");
        let finalizers = async |names: &[&str]| -> Result<()> {
            let patch = Patch::Merge(json!({ "metadata": { "finalizers": names } }));
            let clusters = space.api::<ChannelCluster>();
            clusters.patch("chat", &PatchParams::default(), &patch).await?;
            Ok(())
        };
        // Somebody wants to see to it first: until then its clients are there, and are looked after.
        finalizers(&["sluice-e2e.example/hold"]).await?;
        space.api::<ChannelCluster>().delete("chat", &DeleteParams::default()).await?;
        let pods = space.api::<Pod>();
        let uid = pods.get("chat-0").await?.metadata.uid;
        pods.delete("chat-0", &DeleteParams::default()).await?;
        eventually("the deleted pod to be back and to take clients", LONG, async || {
            let pod = pods.get("chat-0").await?;
            let takes = pod.labels().get(names::ACCEPTING_LABEL).is_some_and(|is| is == "true");
            ensure!(takes && pod.metadata.uid != uid, "it does not yet");
            Ok(())
        })
        .await?;
        finalizers(&[]).await?;
        eventually("everything to be gone", LONG, async || {
            let left = versions(space).await?;
            let left: Vec<&String> = left.keys().filter(|name| name.contains("/chat")).collect();
            ensure!(left.is_empty(), "{left:?}");
            Ok(())
        })
        .await
    });
}

#[test]
fn idle_cluster_causes_no_writes() {
    test("idle_cluster_causes_no_writes", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let wake = async |number: usize| -> Result<()> {
            // A label of somebody else's on an owned object: nothing to put right, but a reason to look.
            let patch = Patch::Merge(
                json!({ "metadata": { "labels": { "e2e/wake": number.to_string() } } }),
            );
            space.api::<ServiceAccount>().patch("chat", &PatchParams::default(), &patch).await?;
            Ok(())
        };
        // What follows from becoming Ready is not idleness: wait until it is still.
        let mut last = versions(space).await?;
        eventually("the cluster to come to rest", LONG, async || {
            tokio::time::sleep(std::time::Duration::from_secs(5)).await;
            let now = versions(space).await?;
            let still = now == last;
            last = now;
            ensure!(still, "it still changes");
            Ok(())
        })
        .await?;
        let mark = space.place.is_local().then(|| audit::mark(&space.place)).transpose()?;
        let reconciles =
            async || operator::metric(&space.place, "sluice_operator_reconcile_total").await;
        let from = reconciles().await?;
        let mut rounds = 0;
        for number in 0..3 {
            wake(number).await?;
            eventually("the operator to have looked", LONG, async || {
                let now = reconciles().await?;
                ensure!(now > from + number as f64, "{now} reconciles");
                Ok(())
            })
            .await?;
            rounds += 1;
        }
        // Long enough for several polls of the nodes, which must not be written down when nothing changed.
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        let now = versions(space).await?;
        let changed: Vec<&String> = now
            .iter()
            .filter(|(name, version)| {
                last.get(*name) != Some(version) && *name != "ServiceAccount/chat"
            })
            .map(|(name, _)| name)
            .collect();
        figure!(space, "woken {rounds} times: of {} objects {} changed", now.len(), changed.len());
        ensure!(changed.is_empty(), "written although nothing changed: {changed:?}");
        if let Some(mark) = mark {
            let writes = audit::writes(space, &mark)?;
            figure!(space, "writes by the operator in the audit log: {}", writes.len());
            ensure!(writes.is_empty(), "{writes:?}");
        }
        let account = space.api::<ServiceAccount>().get("chat").await?;
        ensure!(account.labels().get("e2e/wake").is_some(), "somebody else's label was taken off");
        Ok(())
    });
}

#[test]
fn drift_is_healed() {
    test("drift_is_healed", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        let token = cluster.token(names::ADMIN_TOKEN).await?;
        let config = space.api::<ConfigMap>().get("chat").await?.data;
        let delete = DeleteParams::default();
        space.api::<Service>().delete(&names::headless_service("chat"), &delete).await?;
        space.api::<PodDisruptionBudget>().delete("chat", &delete).await?;
        space.api::<ConfigMap>().delete("chat", &delete).await?;
        let wrong = json!({ "spec": { "selector": { names::ACCEPTING_LABEL: "no" } } });
        space.api::<Service>().patch("chat", &PatchParams::default(), &Patch::Merge(wrong)).await?;
        let open = json!({ "spec": {
            "externalIPs": ["192.0.2.1"], "ports": [{ "name": "admin", "port": names::ADMIN_PORT }],
        } });
        space
            .api::<Service>()
            .patch("chat", &PatchParams::default(), &Patch::Strategic(open))
            .await?;
        let astray = json!({ "spec": {
            "publishNotReadyAddresses": true, "internalTrafficPolicy": "Local",
            "externalTrafficPolicy": "Local", "trafficDistribution": "PreferClose",
        } });
        space
            .api::<Service>()
            .patch("chat", &PatchParams::default(), &Patch::Merge(astray))
            .await?;
        let more = json!({ "metadata": { "labels": { names::CLUSTER_LABEL: "other" } } });
        space
            .api::<StatefulSet>()
            .patch("chat", &PatchParams::default(), &Patch::Merge(more))
            .await?;
        let unlabel = json!({ "metadata": { "labels": { names::ACCEPTING_LABEL: null } } });
        let pod = before.keys().next().context("two pods")?;
        space.api::<Pod>().patch(pod, &PatchParams::default(), &Patch::Merge(unlabel)).await?;
        eventually("what was deleted and changed to be as before", LONG, async || {
            space.api::<Service>().get(&names::headless_service("chat")).await?;
            space.api::<PodDisruptionBudget>().get("chat").await?;
            ensure!(space.api::<ConfigMap>().get("chat").await?.data == config, "another config");
            let service = space.api::<Service>().get("chat").await?.spec.context("no spec")?;
            let ports = service.ports.unwrap_or_default();
            ensure!(ports.len() == 1 && service.external_ips.is_none(), "it is open: {ports:?}");
            let policy = service.internal_traffic_policy;
            ensure!(policy.as_deref() == Some("Cluster"), "internalTrafficPolicy {policy:?}");
            ensure!(service.publish_not_ready_addresses != Some(true), "it leads to unready pods");
            let outside = (service.external_traffic_policy, service.traffic_distribution);
            ensure!(outside == (Some("Cluster".into()), None), "{outside:?}");
            let selector = service.selector;
            let accepting =
                selector.as_ref().and_then(|selector| selector.get(names::ACCEPTING_LABEL));
            ensure!(accepting.is_some_and(|value| value == "true"), "{selector:?}");
            let set = space.api::<StatefulSet>().get("chat").await?;
            ensure!(
                set.labels().get(names::CLUSTER_LABEL).is_some_and(|value| value == "chat"),
                "label"
            );
            let accepting = format!("{}=true", names::ACCEPTING_LABEL);
            let taking = space.api::<Pod>().list(&ListParams::default().labels(&accepting)).await?;
            ensure!(taking.items.len() == 2, "{} pods accept", taking.items.len());
            Ok(())
        })
        .await?;
        cluster.wait_ready().await?;
        ensure!(cluster.identities().await? == before, "pods were replaced");
        ensure!(cluster.token(names::ADMIN_TOKEN).await? == token, "the tokens changed");
        let secret = space.api::<Secret>().get(&names::tokens_secret("chat")).await?;
        ensure!(secret.owner_references().len() == 1, "the Secret belongs to the cluster");
        figure!(space, "12 changes undone, no pod replaced");
        Ok(())
    });
}

#[test]
fn what_an_apply_can_not_get_past_is_put_right_or_told() {
    test("what_an_apply_can_not_get_past_is_put_right_or_told", async |space| {
        // Labelled for the cluster, and of a shape that an apply can't change.
        let headless = names::headless_service("chat");
        let astray = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": { "name": headless, "labels": { names::CLUSTER_LABEL: "chat" } },
            "spec": { "ports": [{ "port": 80 }] },
        });
        space.apply::<Service>(&headless, astray).await?;
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        let stalled = cluster.wait_for(ConditionType::Stalled, "True").await?;
        figure!(space, "{}: {}", stalled.reason, stalled.message);
        ensure!(stalled.reason == "ApplyConflict", "the spec is right: {stalled:?}");
        ensure!(stalled.message.contains(&headless), "{stalled:?}");
        space.api::<Service>().delete(&headless, &DeleteParams::default()).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;

        let budgets = space.api::<PodDisruptionBudget>();
        let other = json!({ "spec": { "maxUnavailable": null, "minAvailable": 1 } });
        budgets.patch("chat", &PatchParams::default(), &Patch::Merge(other)).await?;
        let maps = space.api::<ConfigMap>();
        let fixed = json!({ "immutable": true });
        maps.patch("chat", &PatchParams::default(), &Patch::Merge(fixed)).await?;
        eventually("budget and ConfigMap to be as before", LONG, async || {
            let budget = budgets.get("chat").await?.spec.context("no spec")?;
            ensure!(
                budget.min_available.is_none() && budget.max_unavailable.is_some(),
                "{budget:?}"
            );
            let map = maps.get_opt("chat").await?.context("no ConfigMap")?;
            ensure!(map.immutable != Some(true), "it is immutable");
            Ok(())
        })
        .await?;
        cluster.change(json!({ "channels": [{ "topic": "room:*" }] })).await?;
        cluster.wait_ready().await?;
        let stalled = cluster.condition(ConditionType::Stalled).await?;
        ensure!(stalled.status == "False", "{stalled:?}");
        ensure!(cluster.identities().await? == before, "pods were replaced");

        cluster.change(json!({ "service": { "nodePort": 80 } })).await?;
        let stalled = cluster.wait_for(ConditionType::Stalled, "True").await?;
        figure!(space, "{}: {}", stalled.reason, stalled.message);
        ensure!(stalled.reason == "InvalidSpec", "no hand was in it: {stalled:?}");
        cluster.change(json!({ "service": { "nodePort": null } })).await?;
        cluster.wait_ready().await?;
        Ok(())
    });
}

/// Clients on a cluster whose drains wait for them, and what is left of it once it is deleted.
async fn gone_without_waiting(
    space: &Space,
    name: &str,
    delete: impl AsyncFnOnce() -> Result<()>,
) -> Result<()> {
    let wait = json!({ "drain": {
        "mode": "Wait", "batchSize": null, "batchIntervalSeconds": null, "timeoutSeconds": 1800,
    } });
    let mut spec = spec(2, wait);
    if let Some(drain) = spec["drain"].as_object_mut() {
        // Fields of mode Batched only.
        drain.retain(|_, value| !value.is_null());
    }
    let cluster = space.cluster(name, spec).await?;
    cluster.wait_ready().await?;
    let clients = Clients::start(space).await?;
    clients.open_evenly(name, &cluster.urls().await?, "room:lobby", 30, 2).await?;
    let began = std::time::Instant::now();
    delete().await?;
    eventually("the pods to be gone", LONG, async || {
        let left = cluster.pods().await?.len();
        ensure!(left == 0, "{left} pods are left");
        Ok(())
    })
    .await?;
    let report = clients.report(name, 2).await?;
    figure!(
        space,
        "{name}: 30 clients, mode Wait: no pod is left after {:.1} s; closes {:?}",
        began.elapsed().as_secs_f64(),
        report.close_codes
    );
    ensure!(report.close_codes.len() == 1, "{:?}", report.close_codes);
    ensure!(report.close_codes.get("1012").is_some_and(|n| *n >= 30), "{:?}", report.close_codes);
    Ok(())
}

#[test]
fn deleted_cluster_does_not_wait_for_its_clients() {
    test("deleted_cluster_does_not_wait_for_its_clients", async |space| {
        let clusters = space.api::<ChannelCluster>();
        for (name, params) in
            [("behind", DeleteParams::background()), ("before", DeleteParams::foreground())]
        {
            gone_without_waiting(space, name, async || {
                clusters.delete(name, &params).await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    });
}

#[test]
fn deleted_namespace_does_not_wait_for_the_clients_of_a_cluster() {
    test("deleted_namespace_does_not_wait_for_the_clients_of_a_cluster", async |space| {
        let inner = space.second().await?;
        let namespaces = kube::Api::<Namespace>::all(space.client.clone());
        let began = std::cell::Cell::new(std::time::Instant::now());
        gone_without_waiting(&inner, "chat", async || {
            began.set(std::time::Instant::now());
            namespaces.delete(&inner.name, &DeleteParams::default()).await?;
            Ok(())
        })
        .await?;
        eventually("the namespace to be gone", LONG, async || {
            let left = namespaces.get_opt(&inner.name).await?;
            ensure!(left.is_none(), "{:?}", left.and_then(|left| left.status));
            Ok(())
        })
        .await?;
        let took = began.get().elapsed().as_secs_f64();
        figure!(space, "no namespace is left after {took:.1} s");
        Ok(())
    });
}

#[test]
fn stateful_set_deleted_around_its_pods_is_made_anew() {
    test("stateful_set_deleted_around_its_pods_is_made_anew", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        // So that the ordinals no longer begin at 0.
        let env = json!([{ "name": "E2E_STEP", "value": "second" }]);
        cluster.change(json!({ "podTemplate": { "env": env } })).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        ensure!(!before.contains_key("chat-0"), "the deploy moved on: {before:?}");
        let roll = Roll::start(&cluster, 30).await?;
        let sets = space.api::<StatefulSet>();
        let old = sets.get("chat").await?.uid();
        space.kubectl(&["delete", "statefulset/chat", "--cascade=orphan"]).await?;
        roll.until("another StatefulSet to own both pods", async || {
            let Some(new) = sets.get_opt("chat").await? else { return Ok(false) };
            let pods = cluster.pods().await?;
            let owned = |pod: &Pod| {
                pod.owner_references().iter().any(|o| Some(&o.uid) == new.uid().as_ref())
            };
            Ok(new.uid() != old && pods.len() == 2 && pods.iter().all(owned))
        })
        .await?;
        cluster.wait_ready().await?;
        let state = roll.state().await?;
        figure!(space, "pods {:?}, {} closes", before.keys().collect::<Vec<_>>(), state.closes);
        ensure!(cluster.identities().await? == before, "a pod was replaced");
        ensure!(state.closes == 0, "a client noticed");
        Ok(())
    });
}
