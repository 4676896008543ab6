//! The stock node's channel: what it does with a topic whose rule asks for more than the relay does.
//!
//! It keeps nothing of the rules: each join and each event is judged by those that are in force then.
//! An event goes the way that it goes through the relay, and is refused for the same reasons
//! ([`Rule::check`](crate::relay::Rule::check)). What waits for something outside this process belongs
//! into [`StockChannel::join`], `handle_in` and `terminate`, which may take their time: the socket's
//! other channels go on, but while a join settles.

mod presence;

use std::{sync::Arc, time::Instant};

use serde_json::{Map, Value, json};

use crate::{
    auth::Identity,
    channel::{Answer, Channel, Ctx, Handled, JoinError, Message, Payload},
    message::UNMATCHED,
    pace::Pace,
    presence::STATE,
    pubsub::Kind,
    relay::Refusal,
};
use presence::Present;

/// One topic of one socket.
pub(crate) struct StockChannel {
    pace: Option<Box<Pace>>,
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
        if let Some(presence) = rule.presence() {
            let claims = identity.map(|identity| identity.claims()).unwrap_or_default();
            let fields = match payload.value() {
                Ok(Value::Object(fields)) => fields,
                Ok(_) => Map::new(),
                Err(_) => {
                    let reason = "payload can't be read: too deep, a number too large, or half a surrogate pair";
                    return Err(rejected(ctx, &Refusal::new("payload", reason)));
                }
            };
            let params = &ctx.socket().connect.params;
            let present = Present::new(presence, &claims, params, &fields);
            ctx.send(Info::Appear(present.map_err(|refusal| rejected(ctx, &refusal))?));
        }
        Ok((Self { pace: None }, Payload::json_text(rule.join_response().clone())))
    }

    async fn handle_in(&mut self, message: Message, ctx: &Ctx<Info>) -> Handled {
        let Message { event, payload, .. } = message;
        let rules = ctx.plane().rules.read().clone();
        let Some(rule) = rules.find(ctx.topic()) else {
            return Ok(Answer::error(json!({ "reason": UNMATCHED })));
        };
        let kind = if payload.is_binary() { Kind::Binary } else { Kind::Json };
        let in_pace = rule.check_pace(&mut self.pace, Instant::now());
        if let Err(refusal) = in_pace.and_then(|()| rule.check(&event, kind, payload.bytes())) {
            ctx.plane().metrics.reject(refusal.word);
            return Ok(Answer::error(json!({ "reason": refusal.reason })));
        }
        match rule.include_sender() {
            true => ctx.broadcast(&event, payload)?,
            false => ctx.broadcast_from(&event, payload)?,
        }
        // P-BC-5: the broadcast precedes the reply.
        Ok(Answer::ok(()))
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
}

fn refuse(reason: &str) -> JoinError {
    JoinError::refuse(json!({ "reason": reason }))
}

fn rejected(ctx: &Ctx<Info>, refusal: &Refusal) -> JoinError {
    ctx.plane().metrics.reject(refusal.word);
    refuse(&refusal.reason)
}
