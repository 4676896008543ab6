//! The stock node's channel: what it does with a topic whose rule asks for more than the relay does.
//!
//! It keeps nothing of the rules: each join and each event is judged by those that are in force then.
//! An event goes the way that it goes through the relay, and is refused for the same reasons
//! ([`Rule::check`](crate::relay::Rule::check)). What waits for something outside this process belongs
//! into [`StockChannel::join`], `handle_in` and `terminate`, which may take their time: the socket's
//! other channels go on, but while a join settles.

mod backend;
mod presence;

use std::{sync::Arc, time::Instant};

use serde_json::{Map, Value, json};

use crate::{
    auth::Identity,
    channel::{Answer, Channel, Ctx, End, Handled, JoinError, Message, Payload},
    message::UNMATCHED,
    presence::STATE,
    pubsub::Kind,
    relay::{Refusal, Rule},
    webhook::{Handling, Spread},
};
use backend::{Goodbye, Welcome};
use presence::Present;

/// One topic of one socket.
pub(crate) struct StockChannel {
    /// As the rule said when it was joined.
    goodbye: Option<Goodbye>,
}

/// What a channel tells itself.
pub(crate) enum Info {
    /// The join is accepted: the client is present from now on.
    Appear(Present),
}

impl Channel for StockChannel {
    type Info = Info;

    async fn join(payload: Payload, ctx: &Ctx<Info>) -> Result<(Self, Payload), JoinError> {
        let rules = ctx.plane().rules.read().clone();
        let Some(rule) = rules.find(ctx.topic()) else { return Err(refuse(UNMATCHED)) };
        let identity = ctx.socket().assign::<Arc<Identity>>();
        if !rule.admits(identity.map(Arc::as_ref), ctx.topic()) {
            return Err(rejected(ctx, &Refusal::new("unauthorized", "unauthorized")));
        }
        let checked = rule.check_join(kind(&payload), payload.bytes());
        checked.map_err(|refusal| rejected(ctx, &refusal))?;
        let mut present = None;
        if let Some(presence) = rule.presence() {
            let claims = identity.and_then(|identity| identity.claims()).unwrap_or_default();
            let fields = match payload.value() {
                Ok(Value::Object(fields)) => fields,
                Ok(_) => Map::new(),
                Err(_) => {
                    let reason = "payload can't be read: a number too large";
                    return Err(rejected(ctx, &Refusal::new("payload", reason)));
                }
            };
            let params = &ctx.socket().connect.params;
            let listed = Present::new(presence, &claims, params, &fields);
            present = Some(listed.map_err(|refusal| rejected(ctx, &refusal))?);
        }
        let welcome = backend::join(rule.webhooks(), &payload, ctx).await;
        let Welcome { response, goodbye } = welcome.map_err(|refusal| rejected(ctx, &refusal))?;
        if let Some(present) = present {
            ctx.send(Info::Appear(present));
        }
        let ruled = || Payload::json_text(rule.join_response().clone());
        Ok((Self { goodbye }, response.unwrap_or_else(ruled)))
    }

    async fn handle_in(&mut self, message: Message, ctx: &Ctx<Info>) -> Handled {
        let rules = ctx.plane().rules.read().clone();
        let Some(rule) = rules.find(ctx.topic()) else {
            return Ok(Answer::error(json!({ "reason": UNMATCHED })));
        };
        let Message { event, payload, .. } = &message;
        let kind = kind(payload);
        let asked = rule.asks_about(event);
        let pace = |rate| ctx.socket().paces.take(ctx.topic(), rate, Instant::now());
        let checked = rule.check_pace(pace).and_then(|()| match asked {
            true => rule.check_payload(kind, payload.bytes()),
            false => rule.check(event, kind, payload.bytes()),
        });
        let handling = match checked {
            Ok(()) if asked => backend::event(rule, &message, kind, ctx).await,
            checked => checked.map(|()| Handling::ruled()),
        };
        match handling {
            Ok(handling) => carry_out(handling, rule, message, ctx),
            Err(refusal) => {
                ctx.plane().metrics.reject(refusal.word);
                Ok(Answer::error(json!({ "reason": refusal.reason })))
            }
        }
    }

    async fn handle_info(&mut self, info: Info, ctx: &Ctx<Info>) -> Handled {
        match info {
            Info::Appear(Present { key, meta }) => {
                ctx.track(&key, meta)?;
                ctx.push(STATE, ctx.presences())?;
            }
        }
        Ok(Answer::None)
    }

    async fn terminate(&mut self, end: End, _: &Ctx<Info>) {
        if let Some(goodbye) = &mut self.goodbye {
            goodbye.end(end);
        }
    }
}

/// Broadcasts what is to be broadcast for an event, and replies.
fn carry_out(handling: Handling, rule: &Rule, message: Message, ctx: &Ctx<Info>) -> Handled {
    let Message { event, payload, .. } = message;
    let ruled = rule.include_sender();
    let broadcast = match handling.broadcast {
        Spread::Ruled => rule.allows(&event).then_some((event, payload, ruled)),
        Spread::Nothing => None,
        Spread::This { event: other, payload: changed, include_sender } => Some((
            other.unwrap_or(event),
            changed.unwrap_or(payload),
            include_sender.unwrap_or(ruled),
        )),
    };
    match broadcast {
        Some((event, payload, true)) => ctx.broadcast(&event, payload)?,
        Some((event, payload, false)) => ctx.broadcast_from(&event, payload)?,
        None => {}
    }
    // P-BC-5: the broadcast precedes the reply.
    Ok(handling.reply.map_or(Answer::None, |(status, reply)| Answer::Reply(status, reply)))
}

fn kind(payload: &Payload) -> Kind {
    if payload.is_binary() { Kind::Binary } else { Kind::Json }
}

fn refuse(reason: &str) -> JoinError {
    JoinError::refuse(json!({ "reason": reason }))
}

fn rejected(ctx: &Ctx<Info>, refusal: &Refusal) -> JoinError {
    ctx.plane().metrics.reject(refusal.word);
    refuse(&refusal.reason)
}
