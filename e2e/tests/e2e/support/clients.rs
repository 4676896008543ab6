//! The live phoenix.js clients: a Node program that is driven by JSON lines.

use std::{
    collections::{BTreeMap, HashMap},
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use parking_lot::Mutex;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStdin, Command},
    sync::{OnceCell, oneshot},
    time::timeout,
};

use super::{Space, report::Report, wait::LONG};

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// Live clients, in groups; they end with this value.
pub struct Clients {
    stdin: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
    _child: Child,
}

/// How a group is right now.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// Clients joined.
    pub joined: usize,
    /// Clients joined, by pod.
    pub by_node: BTreeMap<String, usize>,
    /// Clients that joined more than once.
    pub moved: usize,
    /// Connections lost so far.
    pub closes: usize,
    /// What went wrong, the first few.
    pub errors: Vec<String>,
}

/// What the node answered to a push.
#[derive(Debug, Clone, Deserialize)]
pub struct Reply {
    /// `ok`, `error` or `timeout`.
    pub status: String,
    /// Its response.
    pub response: Value,
}

/// What a publisher did.
#[derive(Debug, Clone, Deserialize)]
pub struct Published {
    /// Messages that were acknowledged.
    pub sent: usize,
    /// Messages that were neither acknowledged nor surely unsent, by reason.
    pub unsure: BTreeMap<String, usize>,
}

impl Clients {
    /// Starts the program, with its npm packages installed by the lock file if they are not.
    pub async fn start(space: &Space) -> Result<Self> {
        static INSTALLED: OnceCell<()> = OnceCell::const_new();
        let folder = space.place.in_repo("e2e/clients");
        INSTALLED
            .get_or_try_init(|| async {
                if folder.join("node_modules/phoenix").exists() {
                    return Ok(());
                }
                let npm =
                    Command::new("npm").args(["ci", "--no-audit"]).current_dir(&folder).output();
                let done = npm.await.context("npm is missing: install Node 20 or later")?;
                ensure!(done.status.success(), "npm ci: {}", String::from_utf8_lossy(&done.stderr));
                Ok(())
            })
            .await?;
        let mut child = Command::new("node")
            .arg(folder.join("main.mjs"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("node is missing: install Node 20 or later")?;
        let stdin = child.stdin.take().context("the clients' stdin")?;
        let stdout = child.stdout.take().context("the clients' stdout")?;
        let waiting = Waiting::default();
        let answers = waiting.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                let Ok(answer) = serde_json::from_str::<Value>(&line) else { continue };
                let asked = answer["id"].as_u64().and_then(|id| answers.lock().remove(&id));
                if let Some(asked) = asked {
                    let _ = asked.send(answer);
                }
            }
            answers.lock().clear();
        });
        let stdin = tokio::sync::Mutex::new(stdin);
        Ok(Self { stdin, waiting, next: AtomicU64::new(1), _child: child })
    }

    async fn ask<T: DeserializeOwned>(&self, what: &str, mut command: Value) -> Result<T> {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        command["id"] = id.into();
        command["do"] = what.into();
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(id, sender);
        self.stdin.lock().await.write_all(format!("{command}\n").as_bytes()).await?;
        let limit = LONG + Duration::from_secs(10);
        let answer = timeout(limit, receiver)
            .await
            .with_context(|| format!("the clients gave no answer to {what}"))?
            .with_context(|| format!("the clients ended during {what}"))?;
        if let Some(error) = answer["error"].as_str() {
            return Err(anyhow!("{what}: {error}"));
        }
        serde_json::from_value(answer["ok"].clone()).with_context(|| format!("answer to {what}"))
    }

    /// Opens clients on `urls` in turn and waits until all of the group have joined.
    pub async fn open(
        &self,
        group: &str,
        urls: &[String],
        topic: &str,
        count: usize,
    ) -> Result<State> {
        self.open_with(group, urls, topic, count, json!({})).await
    }

    /// As [`Self::open`], with connect parameters.
    pub async fn open_with(
        &self,
        group: &str,
        urls: &[String],
        topic: &str,
        count: usize,
        params: Value,
    ) -> Result<State> {
        let command = json!({
            "group": group, "urls": urls, "topic": topic, "count": count, "params": params,
        });
        self.opened(count, command).await
    }

    /// As [`Clients::open`], by long-poll: request by request, over as many connections as wait at a time.
    pub async fn open_polling(
        &self,
        group: &str,
        urls: &[String],
        topic: &str,
        count: usize,
    ) -> Result<State> {
        let command = json!({
            "group": group, "urls": urls, "topic": topic, "count": count, "longPoll": true,
        });
        self.opened(count, command).await
    }

    async fn opened(&self, count: usize, command: Value) -> Result<State> {
        let state: State = self.ask("open", command).await?;
        let joined: usize = state.by_node.values().sum();
        ensure!(
            joined == state.joined && joined >= count,
            "of {count} clients not all joined: {state:?}"
        );
        Ok(state)
    }

    /// As [`Clients::open`], without complaint about those who could not join.
    pub async fn try_open(&self, group: &str, urls: &[String], topic: &str) -> Result<State> {
        self.try_open_with(group, urls, topic, json!({})).await
    }

    /// As [`Clients::try_open`], with connect parameters.
    pub async fn try_open_with(
        &self,
        group: &str,
        urls: &[String],
        topic: &str,
        params: Value,
    ) -> Result<State> {
        let command = json!({
            "group": group, "urls": urls, "topic": topic, "count": 1, "params": params, "timeoutMs": 4000,
        });
        self.ask("open", command).await
    }

    /// As [`Clients::open`], with the same number of clients on each of `pods` pods: more are opened than needed, and
    /// those that are too many on their pod closed again.
    pub async fn open_evenly(
        &self,
        group: &str,
        urls: &[String],
        topic: &str,
        count: usize,
        pods: usize,
    ) -> Result<State> {
        let command = json!({
            "group": group, "urls": urls, "topic": topic, "count": count, "pods": pods,
        });
        let state: State = self.ask("openEvenly", command).await?;
        ensure!(state.joined == count, "of {count} clients not all joined: {state:?}");
        Ok(state)
    }

    /// How the group is right now.
    pub async fn state(&self, group: &str) -> Result<State> {
        self.ask("state", json!({ "group": group })).await
    }

    /// Pushes an event from one client and gives the reply.
    pub async fn push(
        &self,
        group: &str,
        client: usize,
        event: &str,
        payload: Value,
    ) -> Result<Reply> {
        let command =
            json!({ "group": group, "client": client, "event": event, "payload": payload });
        self.ask("push", command).await
    }

    /// Says something from one client, which the topic's rule takes.
    pub async fn say(&self, group: &str, client: usize, id: &str) -> Result<()> {
        let reply = self.push(group, client, "msg", json!({ "id": id })).await?;
        ensure!(reply.status == "ok", "{id}: {reply:?}");
        Ok(())
    }

    /// Waits until every client of the group has the messages; says who lacks which.
    pub async fn all_receive(&self, group: &str, ids: &[&str]) -> Result<()> {
        let command = json!({ "group": group, "ids": ids, "timeoutMs": 15_000 });
        let answer: Value = self.ask("waitReceived", command).await?;
        let missing = &answer["missing"];
        ensure!(
            missing.as_array().is_some_and(Vec::is_empty),
            "{group} did not receive: {missing}"
        );
        Ok(())
    }

    /// What the last join of each client was answered with.
    pub async fn answers(&self, group: &str) -> Result<Vec<Value>> {
        self.ask("answers", json!({ "group": group })).await
    }

    /// Has each client of the group `leave` its topic, `pause` reading or `resume` it.
    pub async fn each(&self, group: &str, act: &str) -> Result<()> {
        self.ask::<Value>("each", json!({ "group": group, "act": act })).await.map(drop)
    }

    /// The messages that one client received.
    pub async fn received(&self, group: &str, client: usize) -> Result<Vec<Value>> {
        self.ask("received", json!({ "group": group, "client": client })).await
    }

    /// Starts a publisher of numbered messages by push, from the group's clients in turn.
    pub async fn publish_by_push(&self, name: &str, group: &str, every_ms: u64) -> Result<()> {
        let command = json!({ "name": name, "group": group, "via": "push", "everyMs": every_ms });
        self.ask::<Value>("publishStart", command).await.map(drop)
    }

    /// Starts a publisher of numbered messages over HTTP, to `urls` in turn.
    pub async fn publish_by_http(
        &self,
        name: &str,
        (group, topic): (&str, &str),
        every_ms: u64,
        (urls, token): (&[String], &str),
    ) -> Result<()> {
        let command = json!({
            "name": name, "group": group, "topic": topic, "via": "http", "everyMs": every_ms, "urls": urls, "token": token,
        });
        self.ask::<Value>("publishStart", command).await.map(drop)
    }

    /// Points an HTTP publisher elsewhere.
    pub async fn publish_to(&self, name: &str, urls: &[String]) -> Result<()> {
        self.ask::<Value>("publishTo", json!({ "name": name, "urls": urls })).await.map(drop)
    }

    /// Stops a publisher, and waits for what it has under way.
    pub async fn stop_publishing(&self, name: &str) -> Result<Published> {
        self.ask("publishStop", json!({ "name": name })).await
    }

    /// What happened to the group so far.
    pub async fn report(&self, group: &str, replicas: usize) -> Result<Report> {
        self.ask("report", json!({ "group": group, "replicas": replicas })).await
    }

    /// How long `count` clients need to connect and join all at once; they are closed again.
    pub async fn burst(&self, urls: &[String], topic: &str, count: usize) -> Result<Duration> {
        let command = json!({
            "group": "burst", "urls": urls, "topic": topic, "count": count, "spacingMs": 0,
        });
        let began = Instant::now();
        let state: State = self.ask("open", command).await?;
        let took = began.elapsed();
        ensure!(state.joined == count, "of {count} clients not all joined: {state:?}");
        self.close("burst").await?;
        Ok(took)
    }

    /// Closes the group's clients.
    pub async fn close(&self, group: &str) -> Result<()> {
        self.ask::<Value>("close", json!({ "group": group })).await.map(drop)
    }
}
