//! What a channel asks a backend, what its answer means for the client, and what tells the backend of the
//! channel's end. A backend that does not answer is for its policy.

use std::sync::Arc;

use futures::FutureExt;
use sluice_node_api::webhooks::RuleWebhooks;

use super::Info;
use crate::{
    auth::Identity,
    channel::{Ctx, End, Message, Payload},
    pubsub::Kind,
    relay::{NOT_ALLOWED, Refusal, Rule},
    webhook::{Handling, Seat, Shown, Verdict, Webhook},
};

/// How a client is let in.
#[derive(Default)]
pub(super) struct Welcome {
    /// What it is told, if not what the rule says.
    pub(super) response: Option<Payload>,
    pub(super) goodbye: Option<Goodbye>,
}

/// Tells the backend of a channel's end when it is dropped, which is how every end ends.
pub(super) struct Goodbye {
    webhook: Webhook,
    ctx: Ctx<Info>,
    /// Why, where it is known; else it is what the channel was told.
    reason: Option<&'static str>,
    forgotten: bool,
}

impl Goodbye {
    /// The channel ends so.
    pub(super) fn end(&mut self, end: End) {
        self.reason = Some(word(end));
    }
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        if self.forgotten {
            return;
        }
        let ordered = || self.ctx.ordered().map_or("error", word);
        let shut_down = || self.ctx.plane().shutdown.is_cancelled().then_some("closed");
        let reason = self.reason.or_else(shut_down).unwrap_or_else(ordered);
        self.webhook.tell_leave(&seat(&self.ctx), reason);
    }
}

fn word(end: End) -> &'static str {
    match end {
        End::Left | End::Stopped => "left",
        End::Replaced => "replaced",
        End::Disconnected => "closed",
        End::Crashed => "error",
    }
}

fn seat(ctx: &Ctx<Info>) -> Seat<'_> {
    let socket = ctx.socket();
    let identity = socket.assign::<Arc<Identity>>().map(Arc::as_ref);
    let shown = Shown::new(identity, socket.id.as_deref());
    Seat { socket: shown, topic: ctx.topic(), join: ctx.join() }
}

fn unavailable() -> Refusal {
    Refusal::new("unavailable", "unavailable")
}

/// Lets a client in that the rule's `join` does.
pub(super) async fn join(
    hooks: Option<&RuleWebhooks>,
    payload: &Payload,
    ctx: &Ctx<Info>,
) -> Result<Welcome, Refusal> {
    let Some(hooks) = hooks else { return Ok(Welcome::default()) };
    let Some(webhook) = ctx.plane().webhook.clone() else { return Err(unavailable()) };
    let aborted = || Refusal::new("aborted", "aborted");
    if ctx.withdrawn().now_or_never().is_some() {
        return Err(aborted());
    }
    // A client that goes before the answer may have been let in all the same.
    let reason = hooks.join.then_some("aborted");
    let told = || Goodbye { webhook: webhook.clone(), ctx: ctx.clone(), reason, forgotten: false };
    let mut goodbye = hooks.leave.then(told);
    if !hooks.join {
        return Ok(Welcome { response: None, goodbye });
    }
    let seat = seat(ctx);
    let asked = tokio::select! {
        asked = webhook.ask_join(&seat, payload) => asked,
        () = ctx.withdrawn() => return Err(aborted()),
    };
    let welcome = match asked {
        Ok(Verdict::Allowed(response)) => Ok(response),
        Ok(Verdict::Denied(reason)) => {
            Err(Refusal::new("webhook", reason.unwrap_or_else(|| "unauthorized".to_owned())))
        }
        Err(_) if webhook.lenient() => Ok(None),
        Err(failure) if failure.is_unheard() => Err(unavailable()),
        // It may have heard, and allowed it.
        Err(_) => return Err(unavailable()),
    };
    if let Some(goodbye) = &mut goodbye {
        goodbye.reason = None;
        goodbye.forgotten = welcome.is_err();
    }
    Ok(Welcome { response: welcome?, goodbye })
}

/// What is to be done with an event that the backend is asked about.
pub(super) async fn event(
    rule: &Rule,
    message: &Message,
    kind: Kind,
    ctx: &Ctx<Info>,
) -> Result<Handling, Refusal> {
    let Some(webhook) = &ctx.plane().webhook else { return Err(unavailable()) };
    let Message { event, payload, .. } = message;
    let named = |name: &str| rule.may_be_named(name);
    match webhook.ask_event(&seat(ctx), event, payload, named).await {
        Ok(Verdict::Allowed(handling)) => Ok(handling),
        Ok(Verdict::Denied(reason)) => {
            Err(Refusal::new("webhook", reason.unwrap_or_else(|| NOT_ALLOWED.to_owned())))
        }
        // As if nobody had been asked.
        Err(_) if webhook.lenient() => {
            rule.check(event, kind, payload.bytes()).map(|()| Handling::ruled())
        }
        Err(_) => Err(unavailable()),
    }
}
