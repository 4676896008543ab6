//! The StatefulSet's pod template in other hands: an edit is undone, a restart is carried out.

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{apps::v1::StatefulSet, core::v1::PodTemplateSpec};
use serde_json::json;
use sluice_crds::{ConditionType, names};

use crate::{
    figure,
    support::{Cluster, LONG, Space, eventually, roll::Roll, spec, test},
};

async fn template(space: &Space) -> Result<PodTemplateSpec> {
    let set = space.api::<StatefulSet>().get("chat").await?;
    Ok(set.spec.context("no spec")?.template)
}

/// Where an edit is taken out, the API server fills in a default in the operator's name: that is no
/// edit of somebody else's.
async fn edited_fields_with_defaults_are_no_fight(
    space: &Space,
    cluster: &Cluster<'_>,
    rendered: &PodTemplateSpec,
) -> Result<()> {
    // After two edits: a third that seemed to be fought over would be told.
    let containers = json!([{ "name": names::NODE_CONTAINER, "imagePullPolicy": "Always" }]);
    let edit = json!({ "spec": { "template": { "spec": {
        "containers": containers, "dnsPolicy": "Default",
    } } } });
    space.kubectl(&["patch", "statefulset/chat", "-p", &edit.to_string()]).await?;
    eventually("the edit to be undone", LONG, async || {
        ensure!(template(space).await? == *rendered, "it is still there");
        Ok(())
    })
    .await?;
    cluster.wait_ready().await?;
    let stalled = cluster.condition(ConditionType::Stalled).await?;
    ensure!(stalled.status == "False", "{stalled:?}");
    let told = space.kubectl(&["get", "events", "--output=custom-columns=R:.reason"]).await?;
    ensure!(!told.contains("ApplyConflict"), "somebody was accused: {told}");
    Ok(())
}

/// What is lost of what the operator noted of its rendering, it notes again, and rolls nothing.
async fn edited_without_its_record(space: &Space, rendered: &PodTemplateSpec) -> Result<()> {
    const RECORD: &str = "sluice.dev/template";
    let env = json!([{ "name": "E2E_EXTRA", "value": "2" }]);
    let edit = json!({
        "metadata": { "annotations": { RECORD: null } },
        "spec": { "template": { "spec": {
            "containers": [{ "name": names::NODE_CONTAINER, "env": env }],
        } } },
    });
    space.kubectl(&["patch", "statefulset/chat", "-p", &edit.to_string()]).await?;
    eventually("the edit to be undone, and the record to be back", LONG, async || {
        let set = space.api::<StatefulSet>().get("chat").await?;
        let there = set.metadata.annotations.is_some_and(|all| all.contains_key(RECORD));
        ensure!(there, "there is no record");
        ensure!(template(space).await? == *rendered, "the edit is there");
        Ok(())
    })
    .await
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
        edited_fields_with_defaults_are_no_fight(space, &cluster, &rendered).await?;
        edited_without_its_record(space, &rendered).await?;
        cluster.wait_ready().await?;
        ensure!(cluster.identities().await? == before, "a pod was replaced");
        ensure!(roll.state().await?.closes == 0, "a client noticed");

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
