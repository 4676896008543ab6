//! The charts, by real helm: a second release beside the one under test, in namespaces of its own.

use anyhow::{Context, Result, ensure};
use k8s_openapi::{
    api::{
        admissionregistration::v1::ValidatingWebhookConfiguration, apps::v1::Deployment,
        core::v1::Pod, rbac::v1::RoleBinding,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, EvictParams, ListParams, PostParams},
};
use serde_json::json;
use sluice_crds::ChannelCluster;

use crate::{
    figure,
    support::{
        Clients, LONG, Space,
        cluster::{http, ip},
        eventually,
        operator::{METRICS_PORT, total},
        place::OPERATOR_NAMESPACE,
        spec, test,
    },
};

#[test]
fn helm_install_upgrade_uninstall_leave_clusters_running() {
    test("helm_install_upgrade_uninstall_leave_clusters_running", async |space| {
        let release = Release { space, name: "second", watches: vec![&space.name] };
        let install = async |more: &[&str]| release.install(more).await;
        install(&["--dry-run=server"]).await.context("dry run on the server")?;
        install(&[]).await.context("install")?;
        let deployments = space.api::<Deployment>();
        let deployed = deployments.list(&Default::default()).await?;
        ensure!(deployed.items.len() == 1, "one Deployment");
        let name = deployed.items[0].name_any();
        ensure!(
            available(&deployed.items[0]) == 2,
            "two replicas are available: the other one stands by"
        );
        let lease = space.kubectl(&["get", "leases", "--output=name"]).await?;
        ensure!(lease.lines().count() == 1, "{lease}");

        let cluster = space.cluster("chat", spec(1, json!({}))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        clients.open("all", &cluster.urls().await?, "room:lobby", 3).await?;
        let before = cluster.identities().await?;

        let certificate = eventually("the webhook's certificate", LONG, async || {
            let webhook = webhook(&release).await?;
            ensure!(webhook.iter().all(|part| !part.is_empty()), "{webhook:?}");
            Ok(webhook)
        })
        .await?;

        let pod = before.keys().next().context("a cluster without a pod")?;
        let certificate = rotated(&release, pod, &certificate).await?;

        install(&["--set", "logFormat=json"]).await.context("upgrade")?;
        eventually("the upgraded operator", LONG, async || {
            let deployment = deployments.get(&name).await?;
            ensure!(available(&deployment) == 2, "{} available", available(&deployment));
            Ok(())
        })
        .await?;
        cluster.wait_ready().await?;
        ensure!(webhook(&release).await? == certificate, "the upgrade took the certificate");
        release.uninstall().await?;
        let crds = Api::<CustomResourceDefinition>::all(space.client.clone());
        crds.get("channelclusters.sluice.dev").await.context("the CRD survives")?;
        space.api::<ChannelCluster>().get("chat").await.context("the cluster survives")?;
        let left = space
            .kubectl(&["get", "deployments,roles,rolebindings,services", "--output=name"])
            .await?;
        ensure!(!left.contains(release.name), "left: {left}");
        ensure!(cluster.identities().await? == before, "pods were touched");
        let state = clients.state("all").await?;
        ensure!(state.joined == 3 && state.closes == 0, "{state:?}");
        clients.push("all", 0, "msg", json!({ "id": "still here" })).await?;
        clients.all_receive("all", &["still here"]).await?;

        // The CRD's own release may go and come back too.
        let crds_release = ["uninstall", "sluice-crds", "--namespace", OPERATOR_NAMESPACE];
        space.helm(&crds_release).await?;
        let kept = crds.get("channelclusters.sluice.dev").await;
        let cluster_kept = space.api::<ChannelCluster>().get("chat").await;
        let chart = space.place.in_repo("charts/sluice-crds").display().to_string();
        let back =
            ["upgrade", "--install", "sluice-crds", &chart, "--namespace", OPERATOR_NAMESPACE];
        space.helm(&back).await.context("installing the CRD's chart again")?;
        let kept = kept.context("the CRD survives its chart")?;
        ensure!(kept.metadata.deletion_timestamp.is_none(), "the CRD is being deleted");
        cluster_kept.context("the cluster survives the CRD's chart")?;
        figure!(
            space,
            "installed, upgraded and uninstalled; {} of 3 clients noticed",
            state.closes
        );
        Ok(())
    });
}

#[test]
fn rights_in_a_namespace_may_go_and_come_back() {
    test("rights_in_a_namespace_may_go_and_come_back", async |space| {
        let other = space.second().await?;
        let watches = vec![space.name.as_str(), other.name.as_str()];
        let result =
            rights_go_and_come_back(Release { space, name: "third", watches }, &other).await;
        let removed = other.remove().await;
        result.and(removed)
    });
}

async fn rights_go_and_come_back(release: Release<'_>, other: &Space) -> Result<()> {
    let space = release.space;
    release.install(&[]).await?;
    // That this operator, too, has seen a cluster: the one under test looks after all namespaces.
    let seen = async |of: &Space| -> Result<()> {
        let found = release.metrics().await?;
        let label = format!("namespace=\"{}\"", of.name);
        ensure!(
            total(&found, "sluice_operator_condition", &label) > 0.0,
            "not seen in {}",
            of.name
        );
        Ok(())
    };
    let bindings = other.api::<RoleBinding>();
    let of_release = format!("app.kubernetes.io/instance={}", release.name);
    let granted = bindings.list(&ListParams::default().labels(&of_release)).await?.items;
    ensure!(granted.len() == 1, "{granted:?}");
    for binding in &granted {
        bindings.delete(&binding.name_any(), &DeleteParams::default()).await?;
    }
    other.cluster("chat", spec(1, json!({}))).await?.wait_ready().await?;
    let cluster = space.cluster("chat", spec(1, json!({}))).await?;
    cluster.wait_ready().await?;
    eventually("the cluster that may be read to be looked after", LONG, async || seen(space).await)
        .await?;
    ensure!(seen(other).await.is_err(), "it reads what it may not");
    for mut binding in granted {
        binding.metadata.uid = None;
        binding.metadata.resource_version = None;
        bindings.create(&PostParams::default(), &binding).await?;
    }
    eventually("the other one to be looked after again", LONG, async || seen(other).await).await?;
    release.uninstall().await
}

#[test]
fn charts_refuse_wrong_values_and_render_what_is_optional() {
    test("charts_refuse_wrong_values_and_render_what_is_optional", async |space| {
        let chart = space.place.in_repo("charts/sluice").display().to_string();
        let template = async |values: &[&str]| {
            let mut arguments = vec!["template", "optional", &chart, "--namespace", &space.name];
            for value in values {
                arguments.extend(["--set", value]);
            }
            space.helm(&arguments).await
        };
        let wrong = [
            "replicas=none",
            "logFormat=xml",
            "watchNamespaces=[]",
            "misspelt=1",
            "evictions.timeoutSeconds=6",
        ];
        for value in wrong {
            let said = template(&[value]).await.err().map(|error| format!("{error:#}"));
            let field = value.split(['=', '.']).next().unwrap_or_default();
            ensure!(
                said.as_ref().is_some_and(|said| said.contains(field) && said.contains("schema")),
                "{value}: {said:?}"
            );
        }
        let all = template(&["serviceMonitor.enabled=true", "networkPolicy.enabled=true"]).await?;
        let of_kind = |kind: &str| {
            let mut objects = all.split("\n---\n");
            objects.find(|object| object.lines().any(|line| line == format!("kind: {kind}")))
        };
        let monitor = of_kind("ServiceMonitor").context("no ServiceMonitor")?;
        ensure!(monitor.contains("port: metrics"), "{monitor}");
        let policy = of_kind("NetworkPolicy").context("no NetworkPolicy")?;
        let dry =
            ["apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"];
        let said = space.try_kubectl(&dry, policy).await?;
        ensure!(said.success, "{}", said.stderr);
        let plain = template(&[]).await?;
        ensure!(!plain.contains("kind: ServiceMonitor") && !plain.contains("kind: NetworkPolicy"));
        figure!(space, "{} wrong values refused by the schema", wrong.len());
        Ok(())
    });
}

/// A second release of the chart, in a test's namespace.
struct Release<'a> {
    space: &'a Space,
    name: &'static str,
    watches: Vec<&'a str>,
}

impl Release<'_> {
    async fn install(&self, more: &[&str]) -> Result<String> {
        let images = self.space.place.kubernetes.images()?;
        let (repository, tag) = sluice_e2e::images::split(&images.operator);
        let chart = self.space.place.in_repo("charts/sluice").display().to_string();
        let values = [
            format!("image.repository={repository}"),
            format!("image.tag={tag}"),
            format!("nodeImage={}", images.channel_node),
            format!("redisImage={}", images.redis),
            format!("watchNamespaces={{{}}}", self.watches.join(",")),
        ];
        let namespace = &self.space.name;
        let mut arguments =
            vec!["upgrade", "--install", self.name, &chart, "--namespace", namespace];
        for value in &values {
            arguments.extend(["--set", value]);
        }
        arguments.extend(["--wait", "--timeout", "120s"]);
        arguments.extend(more);
        // Also when it fails, or the test does.
        self.space.owns(self.name).await;
        self.space.helm(&arguments).await
    }

    async fn uninstall(&self) -> Result<()> {
        let arguments = ["uninstall", self.name, "--namespace", &self.space.name, "--wait"];
        self.space.helm(&arguments).await?;
        Ok(())
    }

    /// The name of its webhook's configuration, which is in no namespace.
    fn webhook(&self) -> String {
        format!("{}-{}-operator", self.space.name, self.name)
    }

    /// What its pods answer at `/metrics`, one after another.
    async fn metrics(&self) -> Result<String> {
        let mine = format!("app.kubernetes.io/instance={}", self.name);
        let pods = self.space.api::<Pod>().list(&ListParams::default().labels(&mine)).await?;
        let mut all = String::new();
        for pod in &pods.items {
            let url = format!("http://{}:{METRICS_PORT}/metrics", ip(pod)?);
            all += &http()?.get(url).send().await?.error_for_status()?.text().await?;
        }
        Ok(all)
    }
}

/// Has the webhook's certificate replaced; the API server goes on to reach the webhook, also if it must.
async fn rotated(release: &Release<'_>, pod: &str, before: &[String; 2]) -> Result<[String; 2]> {
    let space = release.space;
    let configurations = Api::<ValidatingWebhookConfiguration>::all(space.client.clone());
    let name = release.webhook();
    let trusted = async || -> Result<Vec<u8>> {
        let webhooks = configurations.get(&name).await?.webhooks.unwrap_or_default();
        let bundle = webhooks.into_iter().find_map(|webhook| webhook.client_config.ca_bundle);
        Ok(bundle.context("nobody is trusted")?.0)
    };
    let trusted_before = trusted().await?;
    let secret = format!("{}-operator-webhook", release.name);
    let due = "sluice.dev/renew-at=2026-01-01T00:00:00Z";
    space.kubectl(&["annotate", "secret", &secret, "--overwrite", due]).await?;
    let after = eventually("the next certificate", LONG, async || {
        let after = webhook(release).await?;
        ensure!(after[0] != before[0], "it is the one before");
        Ok(after)
    })
    .await?;
    let trusted = trusted().await?;
    ensure!(
        trusted.len() > trusted_before.len() && trusted.ends_with(&trusted_before),
        "the authority before is trusted no more"
    );
    let policy = async |policy: &str| {
        let path = "/webhooks/0/failurePolicy";
        let patch = json!([{ "op": "replace", "path": path, "value": policy }]).to_string();
        let kind = "validatingwebhookconfigurations";
        space.kubectl(&["patch", kind, &name, "--type=json", "--patch", &patch]).await
    };
    policy("Fail").await?;
    let mut evict = EvictParams::default();
    evict.post_options.dry_run = true;
    let asked = space.api::<Pod>().evict(pod, &evict).await;
    policy("Ignore").await?;
    asked.context("with a new certificate")?;
    Ok(after)
}

/// What the operator wrote for its webhook: the certificate, and whom the API server trusts.
async fn webhook(release: &Release<'_>) -> Result<[String; 2]> {
    let space = release.space;
    let secret = format!("{}-operator-webhook", release.name);
    let certificate =
        space.kubectl(&["get", "secret", &secret, "--output=jsonpath={.data.tls\\.crt}"]).await?;
    let trusted = "--output=jsonpath={.webhooks[*].clientConfig.caBundle}";
    let kind = "validatingwebhookconfigurations";
    let trusted = space.kubectl(&["get", kind, &release.webhook(), trusted]).await?;
    Ok([certificate, trusted])
}

fn available(deployment: &Deployment) -> i32 {
    deployment.status.as_ref().and_then(|status| status.available_replicas).unwrap_or_default()
}
