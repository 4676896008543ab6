//! `phoenix_channels_client` as a client of the matrix: joins, joins again when its connection was lost, pushes what it
//! is told.
//!
//! Usage: `matrix-client URL TOPIC EVENT`. Payloads to push come as JSON lines on stdin; what happened goes as JSON lines
//! to stdout (see `clients.mjs`).

use std::time::Duration;

use phoenix_channels_client::{Channel, Client, Config, Payload, SendError};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

type Failure = Box<dyn std::error::Error>;

const LIMIT: Option<Duration> = Some(Duration::from_secs(5));
/// The crate tells nobody that its connection was lost: whoever wants to know has to ask.
const LOOK: Duration = Duration::from_millis(200);

fn value(payload: &Payload) -> Value {
    match payload {
        Payload::Value(value) => value.clone(),
        Payload::Binary(bytes) => json!({ "bytes": bytes.len() }),
    }
}

async fn push(channel: &Channel, event: &str, line: &str) -> Result<bool, Failure> {
    let payload: Value = serde_json::from_str(line)?;
    let (status, response) = match channel.send_with_timeout(event, payload, LIMIT).await {
        Ok(response) => ("ok", value(&response)),
        Err(SendError::Reply(response)) => ("error", value(&response)),
        Err(_) => return Ok(false),
    };
    println!("{}", json!({ "did": "reply", "status": status, "response": response }));
    Ok(true)
}

/// One connection, until it is lost; `false` when there is nothing more to do.
async fn stay(
    (url, topic, event): (&str, &str, &str),
    lines: &mut Lines<BufReader<Stdin>>,
) -> Result<bool, Failure> {
    let mut client = Client::new(Config::new(url)?)?;
    client.connect().await?;
    let channel = client.join(topic, LIMIT).await?;
    let heard =
        |_, payload: &Payload| println!("{}", json!({ "did": "hear", "payload": value(payload) }));
    channel.on(event, heard).await?;
    println!("{}", json!({ "did": "join" }));
    loop {
        tokio::select! {
            line = lines.next_line() => match line? {
                Some(line) => if !push(&channel, event, &line).await? { break },
                None => return Ok(false),
            },
            () = tokio::time::sleep(LOOK) => if channel.is_closing() { break },
        }
    }
    println!("{}", json!({ "did": "close" }));
    Ok(true)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, topic, event] = arguments.as_slice() else {
        return Err("usage: URL TOPIC EVENT".into());
    };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        match stay((url, topic, event), &mut lines).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
