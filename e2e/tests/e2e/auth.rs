//! Who may connect: a change of `spec.auth` is a deploy, and then phoenix.js needs a token.

use anyhow::{Result, ensure};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::api::{ObjectMeta, PostParams};
use reqwest::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use serde_json::json;
use sluice_crds::ConditionType;

use crate::{
    figure,
    support::{Clients, Cluster, cluster::http, eventually, spec, test, wait::LONG},
};

const TOPIC: &str = "room:lobby";
const KEY: &[u8] = b"a secret that only the issuer and the nodes know";
/// `{"sub": "anna", "exp": 4102444800}` (in 2100), signed with [`KEY`] by HS256.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbm5hIiwiZXhwIjo0MTAyNDQ0ODAwfQ.7AjvkohX6KHtzOUW8RB0e4mB60ewBGZxidBhmqEraVk";

/// What a handshake without a token is answered by the Service.
async fn stranger(cluster: &Cluster<'_>) -> Result<u16> {
    let url = cluster.urls().await?.remove(0).replace("ws://", "http://");
    let request = http()?
        .get(format!("{url}/websocket?vsn=2.0.0"))
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_VERSION, "13")
        .header(SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    Ok(request.send().await?.status().as_u16())
}

#[test]
fn a_change_of_auth_is_a_deploy_and_lets_in_only_who_bears_a_token() {
    test("a_change_of_auth_is_a_deploy_and_lets_in_only_who_bears_a_token", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        // The Service leads to the pods a moment after the cluster is Ready.
        eventually("everybody to be let in at first", LONG, async || {
            let status = stranger(&cluster).await?;
            ensure!(status == 101, "without a token: {status}");
            Ok(())
        })
        .await?;
        let before = cluster.identities().await?;
        let secret = Secret {
            metadata: ObjectMeta { name: Some("issuer".into()), ..ObjectMeta::default() },
            data: Some([("key".to_owned(), ByteString(KEY.to_vec()))].into()),
            ..Secret::default()
        };
        space.api::<Secret>().create(&PostParams::default(), &secret).await?;
        let key = json!({ "algorithm": "HS256", "secretRef": { "name": "issuer", "key": "key" } });
        cluster.change(json!({ "auth": { "jwt": { "keys": [key] } } })).await?;
        cluster.wait_for(ConditionType::Ready, "True").await?;
        let after = cluster.identities().await?;
        ensure!(before.keys().all(|pod| !after.contains_key(pod)), "{before:?} are still there");
        eventually("a stranger to be refused", LONG, async || {
            let status = stranger(&cluster).await?;
            ensure!(status == 403, "without a token: {status}");
            Ok(())
        })
        .await?;
        let clients = Clients::start(space).await?;
        let params = json!({ "token": TOKEN });
        let state = clients.open_with("bearers", &cluster.urls().await?, TOPIC, 4, params).await?;
        clients.publish_by_push("push", "bearers", 100).await?;
        eventually("a message to be sent", LONG, async || {
            ensure!(!clients.received("bearers", 0).await?.is_empty(), "nothing yet");
            Ok(())
        })
        .await?;
        clients.stop_publishing("push").await?;
        figure!(space, "a stranger is answered 403, bearers are on {:?}", state.by_node);
        Ok(())
    });
}
