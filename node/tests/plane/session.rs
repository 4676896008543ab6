//! A client that long-polls, request by request.

use std::net::SocketAddr;

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

use super::{PATIENCE, ok};

/// A session of V2.
pub struct Session {
    pub http: Client,
    pub url: String,
    pub token: String,
}

pub async fn answer(request: RequestBuilder) -> Value {
    let response = request.timeout(PATIENCE).send().await.expect("an answer");
    assert_eq!(response.status(), 200, "P-LP-1");
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "P-LP-11");
    assert_eq!(response.headers()["cache-control"], "no-store");
    response.json().await.expect("JSON")
}

impl Session {
    pub async fn open(node: SocketAddr, path: &str) -> Self {
        let http = Client::new();
        let url = format!("http://{node}{path}/longpoll?vsn=2.0.0");
        let opened = answer(http.get(&url)).await;
        assert_eq!((&opened["status"], &opened["messages"]), (&json!(410), &json!([])), "P-LP-2");
        let token = opened["token"].as_str().expect("a token").to_owned();
        Self { http, url, token }
    }

    /// The same session, asked by another node.
    pub fn at(&self, node: SocketAddr, path: &str) -> Self {
        let url = format!("http://{node}{path}/longpoll?vsn=2.0.0");
        Self { url, http: self.http.clone(), token: self.token.clone() }
    }

    pub async fn poll(&self) -> (u64, Vec<Value>) {
        let polled = answer(self.http.get(format!("{}&token={}", self.url, self.token))).await;
        let texts = polled["messages"].as_array().expect("a list").iter();
        let messages = texts.map(|text| serde_json::from_str(text.as_str().expect("text")));
        let messages = messages.collect::<Result<_, _>>().expect("JSON");
        if polled["status"] != 410 {
            assert_eq!(polled["token"], self.token, "P-LP-3");
        }
        (polled["status"].as_u64().expect("a status"), messages)
    }

    /// Polls until `count` messages are there.
    pub async fn messages(&self, count: usize) -> Vec<Value> {
        let mut all = Vec::new();
        while all.len() < count {
            let (status, messages) = self.poll().await;
            assert!(status == 200 || status == 204, "{status}");
            all.extend(messages);
        }
        all
    }

    pub async fn post(&self, lines: &[String]) -> Value {
        let request = self.http.post(&self.url).header("x-phoenix-longpoll-token", &self.token);
        let request = request.header("content-type", "application/x-ndjson");
        answer(request.body(lines.join("\n"))).await["status"].clone()
    }

    pub async fn join(&self, topic: &str) {
        assert_eq!(self.post(&[json!(["1", "1", topic, "phx_join", {}]).to_string()]).await, 200);
        assert_eq!(self.messages(1).await, [ok("1", "1", topic)]);
    }
}
