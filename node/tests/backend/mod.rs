//! A backend over real HTTP that says what a test wants, and a node that calls it.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, http::StatusCode, routing::post};
use base64::{Engine, engine::general_purpose::STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sluice_node::run::Node;
use tokio::sync::Semaphore;

use crate::support::{Dir, node};

/// What it does with a call.
#[derive(Clone)]
enum Says {
    This(u16, String),
    Nothing,
}

/// How calls of a type are answered.
#[derive(Clone)]
struct Manner {
    says: Says,
    /// Each answer takes one, and waits for it.
    gate: Option<Arc<Semaphore>>,
}

#[derive(Clone)]
pub struct Backend {
    pub url: String,
    manners: Arc<Mutex<HashMap<String, Manner>>>,
    pub calls: Arc<Mutex<Vec<(HeaderMap, Bytes)>>>,
    /// Ids of calls that were answered with a success.
    pub taken: Arc<Mutex<HashSet<String>>>,
}

impl Backend {
    /// One that allows everything.
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        Self::on(url, listener)
    }

    /// The same, where this listener listens.
    pub fn on<L>(url: String, listener: L) -> Self
    where
        L: axum::serve::Listener,
        L::Addr: std::fmt::Debug,
    {
        let (manners, calls, taken) = (Arc::default(), Arc::default(), Arc::default());
        let backend = Self { url, manners, calls, taken };
        let router = Router::new().route("/hook", post(hook)).with_state(backend.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        backend
    }

    /// To calls of every type that has no answer of its own.
    pub fn say(&self, status: u16, body: impl ToString) {
        self.answer("*", status, body);
    }

    /// To calls of this type.
    pub fn answer(&self, event: &str, status: u16, body: impl ToString) {
        self.set(event, Says::This(status, body.to_string()));
    }

    /// Nothing, to calls of this type or, by `*`, of every other.
    pub fn say_nothing(&self, event: &str) {
        self.set(event, Says::Nothing);
    }

    fn set(&self, event: &str, says: Says) {
        let mut manners = self.manners.lock();
        let gate = manners.get(event).and_then(|manner| manner.gate.clone());
        manners.insert(event.to_owned(), Manner { says, gate });
    }

    /// Holds the answers to calls of this type: one is let go for each permit.
    pub fn hold(&self, event: &str) -> Arc<Semaphore> {
        let gate = Arc::new(Semaphore::new(0));
        let manner = Manner { gate: Some(gate.clone()), ..self.manner(event) };
        self.manners.lock().insert(event.to_owned(), manner);
        gate
    }

    fn manner(&self, event: &str) -> Manner {
        let manners = self.manners.lock();
        let manner = manners.get(event).or_else(|| manners.get("*")).cloned();
        let yes = json!({ "allow": true }).to_string();
        manner.unwrap_or(Manner { says: Says::This(200, yes), gate: None })
    }

    /// The bodies of calls of a type.
    pub fn told(&self, event: &str) -> Vec<Value> {
        let calls = self.calls.lock();
        let bodies = calls.iter().map(|(_, body)| serde_json::from_slice::<Value>(body).unwrap());
        bodies.filter(|body| body["type"] == event).collect()
    }

    /// The data of calls of a type.
    pub fn data(&self, event: &str) -> Vec<Value> {
        self.told(event).into_iter().map(|mut body| body["data"].take()).collect()
    }
}

async fn hook(
    State(this): State<Backend>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let id = headers["webhook-id"].to_str().unwrap().to_owned();
    let event = serde_json::from_slice::<Value>(&body).unwrap()["type"].take();
    let manner = this.manner(event.as_str().unwrap());
    this.calls.lock().push((headers, body));
    if let Some(gate) = &manner.gate {
        gate.acquire().await.unwrap().forget();
    }
    match manner.says {
        Says::This(status, body) => {
            let status = StatusCode::from_u16(status).unwrap();
            if status.is_success() {
                this.taken.lock().insert(id);
            }
            (status, body)
        }
        Says::Nothing => std::future::pending().await,
    }
}

pub fn secret(byte: u8) -> String {
    format!("whsec_{}", STANDARD.encode([byte; 32]))
}

/// A node that calls the backend at `url`; `more` are further lines of `webhooks` and of the
/// configuration.
pub async fn start(dir: &Dir, url: &str, more: &str) -> Node {
    let file = dir.0.join("webhook-secret");
    std::fs::write(&file, secret(1)).unwrap();
    let file = file.display();
    let text = format!("webhooks:\n  url: '{url}'\n  secretFile: '{file}'\n{more}");
    node("a", &dir.config(&text)).await
}

pub fn url(node: &Node, params: &str) -> String {
    format!("ws://{}/socket/websocket?vsn=2.0.0{params}", node.addresses.http)
}

/// Whether calls of a type have had an outcome.
pub async fn counted(node: &Node, event: &str, outcome: &str) -> bool {
    let address = format!("http://{}/metrics", node.addresses.admin);
    let text = reqwest::get(address).await.unwrap().text().await.unwrap();
    text.contains(&format!(
        "sluice_webhook_requests_total{{event=\"{event}\",outcome=\"{outcome}\"}}"
    ))
}
