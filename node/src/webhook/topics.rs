//! What the backend is asked about, and told, of the topics of the stock node. Who asks decides what an
//! answer means for its client: `stock`.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use serde_json::value::RawValue;

use super::{
    Webhook,
    answer::{self, Handling, Verdict},
    call::{Event, Failure, Said},
};
use crate::{auth::Identity, channel::Payload};

/// A socket as the backend is told of it.
#[derive(Serialize)]
pub(crate) struct Shown<'a> {
    #[serde(rename = "ref")]
    reference: String,
    id: Option<&'a str>,
    claims: Option<&'a RawValue>,
}

impl<'a> Shown<'a> {
    /// A socket of this id, if it has one.
    pub(crate) fn new(identity: Option<&'a Identity>, id: Option<&'a str>) -> Self {
        let reference = identity.map_or(0, Identity::reference);
        let claims = identity.and_then(Identity::claims_text);
        Self { reference: format!("{reference:032x}"), id, claims }
    }
}

/// A channel as the backend is told of it.
#[derive(Serialize)]
pub(crate) struct Seat<'a> {
    pub(crate) socket: Shown<'a>,
    pub(crate) topic: &'a str,
    /// The same in all calls about one join, and of two joins of a socket the later has the larger.
    pub(crate) join: u64,
}

/// What a client has sent.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent<'a> {
    #[serde(flatten)]
    seat: &'a Seat<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload_base64: Option<String>,
}

impl<'a> Sent<'a> {
    fn new(seat: &'a Seat<'a>, event: Option<&'a str>, payload: &'a Payload) -> Self {
        let bytes = payload.bytes();
        let (payload, payload_base64) = match payload.is_binary() {
            true => (None, Some(STANDARD.encode(bytes))),
            // JSON that the node has relayed without reading it goes on as it came.
            false => (serde_json::from_slice(bytes).ok(), None),
        };
        Self { seat, event, payload, payload_base64 }
    }
}

#[derive(Serialize)]
struct Gone<'a> {
    #[serde(flatten)]
    seat: &'a Seat<'a>,
    reason: &'static str,
}

impl Webhook {
    /// Asks about a join; what the client is told, if not what the rule says.
    pub(crate) async fn ask_join(
        &self,
        seat: &Seat<'_>,
        payload: &Payload,
    ) -> Result<Verdict<Option<Payload>>, Failure> {
        let letter = self.letter(Event::Join, &Sent::new(seat, None, payload));
        self.ask(letter, payload.bytes().len(), answer::join).await
    }

    /// Asks about an event; `may_be_named` tells what another may be called.
    pub(crate) async fn ask_event(
        &self,
        seat: &Seat<'_>,
        event: &str,
        payload: &Payload,
        may_be_named: impl Fn(&str) -> bool,
    ) -> Result<Verdict<Handling>, Failure> {
        let letter = self.letter(Event::Event, &Sent::new(seat, Some(event), payload));
        let read = |said: &Said| answer::event(said, &may_be_named);
        self.ask(letter, payload.bytes().len(), read).await
    }

    /// Tells of the end of a channel.
    pub(crate) fn tell_leave(&self, seat: &Seat<'_>, reason: &'static str) {
        self.tell(Event::Leave, &Gone { seat, reason });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_a_client_sent_is_shown_as_it_came_and_bytes_in_base64() {
        let claims = json!({"sub": "anna"});
        let identity = Identity::known(claims.as_object(), 7);
        let socket = Shown::new(Some(&identity), Some("users:anna"));
        let seat = Seat { socket, topic: "room:1", join: 2 };
        let text = |event, payload: Payload| {
            serde_json::to_string(&Sent::new(&seat, event, &payload)).unwrap()
        };
        let (open, close) = ("[".repeat(200), "]".repeat(200));
        let deep = format!("{{\"a\":{open}1.0{close}}}");
        let shown = text(None, Payload::json_text(deep.clone().into()));
        assert!(shown.ends_with(&format!("\"payload\":{deep}}}")), "{shown}");
        let shown: Value =
            serde_json::from_str(&text(Some("x"), Payload::binary(vec![0, 255]))).unwrap();
        let reference = format!("{:032x}", 7);
        let socket = json!({"ref": reference, "id": "users:anna", "claims": {"sub": "anna"}});
        assert_eq!(
            shown,
            json!({"socket": socket, "topic": "room:1", "join": 2, "event": "x",
                "payloadBase64": "AP8="})
        );
    }
}
