//! A question is put to the backend once, whatever becomes of the connection, and a connection that the backend
//! has closed meanwhile loses none.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod backend;
mod plane;
mod support;

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use backend::{start, url};
use plane::{Client, ok, refusal};
use serde_json::{Value, json};
use sluice_node::run::Node;
use support::{Dir, end, until};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const YES: &str = "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"allow\": true}";

/// A backend that reads a whole request of each connection, writes what it has to say, and closes it.
#[derive(Clone, Default)]
struct Abrupt {
    asked: Arc<AtomicUsize>,
    closed: Arc<AtomicUsize>,
}

impl Abrupt {
    async fn start(says: &'static str) -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let this = Self::default();
        let serving = this.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                serving.serve(stream, says).await;
            }
        });
        (this, url)
    }

    async fn serve(&self, stream: TcpStream, says: &str) {
        let mut stream = BufReader::new(stream);
        let (mut line, mut length) = (String::new(), 0);
        while stream.read_line(&mut line).await.unwrap() > 2 {
            let header = line.to_ascii_lowercase();
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            line.clear();
        }
        stream.read_exact(&mut vec![0; length]).await.unwrap();
        self.asked.fetch_add(1, Ordering::SeqCst);
        stream.write_all(says.as_bytes()).await.unwrap();
        drop(stream);
        self.closed.fetch_add(1, Ordering::SeqCst);
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

async fn asking(dir: &Dir, url: &str, more: &str) -> Node {
    let rules = "channels: [{topic: 'room:*', webhooks: {events: [buy]}, events: [buy],\n\
                 includeSender: false}, {topic: 'club:*', webhooks: {join: true}}]\n\
                 drain: {initialDelaySeconds: 0}\n";
    std::fs::write(dir.0.join("live.yaml"), rules).unwrap();
    start(dir, url, more).await
}

async fn ask(client: &mut Client, message: Value) -> Value {
    client.send(message).await;
    client.next().await[4].take()
}

#[tokio::test]
async fn a_question_that_may_have_been_read_is_not_put_again_and_the_policy_decides() {
    let unavailable = json!({"status": "error", "response": {"reason": "unavailable"}});
    let fine = json!({"status": "ok", "response": {}});
    for says in ["", "I am no server\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"al"]
    {
        for (policy, want) in [("Deny", &unavailable), ("Allow", &fine)] {
            let (dir, (backend, to)) = (Dir::new(), Abrupt::start(says).await);
            let node = asking(&dir, &to, &format!("  onFailure: {policy}\n")).await;
            let mut client = Client::connect(&url(&node, "")).await.expect("let in");
            client.join("room:1").await;
            let told = ask(&mut client, json!(["1", "2", "room:1", "buy", {}])).await;
            assert_eq!((&told, backend.asked()), (want, 1), "{policy}: {says:?}");
            let told = ask(&mut client, json!(["2", "2", "club:1", "phx_join", {}])).await;
            assert_eq!((&told, backend.asked()), (want, 2), "{policy}: {says:?}");
            drop(client);
            end(node).await;
        }
    }
    let (dir, (backend, to)) = (Dir::new(), Abrupt::start("").await);
    let node = asking(&dir, &to, "  connect: true\n").await;
    assert_eq!(refusal(Client::connect(&url(&node, "")).await).0, 403);
    assert_eq!(backend.asked(), 1);
    end(node).await;
}

#[tokio::test]
async fn a_connection_that_the_backend_has_closed_after_an_answer_loses_no_question() {
    let (dir, (backend, to)) = (Dir::new(), Abrupt::start(YES).await);
    let node = asking(&dir, &to, "").await;
    let mut client = Client::connect(&url(&node, "")).await.expect("let in");
    client.join("room:1").await;
    for n in 1..=50 {
        client.send(json!(["1", "2", "room:1", "buy", {}])).await;
        assert_eq!(client.next().await, ok("1", "2", "room:1"), "{n}");
        until("closed", || backend.closed.load(Ordering::SeqCst) == n).await;
        assert_eq!(backend.asked(), n);
    }
    drop(client);
    end(node).await;
}
