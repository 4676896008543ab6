//! What keeps pods from being made or from starting, and stands in Kubernetes' events only.

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use serde_json::{Value, json};
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{Cluster, LONG, Space, eventually, spec, test},
};

async fn told(space: &Space, cluster: &Cluster<'_>, words: &[&str]) -> Result<()> {
    let message = eventually("the condition to say what Kubernetes says", LONG, async || {
        let ready = cluster.condition(ConditionType::Ready).await?;
        let all = words.iter().all(|word| ready.message.contains(word));
        ensure!(ready.status == "False" && all, "{}: {}", ready.reason, ready.message);
        Ok(ready.message)
    })
    .await?;
    figure!(space, "Ready says: {message}");
    Ok(())
}

#[test]
fn missing_secret_and_service_account_are_told() {
    test("missing_secret_and_service_account_are_told", async |space| {
        let mount = json!([{ "secretName": "nope", "mountPath": "/etc/extra" }]);
        let template = |more: Value| json!({ "podTemplate": more });
        let cluster =
            space.cluster("a", spec(1, template(json!({ "secretMounts": mount })))).await?;
        let other = space
            .cluster("b", spec(1, template(json!({ "serviceAccountName": "nobody" }))))
            .await?;
        told(space, &cluster, &["a-0", "FailedMount", "secret \"nope\" not found"]).await?;
        told(space, &other, &["FailedCreate", "serviceaccount \"nobody\" not found"]).await?;
        let secret =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "nope" } });
        space.apply::<Secret>("nope", secret).await?;
        let account = json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "nobody" } });
        space.apply::<ServiceAccount>("nobody", account).await?;
        // Its controller waits longer after each refusal; a change of its object wakes it.
        space.kubectl(&["annotate", "statefulset/b", "e2e/wake=now"]).await?;
        cluster.wait_ready().await?;
        other.wait_ready().await?;
        Ok(())
    });
}

#[test]
fn a_secret_that_somebody_else_made_is_told_of_and_never_deleted() {
    test("a_secret_that_somebody_else_made_is_told_of_and_never_deleted", async |space| {
        let secrets = space.api::<Secret>();
        let own = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "chat-redis" },
            "stringData": { "url": "redis://192.0.2.1:6379", "api-key": "mine" },
        });
        let own = space.apply::<Secret>("chat-redis", own).await?;
        let managed = json!({ "redis": { "mode": "Managed" } });
        let cluster = space.cluster("chat", spec(1, managed)).await?;
        told(space, &cluster, &["Secret chat-redis exists and is not this cluster's"]).await?;
        cluster.change(json!({ "redis": { "mode": "Disabled" } })).await?;
        cluster.wait_ready().await?;
        // The client Service of another cluster has the name of that of a Redis.
        let other = space.cluster("chat-redis", spec(1, json!({}))).await?;
        other.wait_ready().await?;
        cluster.change(json!({ "replicas": 2 })).await?;
        cluster.wait_ready().await?;
        let left = secrets.get("chat-redis").await?;
        ensure!(left.metadata.uid == own.metadata.uid, "it was made anew");
        ensure!(left.data == own.data && left.metadata.owner_references.is_none(), "{left:?}");
        figure!(space, "a Secret of its own is as it was");
        Ok(())
    });
}
