//! Somebody on the network without the cluster's tokens.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::ResourceExt;
use reqwest::Method;
use serde_json::{Value, json};
use sluice_crds::names;
use sluice_node_api::admin::DrainPhase;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::{
    figure,
    support::{
        Clients, LONG, Space,
        cluster::{http, ip, ready},
        eventually, spec, test,
    },
};

const ADMIN_CALLS: [(Method, &str); 7] = [
    (Method::GET, "/status"),
    (Method::GET, "/drain"),
    (Method::POST, "/drain"),
    (Method::DELETE, "/drain"),
    (Method::POST, "/cordon"),
    (Method::DELETE, "/cordon"),
    (Method::POST, "/shed"),
];

#[test]
fn intruder_without_token_gets_nothing() {
    test("intruder_without_token_gets_nothing", async |space| {
        let cluster = space.cluster("chat", spec(2, json!({}))).await?;
        cluster.wait_ready().await?;
        let pods = cluster.pods().await?;
        let victim = ip(&pods[0])?;
        let clients = Clients::start(space).await?;
        clients.open("room", &cluster.urls().await?, "room:lobby", 4).await?;
        let others = [
            None,
            Some(String::new()),
            Some("wrong".into()),
            Some(cluster.token(names::MESH_TOKEN).await?),
        ];

        let mut refused = 0;
        for token in &others {
            for (method, path) in ADMIN_CALLS {
                let body = json!({ "count": 100, "ratePerSecond": 100, "mode": "Immediate" });
                let url = format!("http://{victim}:{}{path}", names::ADMIN_PORT);
                let answer = call(method.clone(), &url, token.as_deref(), &body).await?;
                ensure!(
                    answer == (401, 0) || answer.0 == 401 && answer.1 < 200,
                    "{method} {path}: {answer:?}"
                );
                refused += 1;
            }
            let body =
                json!({ "topic": "room:lobby", "event": "spam", "payload": { "id": "spam" } });
            let url = format!("http://{victim}:{}/api/publish", names::PUBLISH_PORT);
            let answer = call(Method::POST, &url, token.as_deref(), &body).await?;
            ensure!(answer.0 == 401, "publish: {answer:?}");
            refused += 1;
        }
        figure!(space, "{refused} calls refused with 401");

        let told = knock(victim).await?;
        figure!(space, "the mesh port told a stranger {told} bytes");

        let rogue = rogue(space, victim).await?;
        clients.open("rogue", &[rogue], "room:lobby", 1).await?;
        // What the room says must not be heard there, nor what is said there in the room.
        clients.push("rogue", 0, "msg", json!({ "id": "from the rogue" })).await?;
        clients.all_receive("rogue", &["from the rogue"]).await?;
        clients.push("room", 0, "msg", json!({ "id": "secret" })).await?;
        clients.all_receive("room", &["secret"]).await?;
        for client in 0..4 {
            let heard = clients.received("room", client).await?;
            ensure!(heard.len() == 1, "the room heard {heard:?}");
        }
        let overheard = clients.received("rogue", 0).await?;
        ensure!(overheard.len() == 1, "the rogue heard {overheard:?}");
        for status in cluster.node_statuses().await? {
            ensure!(status.drain.phase == DrainPhase::None && !status.cordoned, "{status:?}");
            ensure!(
                status.peers.iter().filter(|peer| peer.inbound || peer.outbound).count() == 1,
                "{status:?}"
            );
            ensure!(status.peers.iter().all(|peer| peer.name != "rogue"), "{status:?}");
        }
        ensure!(clients.state("room").await?.closes == 0, "nobody was closed");
        Ok(())
    });
}

/// Status and length of the answer to a call.
async fn call(
    method: Method,
    url: &str,
    token: Option<&str>,
    body: &Value,
) -> Result<(u16, usize)> {
    let mut request = http()?.request(method, url).json(body);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let answer = request.send().await?;
    Ok((answer.status().as_u16(), answer.bytes().await?.len()))
}

/// Sends the mesh port what is no handshake; gives how many bytes came back before it hung up.
async fn knock(address: &str) -> Result<usize> {
    let mut stream = TcpStream::connect((address, names::MESH_PORT)).await?;
    stream.write_all(&[b'x'; 4096]).await?;
    let mut answer = Vec::new();
    let limit = Duration::from_secs(30);
    // A reset is as good an end as a close.
    let ended = timeout(limit, stream.read_to_end(&mut answer)).await;
    ensure!(ended.is_ok(), "the mesh port keeps a stranger's connection open");
    ensure!(answer.len() < 256, "the mesh port said {} bytes to a stranger", answer.len());
    Ok(answer.len())
}

/// Starts a node that names itself one of the cluster, with another mesh token; gives its socket's URL.
async fn rogue(space: &Space, victim: &str) -> Result<String> {
    let config = json!({
        "cluster": format!("{}/chat", space.name),
        "tokens": { "meshFile": "/config/token" },
        "discovery": { "peers": [format!("{victim}:{}", names::MESH_PORT)] },
    });
    let live = json!({ "channels": [{ "topic": "room:*", "announceNode": true }] });
    let mut config = config;
    config["liveFile"] = "/config/live.yaml".into();
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "rogue" },
        "data": { "node.yaml": config.to_string(), "live.yaml": live.to_string(), "token": "0123456789abcdef0123456789abcdef" },
    });
    space.apply::<ConfigMap>("rogue", map).await?;
    let from = |path: &str| json!({ "fieldRef": { "fieldPath": path } });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "rogue" },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "securityContext": { "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" } },
            "volumes": [{ "name": "config", "configMap": { "name": "rogue" } }],
            "containers": [{
                "name": "node",
                "image": space.place.kubernetes.images()?.channel_node,
                "imagePullPolicy": "IfNotPresent",
                "env": [
                    { "name": "SLUICE_CONFIG", "value": "/config/node.yaml" },
                    { "name": "POD_NAME", "valueFrom": from("metadata.name") },
                    { "name": "POD_UID", "valueFrom": from("metadata.uid") },
                    { "name": "POD_IP", "valueFrom": from("status.podIP") },
                ],
                "volumeMounts": [{ "name": "config", "mountPath": "/config" }],
                "readinessProbe": { "httpGet": { "path": "/healthz", "port": names::ADMIN_PORT }, "periodSeconds": 1 },
                "securityContext": { "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] } },
            }],
        },
    });
    space.apply::<Pod>("rogue", pod).await?;
    eventually("the rogue node to run", LONG, async || {
        let pod = space.api::<Pod>().get("rogue").await?;
        ensure!(ready(&pod), "{} is not ready", pod.name_any());
        Ok(format!("ws://{}:{}/socket", ip(&pod)?, names::HTTP_PORT))
    })
    .await
}
