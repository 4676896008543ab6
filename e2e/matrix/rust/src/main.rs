//! `phoenix_channels_client` as a client of the matrix: joins, joins again when its connection was lost, does what it is
//! told.
//!
//! Usage: `matrix-client URL TOPIC USER`. What to do comes as JSON lines on stdin; what happened goes as JSON lines to
//! stdout (see `program.mjs`).

use std::sync::Arc;
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

/// Joins. What comes before the handlers are there, as the state of presence does, the crate drops.
async fn join(client: &Client, topic: &str) -> Result<Arc<Channel>, Failure> {
    let channel = client.join(topic, LIMIT).await?;
    let heard =
        |_, payload: &Payload| println!("{}", json!({ "did": "hear", "payload": value(payload) }));
    channel.on("msg", heard).await?;
    let changed = |_, payload: &Payload| {
        let diff = json!({ "did": "event", "event": "presence_diff", "payload": value(payload) });
        println!("{diff}");
    };
    channel.on("presence_diff", changed).await?;
    println!("{}", json!({ "did": "join" }));
    Ok(channel)
}

async fn push(channel: &Channel, told: &Value) -> Result<bool, Failure> {
    let event = told["event"].as_str().ok_or("no event")?;
    let sent = channel.send_with_timeout(event, told["payload"].clone(), LIMIT).await;
    let (status, response) = match sent {
        Ok(response) => ("ok", value(&response)),
        Err(SendError::Reply(response)) => ("error", value(&response)),
        Err(_) => return Ok(false),
    };
    println!("{}", json!({ "did": "reply", "status": status, "response": response }));
    Ok(true)
}

/// One connection, until it is lost; `false` when there is nothing more to do.
async fn stay(
    (url, topic, user): (&str, &str, &str),
    lines: &mut Lines<BufReader<Stdin>>,
) -> Result<bool, Failure> {
    let mut config = Config::new(url)?;
    config.set("user", user);
    let mut client = Client::new(config)?;
    client.connect().await?;
    let mut joined = Some(join(&client, topic).await?);
    loop {
        tokio::select! {
            line = lines.next_line() => {
                let Some(line) = line? else { return Ok(false) };
                let told: Value = serde_json::from_str(&line)?;
                match (told["do"].as_str(), &joined) {
                    (Some("push"), Some(channel)) => if !push(channel, &told).await? { break },
                    (Some("leave"), Some(channel)) => {
                        channel.leave().await;
                        joined = None;
                        println!("{}", json!({ "did": "left" }));
                    }
                    (Some("join"), None) => joined = Some(join(&client, topic).await?),
                    _ => return Err(format!("not now: {line}").into()),
                }
            },
            () = tokio::time::sleep(LOOK) => {
                if joined.as_ref().is_some_and(|channel| channel.is_closing()) { break }
            },
        }
    }
    println!("{}", json!({ "did": "close" }));
    Ok(true)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, topic, user] = arguments.as_slice() else {
        return Err("usage: URL TOPIC USER".into());
    };
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        match stay((url, topic, user), &mut lines).await {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}
