//! A Service whose port somebody changed, which a plain apply can't bring back.

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use serde_json::json;
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{Cluster, LONG, eventually, spec, test},
};

async fn service(cluster: &Cluster<'_>) -> anyhow::Result<(Option<String>, ServicePort)> {
    let spec = cluster.space.api::<Service>().get(&cluster.name).await?.spec;
    let spec = spec.context("a Service without spec")?;
    let [port] = &spec.ports.unwrap_or_default()[..] else { anyhow::bail!("not one port") };
    Ok((spec.cluster_ip, port.clone()))
}

#[test]
fn a_renumbered_service_port_is_brought_back() {
    test("a_renumbered_service_port_is_brought_back", async |space| {
        let cluster = space.cluster("chat", spec(1, json!({}))).await?;
        cluster.wait_ready().await?;
        let before = service(&cluster).await?;
        let patch = r#"[{"op":"replace","path":"/spec/ports/0/port","value":8080}]"#;
        space.kubectl(&["patch", "service", "chat", "--type=json", "--patch", patch]).await?;
        let after = eventually("the port to be brought back", LONG, async || {
            let now = service(&cluster).await?;
            ensure!(now.1.port == before.1.port, "it is {}", now.1.port);
            Ok(now)
        })
        .await?;
        figure!(space, "8080 → {}, node port {:?}", after.1.port, after.1.node_port);
        ensure!(after == before, "address and node port are kept: {before:?} {after:?}");
        cluster.wait_for(ConditionType::Stalled, "False").await?;
        Ok(())
    });
}
