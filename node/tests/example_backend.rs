//! `examples/backend`, in Python and as it stands there, decides for a whole node. Needs `python3`.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use plane::{Client, refusal};
use serde_json::{Value, json};
use sluice_node::run::Node;
use support::{BOUND, Dir, end};

/// The backend's process, and its output line by line.
struct Example(Child, BufReader<std::process::ChildStdout>);

impl Example {
    fn start(secret: &Path) -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/backend/backend.py");
        let mut child = Command::new("python3")
            .args([&script, secret, Path::new("0")])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 runs the example: install it, it is a part of what is tested");
        let output = BufReader::new(child.stdout.take().unwrap());
        Self(child, output)
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).unwrap();
        line.trim().to_owned()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn user(node: &Node, name: &str) -> Client {
    Client::connect(&backend::url(node, &format!("&user={name}"))).await.expect("let in")
}

async fn push(client: &mut Client, event: &str, payload: Value) {
    client.send(json!(["1", "2", "auction:lamp", event, payload])).await;
}

/// The payload of the next message, which is `event`.
async fn next(client: &mut Client, event: &str) -> Value {
    let mut message = client.next().await;
    assert_eq!(message[3], event, "{message}");
    message[4].take()
}

#[tokio::test]
async fn the_example_lets_in_takes_bids_and_hears_of_the_end() {
    let dir = Dir::new();
    let live = include_str!("../../examples/backend/live.yaml");
    std::fs::write(dir.0.join("live.yaml"), format!("{live}drain: {{initialDelaySeconds: 0}}\n"))
        .unwrap();
    let secret = dir.0.join("webhook-secret");
    std::fs::write(&secret, backend::secret(1)).unwrap();
    let mut example = Example::start(&secret);
    let url = example.line();
    let node = backend::start(&dir, &url, "  connect: true\n  disconnect: true\n").await;
    assert_eq!(refusal(Client::connect(&backend::url(&node, "")).await).0, 403, "no user");
    let (mut anna, mut bert) = (user(&node, "anna").await, user(&node, "bert").await);
    for client in [&mut anna, &mut bert] {
        client.send(json!(["1", "1", "auction:lamp", "phx_join", {}])).await;
        let joined = next(client, "phx_reply").await;
        assert_eq!(joined["response"], json!({"user": null, "amount": 10}));
    }
    anna.send(json!(["1", "1", "auction:boat", "phx_join", {}])).await;
    assert_eq!(next(&mut anna, "phx_reply").await["response"]["reason"], "no such lot");
    push(&mut anna, "bid", json!({"amount": 70, "user": "bert"})).await;
    let highest = json!({"user": "anna", "amount": 70});
    assert_eq!(next(&mut bert, "highest").await, highest);
    assert_eq!(next(&mut anna, "highest").await, highest);
    assert_eq!(next(&mut anna, "phx_reply").await["status"], "ok");
    push(&mut bert, "bid", json!({"amount": 70})).await;
    let low = json!({"status": "error", "response": {"reason": "too low", "highest": 70}});
    assert_eq!(next(&mut bert, "phx_reply").await, low);
    push(&mut bert, "shout", json!({})).await;
    assert_eq!(next(&mut bert, "phx_reply").await["response"]["reason"], "event not allowed");
    anna.is_quiet().await;
    // A call that somebody else has signed is none.
    let http = reqwest::Client::builder().no_proxy().timeout(BOUND).build().unwrap();
    let forged = http.post(&url).body("{}").header("webhook-signature", "v1,AAAA").send().await;
    assert_eq!(forged.unwrap().status(), 400);
    drop(anna);
    let told = tokio::task::spawn_blocking(move || {
        let lines = [example.line(), example.line()];
        (lines.map(|line| serde_json::from_str::<Value>(&line).unwrap()), example)
    });
    let (told, _example) = tokio::time::timeout(BOUND, told).await.expect("it is told").unwrap();
    for told in told {
        assert_eq!(told["socket"]["id"], "users:anna");
        assert!(told["reason"] == "closed" || told["code"] == 1006, "{told}");
    }
    end(node).await;
}
