//! The channels of the conformance app.

use std::time::Duration;

use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use sluice_node::channel::{
    Answer, Channel, Ctx, End, Handled, JoinError, Message, Payload, PresenceError, ReplyTo, Status,
};

use super::{asked::Asked, told};

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
    /// The join is accepted, which asked for this.
    Joined(Asked),
    /// Reply once more.
    Later { to: ReplyTo, asked: Asked, n: u64 },
}

impl<const KIND: u8> Channel for Room<KIND> {
    type Info = Info;
    const INTERCEPT: &'static [&'static str] = &["new_msg"];

    async fn join(payload: Payload, ctx: &Ctx<Info>) -> Result<(Self, Payload), JoinError> {
        let asked = Asked::of(&payload);
        let with = || Payload::from(asked.raw("with").unwrap_or_else(null));
        let response = match asked.get::<String>("do").as_deref() {
            Some("refuse") => return Err(JoinError::Refused(with())),
            Some("crash") => return Err("asked to crash".into()),
            Some("reply") => with(),
            Some("binary") => Payload::binary(vec![9, 9]),
            Some("slow") => {
                tokio::time::sleep(wait(&asked)).await;
                Payload::empty()
            }
            _ => Payload::empty(),
        };
        ctx.send(Info::Joined(asked));
        Ok((Self, response))
    }

    async fn handle_in(&mut self, message: Message, ctx: &Ctx<Info>) -> Handled {
        let Message { event, payload, reply_to } = message;
        let asked = Asked::of(&payload);
        match event.as_str() {
            "echo" => return Ok(Answer::ok(payload)),
            "fail" => return Ok(Answer::error(payload)),
            "ack" => {}
            "silent" => return Ok(Answer::None),
            "later" => {
                again(ctx, reply_to, asked, 1);
                return Ok(Answer::None);
            }
            "sleep" => {
                tokio::time::sleep(wait(&asked)).await;
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
                let topic: String = asked.get("topic").unwrap_or_default();
                let event: String = asked.get("event").ok_or("no event")?;
                let payload = asked.raw("payload").map_or_else(Payload::empty, Payload::from);
                ctx.publish(&topic.into(), &event, payload)?;
            }
            "track" => {
                return presence(ctx.track(&asked.key()?, asked.meta()?));
            }
            "update" => {
                return presence(ctx.update(&asked.key()?, asked.meta()?));
            }
            "untrack" => ctx.untrack(&asked.key()?),
            "list" => return Ok(Answer::ok(ctx.presences())),
            "boom" => return Err("asked to crash".into()),
            "vanish" => {
                ctx.kill();
                std::future::pending::<()>().await;
            }
            "stop" if asked.get("reply") == Some(true) => {
                return Ok(Answer::StopWith(Status::Ok, json!({"bye": true}).into()));
            }
            "stop" => return Ok(Answer::Stop),
            other => return Err(format!("no event {other:?}").into()),
        }
        Ok(Answer::ok(()))
    }

    async fn handle_out(&mut self, event: &str, payload: Payload, ctx: &Ctx<Info>) -> Handled {
        let transport = to_raw_value(ctx.socket().transport().name())?;
        ctx.push(event, Asked::of(&payload).with("transport", transport)?)?;
        Ok(Answer::None)
    }

    async fn handle_info(&mut self, info: Info, ctx: &Ctx<Info>) -> Handled {
        match info {
            Info::Joined(asked) if KIND == ROOM => {
                let user = asked.raw("user").unwrap_or_else(null);
                ctx.broadcast("user_entered", Asked::default().with("user", user)?)?;
                ctx.push("joined", json!({"status": "connected"}))?;
            }
            Info::Joined(asked) if KIND == PRESENCE => {
                if asked.raw("key").is_some() {
                    ctx.track(&asked.key()?, asked.meta()?)?;
                }
                ctx.push("presence_state", ctx.presences())?;
            }
            Info::Joined(_) => {}
            Info::Later { to, asked, n } => {
                ctx.reply(&to, Status::Ok, asked.clone().with("n", to_raw_value(&n)?)?);
                again(ctx, to, asked, n + 1);
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

/// Has the `n`th reply come in its time, if so many are asked for.
fn again(ctx: &Ctx<Info>, to: ReplyTo, asked: Asked, n: u64) {
    if n <= asked.get("times").unwrap_or(1) {
        ctx.send_after(wait(&asked), Info::Later { to, asked, n });
    }
}

fn presence(tracked: Result<String, PresenceError>) -> Handled {
    Ok(match tracked {
        Ok(reference) => Answer::ok(json!({ "phx_ref": reference })),
        Err(_) => Answer::error(json!({"reason": "presence"})),
    })
}

fn wait(asked: &Asked) -> Duration {
    Duration::from_millis(asked.get("ms").unwrap_or(0))
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}
