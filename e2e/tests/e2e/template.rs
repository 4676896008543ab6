//! The StatefulSet's pod template in other hands: an edit is undone, a restart is carried out.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PodTemplateSpec};
use serde_json::json;

use crate::{
    figure,
    support::{Space, roll::Roll, spec, test},
};

async fn template(space: &Space) -> Result<PodTemplateSpec> {
    let set = space.api::<StatefulSet>().get("chat").await?;
    Ok(set.spec.context("no spec")?.template)
}

#[test]
fn edited_template_is_put_right_and_a_restart_moves_each_client_once() {
    test("edited_template_is_put_right_and_a_restart_moves_each_client_once", async |space| {
        // Balancers must have heard of a drain before it closes anyone.
        let patient = json!({ "drain": { "initialDelaySeconds": 3 } });
        let cluster = space.cluster("chat", spec(2, patient)).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        let rendered = template(space).await?;
        let roll = Roll::start(&cluster, 20).await?;
        space.kubectl(&["set", "env", "statefulset/chat", "E2E_EXTRA=1"]).await?;
        let note =
            json!({ "spec": { "template": { "metadata": { "annotations": { "e2e/x": "1" } } } } });
        space
            .kubectl(&["patch", "statefulset/chat", "--type=merge", "-p", &note.to_string()])
            .await?;
        roll.until("the edits to be undone", async || Ok(template(space).await? == rendered))
            .await?;
        cluster.wait_ready().await?;
        let state = roll.state().await?;
        ensure!(state.closes == 0, "a client noticed: {state:?}");
        ensure!(cluster.identities().await? == before, "a pod was replaced");
        figure!(space, "two edits of the pod template undone, 0 of 20 clients closed");

        space.kubectl(&["rollout", "restart", "statefulset/chat"]).await?;
        roll.until("pods of another revision", async || {
            Ok(cluster.identities().await?.keys().any(|pod| !before.contains_key(pod)))
        })
        .await?;
        let outcome = roll.finish(2).await?;
        outcome.all_replaced_once()?;
        let annotations = template(space).await?.metadata.and_then(|meta| meta.annotations);
        let asked = annotations.unwrap_or_default();
        ensure!(asked.contains_key("kubectl.kubernetes.io/restartedAt"), "{asked:?}");
        Ok(())
    });
}
