//! Who may connect to a node with a backend: whom the token lets in, and the backend too. A socket
//! that it was asked about, or is to be told of, is followed to its end, and keeps the reference by which
//! the backend knows it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{
    Shown, Verdict, Webhook,
    answer::{Admission, admission},
    call::Event,
    held,
};
use crate::auth::{Bearer, Identity};
use crate::channel::{Accept, Connect, Refused, UserSocket, farewell::Farewell};

/// The connect callback of a node with webhooks.
#[derive(Clone)]
pub struct Door {
    webhook: Webhook,
    bearer: Option<Bearer>,
}

impl Door {
    /// Lets in whom `bearer` and the backend of `webhook` let in.
    pub fn new(webhook: Webhook, bearer: Option<Bearer>) -> Self {
        Self { webhook, bearer }
    }

    /// What the backend is shown of a client. A token that the node has verified is not: its claims
    /// are.
    fn shown(&self, connect: &Connect) -> Map<String, Value> {
        let mut params = connect.params.clone();
        let mut data = Map::new();
        match &self.bearer {
            Some(bearer) => drop(params.remove(bearer.param())),
            None => drop(data.insert("authToken".into(), connect.auth_token.clone().into())),
        }
        let mut headers = Map::new();
        for name in &self.webhook.0.settings.headers {
            let values = connect.headers.get_all(name.as_str()).into_iter();
            let values: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
            if !values.is_empty() {
                headers.insert(name.to_ascii_lowercase(), values.join(", ").into());
            }
        }
        data.insert("params".into(), params.into());
        data.insert("headers".into(), headers.into());
        data.insert("origin".into(), connect.origin().into());
        data.insert("peer".into(), connect.peer.to_string().into());
        data.insert("transport".into(), connect.transport.name().into());
        data
    }
}

/// A socket as the backend is told of it.
fn shown(identity: &Identity, id: Option<&str>) -> Value {
    serde_json::to_value(Shown::new(Some(identity), id)).unwrap_or_default()
}

impl Door {
    /// What tells the backend of the socket's end; nothing is told where it is not to be.
    fn farewell(&self, shown: Value) -> impl FnOnce(u16) + Send + use<> {
        let (webhook, since) = (self.webhook.clone(), Instant::now());
        move |code| {
            if webhook.0.settings.disconnect {
                let seconds = since.elapsed().as_secs_f64();
                let data = json!({ "socket": shown, "code": code, "seconds": seconds });
                webhook.tell(Event::Disconnect, &data);
            }
        }
    }

    /// Asks the backend about a client of which `socket` is known.
    async fn admission(&self, connect: &Connect, socket: Value) -> Result<Admission, Refused> {
        let held = held::of_connect(connect, &socket);
        let letter = {
            let mut data = self.shown(connect);
            data.insert("socket".into(), socket.clone());
            self.webhook.letter(Event::Connect, &data)
        };
        // A client that goes before the answer may have been let in all the same.
        let gone = Farewell::new(self.farewell(socket));
        match self.webhook.ask(letter, held, admission).await {
            Ok(Verdict::Allowed(admission)) => {
                gone.forget();
                Ok(admission)
            }
            Ok(Verdict::Denied(_)) => {
                gone.forget();
                Err(Refused::because("denied"))
            }
            Err(_) if self.webhook.lenient() => {
                gone.forget();
                Ok(Admission::default())
            }
            Err(failure) => {
                if failure.is_unheard() {
                    gone.forget();
                }
                Err(Refused::because("webhook unavailable"))
            }
        }
    }
}

impl UserSocket for Door {
    async fn connect(&self, connect: &Connect) -> Result<Accept, Refused> {
        let mut accept = match &self.bearer {
            Some(bearer) => bearer.connect(connect).await?,
            None => Accept::new(),
        };
        let known = accept.assigns.get::<Arc<Identity>>();
        let mut claims = known.and_then(|identity| identity.claims());
        let reference = rand::random::<u128>();
        if self.webhook.0.settings.connect {
            let socket = shown(&Identity::known(claims.as_ref(), reference), accept.id.as_deref());
            let Admission { id, claims: more, expires_in_seconds } =
                self.admission(connect, socket).await?;
            if !more.is_empty() {
                claims.get_or_insert_default().extend(more);
            }
            if let Some(id) = id {
                accept = accept.id(id);
            }
            // A time that the clock can't hold is never.
            let left = expires_in_seconds.and_then(|s| Duration::try_from_secs_f64(s).ok());
            if let Some(at) = left.and_then(|left| Instant::now().checked_add(left)) {
                let at = accept.until.map_or(at, |until| until.min(at));
                accept = accept.until(at);
            }
        }
        let identity = Identity::known(claims.as_ref(), reference);
        if self.webhook.0.settings.disconnect {
            let shown = shown(&identity, accept.id.as_deref());
            accept = accept.on_end(self.farewell(shown));
        }
        Ok(accept.assign(Arc::new(identity)))
    }
}
