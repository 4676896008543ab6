//! Another container in the nodes' pods, as meshes and log shippers inject them: one that can't start costs no client.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{
        Cluster, LONG, Space, colour, eventually, local_test, place::Place, roll::Roll, spec,
    },
};

/// An annotation of a pod: the image of the container that is added to it.
const ASKED: &str = "e2e/sidecar";
const NOWHERE: &str = "localhost/sluice/no-such-sidecar:1";
const KINDS: &str = "mutatingadmissionpolicybindings,mutatingadmissionpolicies";

/// Adds a container to the pods of a namespace that ask for it, until this value ends.
struct Injector {
    place: Place,
    name: String,
}

impl Injector {
    async fn start(space: &Space, image: &str) -> Result<Self> {
        let added = format!(
            r#"[JSONPatch{{op: "add", path: "/spec/containers/-", value: Object.spec.containers{{
                name: "sidecar", image: object.metadata.annotations["{ASKED}"],
                args: ["--port", "6390", "--save", "", "--daemonize", "no"],
                securityContext: Object.spec.containers.securityContext{{
                    allowPrivilegeEscalation: false,
                    capabilities: Object.spec.containers.securityContext.capabilities{{drop: ["ALL"]}}
                }}
            }}}}]"#
        );
        let group = "admissionregistration.k8s.io/v1";
        let named = json!({ "name": space.name });
        let here = json!({ "matchLabels": { "kubernetes.io/metadata.name": space.name } });
        let list = json!({ "apiVersion": "v1", "kind": "List", "items": [
            { "apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": named, "spec": {
                "failurePolicy": "Fail",
                "reinvocationPolicy": "Never",
                "matchConstraints": { "namespaceSelector": here, "resourceRules": [{
                    "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                }] },
                "matchConditions": [{
                    "name": "asked",
                    "expression": format!("'{ASKED}' in object.metadata.?annotations.orValue({{}})"),
                }],
                "mutations": [{
                    "patchType": "JSONPatch", "jsonPatch": { "expression": added },
                }],
            } },
            { "apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": named, "spec": {
                "policyName": space.name,
            } },
        ] });
        let injector = Self { place: space.place.clone(), name: space.name.clone() };
        let said = space.try_kubectl(&["apply", "-f", "-"], &list.to_string()).await?;
        ensure!(said.success, "kubectl apply: {}", said.stderr.trim());
        let security = json!({
            "runAsNonRoot": true, "runAsUser": 65532, "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] }, "seccompProfile": { "type": "RuntimeDefault" },
        });
        let pod_security =
            json!({ "runAsNonRoot": true, "seccompProfile": { "type": "RuntimeDefault" } });
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": "probe", "annotations": { ASKED: image } },
            "spec": { "securityContext": pod_security, "containers": [
                { "name": "main", "image": image, "securityContext": security },
            ] },
        });
        eventually("the API server to add the container", LONG, async || {
            let names = "--output=jsonpath={.spec.containers[*].name}";
            let create = ["create", "--dry-run=server", names, "-f", "-"];
            let said = space.try_kubectl(&create, &pod.to_string()).await?;
            ensure!(said.stdout.contains("sidecar"), "{} {}", said.stdout, said.stderr.trim());
            Ok(())
        })
        .await?;
        Ok(injector)
    }
}

impl Drop for Injector {
    fn drop(&mut self) {
        if let Err(error) = self.place.kubernetes.kubectl(["delete", KINDS, &self.name]) {
            eprintln!("  the policy {} is still there: {error:#}", self.name);
        }
    }
}

fn sidecar(image: &str) -> Value {
    json!({ "podTemplate": { "annotations": { ASKED: image } } })
}

/// Gives the container of every pod an image that is not there: it ends, and can't start again.
async fn break_all(cluster: &Cluster<'_>) -> Result<()> {
    for pod in cluster.identities().await?.keys() {
        let pod = format!("pod/{pod}");
        let broken = format!("sidecar={NOWHERE}");
        cluster.space.kubectl(&["set", "image", &pod, &broken]).await?;
    }
    Ok(())
}

#[test]
fn a_sidecar_that_can_not_start_costs_no_client() {
    local_test("a_sidecar_that_can_not_start_costs_no_client", async |space| {
        let image = space.place.kubernetes.images()?.redis;
        let _injector = Injector::start(space, &image).await?;
        let mut wanted = spec(2, sidecar(&image));
        wanted["drain"]["initialDelaySeconds"] = json!(3);
        let cluster = space.cluster("chat", wanted).await?;
        cluster.wait_ready().await?;
        let before = cluster.identities().await?;
        let roll = Roll::start(&cluster, 20).await?;

        // In the new template: nothing goes for what does not start.
        cluster.change(sidecar(NOWHERE)).await?;
        roll.until("the rollout to stop", async || {
            let stalled = cluster.condition(ConditionType::Stalled).await?;
            Ok(stalled.status == "True" && stalled.reason == "PodStuck")
        })
        .await?;
        let stalled = cluster.condition(ConditionType::Stalled).await?;
        let (state, there) = (roll.state().await?, cluster.identities().await?);
        figure!(space, "{} closes; Stalled: {}", state.closes, stalled.message);
        ensure!(state.closes == 0, "a client was moved for it: {state:?}");
        ensure!(before.iter().all(|(pod, is)| there.get(pod) == Some(is)), "{before:?} {there:?}");
        ensure!(roll.watch().drains().is_empty(), "a drain began: {:?}", roll.watch().drains());
        cluster.change(sidecar(&image)).await?;
        roll.until_ready().await?;
        roll.until("the first pods to be there, and no other", async || {
            Ok(cluster.identities().await? == before)
        })
        .await?;
        ensure!(roll.state().await?.closes == 0, "a client was moved on the way back");

        // In pods that have clients: they are not Ready any more, and are drained none the less.
        break_all(&cluster).await?;
        roll.until("no pod to be Ready", async || Ok(cluster.status().await?.ready_replicas == 0))
            .await?;
        cluster.change(colour("blue")).await?;
        let outcome = roll.finish(2).await?;
        outcome.nothing_was_lost()?;
        outcome.pods_went_empty_or_overdue()?;
        outcome.moved_once_each()?;
        outcome.all_pods_replaced()
    });
}
