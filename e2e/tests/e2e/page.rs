//! The chat page of the example, as two people see it in a browser.

use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Service;
use kube::Api;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{ChildStdout, Command},
    time::timeout,
};

use crate::{
    figure,
    support::{LONG, spec, test},
};

async fn told(lines: &mut Lines<BufReader<ChildStdout>>) -> Result<Value> {
    let line = timeout(LONG, lines.next_line()).await.context("the pages took too long")??;
    Ok(serde_json::from_str(&line.context("the browser ended: its error is above")?)?)
}

#[test]
fn chat_page_shows_its_pod_and_its_move() {
    test("chat_page_shows_its_pod_and_its_move", async |space| {
        let Some(chromium) = sluice_e2e::packages::find("chromium") else {
            figure!(space, "skipped: needs Chromium");
            return Ok(());
        };
        let pages = Api::<Service>::namespaced(space.client.clone(), "default");
        let page = pages.get("chat-page").await.context("the example is not there")?;
        let port = page.spec.and_then(|spec| spec.ports?.first()?.node_port).context("no port")?;
        let page = format!("http://{}:{port}/", space.place.addresses[0]);

        let cluster = space.cluster("chat", spec(1, json!({}))).await?;
        cluster.wait_ready().await?;
        let urls = cluster.urls().await?;
        let shot = space.place.kubernetes.settings().logs().join("chat-page.png");
        let mut child = Command::new("node")
            .arg(space.place.in_repo("e2e/clients/page.mjs"))
            .args([&chromium, &page.into(), &(&urls[0]).into(), &shot])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("node is missing: install Node 20 or later")?;
        let mut stdin = child.stdin.take().context("the browser's stdin")?;
        let mut lines = BufReader::new(child.stdout.take().context("its stdout")?).lines();
        let before = told(&mut lines).await?;
        figure!(space, "two pages chatted both ways, on {}", before["pods"]);
        ensure!(before["pods"] == json!(["chat-0", "chat-0"]), "{before}");

        let env = json!([{ "name": "COLOUR", "value": "blue" }]);
        cluster.change(json!({ "podTemplate": { "env": env } })).await?;
        stdin.write_all(b"moved\n").await?;
        let after = told(&mut lines).await?;
        figure!(space, "after a deploy on {}: {}", after["pods"], after["moves"]);
        ensure!(after["pods"] == json!(["chat-1", "chat-1"]), "{after}");
        for moves in after["moves"].as_array().into_iter().flatten() {
            let text = moves[0].as_str().unwrap_or_default();
            ensure!(moves.as_array().is_some_and(|moves| moves.len() == 1), "moved once: {moves}");
            ensure!(text.contains("chat-0") && text.contains("close code 1012"), "{text}");
        }
        ensure!(after["problems"] == json!([]), "errors on the page: {}", after["problems"]);
        figure!(space, "screenshot: {}", shot.display());
        Ok(())
    });
}
