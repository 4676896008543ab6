//! What phoenix.js is told of what it did not hear: before it joined, and while it did not read.

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use sluice_crds::names;

use crate::{
    figure,
    support::{
        Clients, LONG,
        cluster::{http, ip},
        eventually, spec, test,
    },
};

const TOPIC: &str = "room:lobby";

fn ids(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|message| message["payload"]["id"].as_str()).collect()
}

#[test]
fn history_is_told_to_who_joins_late_on_any_pod() {
    test("history_is_told_to_who_joins_late_on_any_pod", async |space| {
        let channels =
            json!([{ "topic": "room:*", "announceNode": true, "history": { "size": 3 } }]);
        let cluster = space.cluster("chat", spec(2, json!({ "channels": channels }))).await?;
        cluster.wait_ready().await?;
        let clients = Clients::start(space).await?;
        let pods = cluster.pods().await?;
        for (group, pod) in ["here", "there"].into_iter().zip(&pods) {
            clients.open(group, &[cluster.pod_url(pod)?], TOPIC, 1).await?;
            let told = clients.answers(group).await?;
            ensure!(told[0]["history"] == json!([]), "nothing was said yet: {told:?}");
        }
        let said = ["one", "two", "three", "four"];
        for id in said {
            clients.say("here", 0, id).await?;
        }
        clients.all_receive("there", &said).await?;
        for (group, pod) in ["late here", "late there"].into_iter().zip(&pods) {
            clients.open(group, &[cluster.pod_url(pod)?], TOPIC, 1).await?;
            let told = clients.answers(group).await?.remove(0);
            let history = told["history"].as_array().context("no history")?;
            ensure!(ids(history) == said[1..], "the last three, oldest first: {told}");
            ensure!(history.iter().all(|one| one["event"] == "msg"), "{told}");
        }
        clients.say("there", 0, "five").await?;
        for group in ["late here", "late there"] {
            clients.all_receive(group, &["five"]).await?;
            let heard = clients.received(group, 0).await?;
            ensure!(ids(&heard) == ["five"], "{group} heard again what it was told: {heard:?}");
        }
        figure!(space, "two who joined late, on both pods, were told {:?}", &said[1..]);
        Ok(())
    });
}

#[test]
fn slow_client_is_told_how_much_it_missed_and_stays() {
    test("slow_client_is_told_how_much_it_missed_and_stays", async |space| {
        let channels = json!([
            { "topic": "room:*", "announceNode": true, "slowConsumer": "DropOldest" },
        ]);
        let template = json!({ "resources": { "limits": { "memory": "512Mi" } } });
        let more = json!({ "channels": channels, "podTemplate": template });
        let cluster = space.cluster("chat", spec(1, more)).await?;
        cluster.wait_ready().await?;
        let pod = cluster.pods().await?.remove(0);
        let (url, token) = (cluster.pod_url(&pod)?, cluster.token(names::PUBLISH_TOKEN).await?);
        let clients = Clients::start(space).await?;
        for group in ["slow", "quick"] {
            clients.open(group, std::slice::from_ref(&url), TOPIC, 1).await?;
        }
        let http = http()?;
        let metrics = format!("http://{}:{}/metrics", ip(&pod)?, names::ADMIN_PORT);
        let publish = format!("http://{}:{}/api/publish", ip(&pod)?, names::PUBLISH_PORT);

        let scrape =
            async || anyhow::Ok(http.get(&metrics).send().await?.error_for_status()?.text().await?);
        let bound = async |bytes: u64| {
            let line = format!("sluice_buffered_limit_bytes {bytes}\n");
            eventually(&format!("at most {bytes} bytes to wait"), LONG, async || {
                ensure!(scrape().await?.contains(&line), "another bound than {bytes}");
                Ok(())
            })
            .await
        };
        bound(128 << 20).await?;
        cluster.change(json!({ "limits": { "maxBuffered": "64Mi" } })).await?;
        bound(64 << 20).await?;

        // Until the kernels of both ends are full, and then what may wait in the node.
        clients.each("slow", "pause").await?;
        let padding = "x".repeat(50_000);
        let mut said = Vec::new();
        for number in 0..400 {
            let id = format!("m{number}");
            let message = json!({
                "topic": TOPIC, "event": "msg", "payload": { "id": id, "padding": padding },
            });
            let call = http.post(&publish).bearer_auth(&token).json(&message);
            call.send().await?.error_for_status()?;
            said.push(id);
            if scrape().await?.contains("sluice_dropped_total{reason=\"oldest\"}") {
                break;
            }
        }
        clients.each("slow", "resume").await?;
        let last = said.last().context("something was said")?.clone();
        clients.all_receive("slow", &[&last]).await?;
        let all: Vec<&str> = said.iter().map(String::as_str).collect();
        clients.all_receive("quick", &all).await?;

        let heard = clients.received("slow", 0).await?;
        let dropped = heard.iter().filter(|message| message["event"] == "sluice:dropped");
        let missed: u64 = dropped.filter_map(|message| message["payload"]["count"].as_u64()).sum();
        let received = ids(&heard).len();
        figure!(space, "of {} messages it heard {received} and was told of {missed}", said.len());
        ensure!(missed > 0, "no `sluice:dropped` among {} messages", heard.len());
        ensure!(received as u64 + missed == said.len() as u64, "some are not accounted for");
        let quick = clients.received("quick", 0).await?;
        ensure!(ids(&quick) == all, "nobody else misses anything");
        eventually("both to go on", LONG, async || {
            for group in ["slow", "quick"] {
                let state = clients.state(group).await?;
                ensure!(state.closes == 0 && state.joined == 1, "{group}: {state:?}");
            }
            Ok(())
        })
        .await
    });
}
