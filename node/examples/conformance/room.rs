//! The channels of the conformance app.

use std::time::Duration;

use serde_json::{Map, Value, json};
use sluice_node::channel::{
    Answer, Channel, Crash, Ctx, End, Handled, JoinError, Message, Payload, PresenceError, ReplyTo,
    Status,
};

use super::{told, topic};

/// `room:*`.
pub const ROOM: u8 = 0;
/// `quiet:*`: nothing is said after the join and at the end.
pub const QUIET: u8 = 1;
/// `presence:*`.
pub const PRESENCE: u8 = 2;

/// A topic that only says by which route it was reached.
pub struct Route<const WHICH: usize>;

impl<const WHICH: usize> Channel for Route<WHICH> {
    type Info = ();

    async fn join(_: Payload, _: &Ctx) -> Result<(Self, Payload), JoinError> {
        let route = ["exact", "room:first", "room:late:*"][WHICH];
        Ok((Self, json!({ "route": route }).into()))
    }
}

/// The room channel.
pub struct Room<const KIND: u8>;

/// What a room tells itself.
pub enum Info {
    /// The join with this payload is accepted.
    Joined(Value),
    /// Reply once more.
    Later { to: ReplyTo, payload: Value, n: u64 },
}

impl<const KIND: u8> Channel for Room<KIND> {
    type Info = Info;
    const INTERCEPT: &'static [&'static str] = &["new_msg"];

    async fn join(payload: Payload, ctx: &Ctx<Info>) -> Result<(Self, Payload), JoinError> {
        let asked = payload.value()?;
        let with = || Payload::from(asked["with"].clone());
        let response = match asked["do"].as_str() {
            Some("refuse") => return Err(JoinError::Refused(with())),
            Some("crash") => return Err("asked to crash".into()),
            Some("reply") => with(),
            Some("binary") => Payload::binary(vec![9, 9]),
            Some("slow") => {
                tokio::time::sleep(millis(&asked["ms"])).await;
                Payload::empty()
            }
            _ => Payload::empty(),
        };
        ctx.send(Info::Joined(asked));
        Ok((Self, response))
    }

    async fn handle_in(&mut self, message: Message, ctx: &Ctx<Info>) -> Handled {
        let Message { event, payload, reply_to } = message;
        let asked = payload.value()?;
        match event.as_str() {
            "echo" => return Ok(Answer::ok(payload)),
            "fail" => return Ok(Answer::error(payload)),
            "ack" => {}
            "silent" => return Ok(Answer::None),
            "later" => {
                let later = Info::Later { to: reply_to, payload: asked.clone(), n: 1 };
                ctx.send_after(millis(&asked["ms"]), later);
                return Ok(Answer::None);
            }
            "sleep" => {
                tokio::time::sleep(millis(&asked["ms"])).await;
                return Ok(Answer::ok(payload));
            }
            "info" => return Ok(Answer::ok(told(&ctx.socket().connect))),
            "push_me" => {
                ctx.push("pushed", payload)?;
                return Ok(Answer::None);
            }
            "binary_event" => {
                ctx.push("binary_event", Payload::binary(vec![0, 1]))?;
                return Ok(Answer::ok(Payload::binary([payload.bytes(), &[3, 4][..]].concat())));
            }
            "new_msg" => ctx.broadcast("new_msg", payload)?,
            "broadcast" => ctx.broadcast("shout", payload)?,
            "broadcast_from" => ctx.broadcast_from("shout", payload)?,
            "broadcast_local" => ctx.broadcast_local("shout", payload)?,
            "publish" => {
                let event = asked["event"].as_str().ok_or("no event")?;
                let payload = asked.get("payload").cloned().unwrap_or_else(|| json!({}));
                ctx.publish(&topic(&asked), event, payload)?;
            }
            "track" => {
                return presence(ctx.track(&key(&asked)?, meta(&asked)?));
            }
            "update" => {
                return presence(ctx.update(&key(&asked)?, meta(&asked)?));
            }
            "untrack" => ctx.untrack(&key(&asked)?),
            "list" => return Ok(Answer::ok(ctx.presences())),
            "boom" => return Err("asked to crash".into()),
            "vanish" => {
                ctx.kill();
                std::future::pending::<()>().await;
            }
            "stop" if asked["reply"] == true => {
                return Ok(Answer::StopWith(Status::Ok, json!({"bye": true}).into()));
            }
            "stop" => return Ok(Answer::Stop),
            other => return Err(format!("no event {other:?}").into()),
        }
        Ok(Answer::ok(()))
    }

    async fn handle_out(&mut self, event: &str, payload: Payload, ctx: &Ctx<Info>) -> Handled {
        let mut said = payload.value()?;
        said["transport"] = ctx.socket().transport().name().into();
        ctx.push(event, said)?;
        Ok(Answer::None)
    }

    async fn handle_info(&mut self, info: Info, ctx: &Ctx<Info>) -> Handled {
        match info {
            Info::Joined(asked) if KIND == ROOM => {
                ctx.broadcast("user_entered", json!({ "user": asked["user"] }))?;
                ctx.push("joined", json!({"status": "connected"}))?;
            }
            Info::Joined(asked) if KIND == PRESENCE => {
                if asked.get("key").is_some() {
                    ctx.track(&key(&asked)?, meta(&asked)?)?;
                }
                ctx.push("presence_state", ctx.presences())?;
            }
            Info::Joined(_) => {}
            Info::Later { to, payload, n } => {
                let mut said = payload.clone();
                said["n"] = n.into();
                ctx.reply(&to, Status::Ok, said);
                if n < payload["times"].as_u64().unwrap_or(1) {
                    let later = Info::Later { to, n: n + 1, payload: payload.clone() };
                    ctx.send_after(millis(&payload["ms"]), later);
                }
            }
        }
        Ok(Answer::None)
    }

    async fn terminate(&mut self, end: End, ctx: &Ctx<Info>) {
        if KIND == ROOM && matches!(end, End::Left | End::Stopped) {
            // It fails for a socket that is gone only, where nobody misses it.
            let _ = ctx.push("you_left", json!({"message": "bye!"}));
        }
    }
}

/// A presence key: a string, or a number as one.
fn key(asked: &Value) -> Result<String, Crash> {
    match &asked["key"] {
        Value::String(key) => Ok(key.clone()),
        Value::Number(key) => Ok(key.to_string()),
        _ => Err("no key".into()),
    }
}

fn meta(asked: &Value) -> Result<Map<String, Value>, Crash> {
    match &asked["meta"] {
        Value::Null => Ok(Map::new()),
        Value::Object(meta) => Ok(meta.clone()),
        _ => Err("the meta is no object".into()),
    }
}

fn presence(tracked: Result<String, PresenceError>) -> Handled {
    Ok(match tracked {
        Ok(reference) => Answer::ok(json!({ "phx_ref": reference })),
        Err(_) => Answer::error(json!({"reason": "presence"})),
    })
}

fn millis(value: &Value) -> Duration {
    Duration::from_millis(value.as_u64().unwrap_or(0))
}
