//! The two encodings of channel messages: V1 (a JSON object) and V2 (a JSON array, or bytes for a
//! binary payload).
//!
//! Nothing here knows a socket or what a message means.

use std::borrow::Cow;

use serde::{
    Deserialize,
    de::{Deserializer, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    message::{Body, Incoming, Outgoing, Payload, Ref, Status},
    pubsub::{Broadcast, Kind},
    readable::is_readable,
};

#[cfg(test)]
mod tests;

/// The serializer of a socket, fixed when it connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// `vsn` 1.0.x: objects.
    #[default]
    V1,
    /// `vsn` 2.0.x: arrays.
    V2,
}

/// A message that cannot be decoded; it ends the connection (`P-ERR-4`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a channel message")]
pub struct Undecodable;

/// Why a message has no form in a version of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// V1 has no binary encoding (`P-V1-3`).
    #[error("V1 has no binary encoding")]
    BinaryInV1,
    /// A field over 255 bytes, with a binary payload (`P-BIN-5`).
    #[error("the fields of a binary message have at most 255 bytes")]
    TooLong,
}

impl Unfit {
    /// The metric label.
    pub fn reason(self) -> &'static str {
        match self {
            Self::BinaryInV1 => "binary_v1",
            Self::TooLong => "too_long",
        }
    }
}

impl Version {
    /// By the `vsn` parameter: a full version of three numbers; without one V1 (`P-CON-2`). `None`
    /// for any other.
    pub fn from_vsn(vsn: Option<&str>) -> Option<Self> {
        let Some(vsn) = vsn else { return Some(Self::V1) };
        let number = |part: &str| {
            let plain = !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
            plain && (part == "0" || !part.starts_with('0'))
        };
        let (major, patch) = vsn.split_once(".0.")?;
        match major {
            "1" if number(patch) => Some(Self::V1),
            "2" if number(patch) => Some(Self::V2),
            _ => None,
        }
    }

    /// Decodes a text message.
    ///
    /// # Errors
    ///
    /// For anything that is no message of this version (`P-V1-1`, `P-V2-1`), for JSON that no Phoenix
    /// reads, be it in what is ignored, and for a reference over [`MAX_FIELD`](crate::message::MAX_FIELD) bytes.
    pub fn decode(self, text: &str) -> Result<Incoming<'_>, Undecodable> {
        let fields: Fields<'_> = match self {
            // A derived struct would be read from an array as well.
            Self::V1 if !text.trim_start().starts_with('{') => return Err(Undecodable),
            Self::V1 => serde_json::from_str::<Object<'_>>(text).map_err(|_| Undecodable)?.into(),
            Self::V2 => serde_json::from_str::<Array<'_>>(text).map_err(|_| Undecodable)?.0,
        };
        if !is_readable(text) {
            return Err(Undecodable);
        }
        Ok(Incoming {
            join_ref: fields.join_ref.map_or(Some(Ref::NULL), reference).ok_or(Undecodable)?,
            reference: reference(fields.reference).ok_or(Undecodable)?,
            topic: string(fields.topic).ok_or(Undecodable)?,
            event: string(fields.event).ok_or(Undecodable)?,
            payload: Payload::Json(fields.payload.get()),
        })
    }

    /// Decodes a binary message: V1 ignores the opcode (`P-V1-3`), V2 has a form of its own
    /// (`P-BIN-1`).
    ///
    /// # Errors
    ///
    /// As [`Version::decode`], and for a kind other than 0 (`P-BIN-7`).
    pub fn decode_binary(self, bytes: &[u8]) -> Result<Incoming<'_>, Undecodable> {
        match self {
            Self::V1 => self.decode(simdutf8::basic::from_utf8(bytes).map_err(|_| Undecodable)?),
            Self::V2 => binary(bytes).ok_or(Undecodable),
        }
    }

    /// Encodes a message to one client; says whether that is text or binary.
    ///
    /// # Errors
    ///
    /// [`Unfit`], with nothing written.
    pub fn encode(self, message: &Outgoing, out: &mut Vec<u8>) -> Result<Kind, Unfit> {
        let (event, payload) = match &message.body {
            Body::Event(_, Kind::Binary, bytes) | Body::Reply(_, Kind::Binary, bytes) => {
                return self.encode_binary(message, bytes, out).map(|()| Kind::Binary);
            }
            Body::Event(event, _, payload) => (event.as_ref(), Cow::Borrowed(payload.as_ref())),
            Body::Reply(status, _, response) => {
                let status: &[u8] = match status {
                    Status::Ok => br#"{"status":"ok","response":"#,
                    Status::Error => br#"{"status":"error","response":"#,
                };
                ("phx_reply", Cow::Owned([status, response, b"}"].concat()))
            }
        };
        let (join_ref, reference) = (message.join_ref.as_json(), message.reference.as_json());
        self.write(join_ref, reference, &message.topic, event, &payload, out);
        Ok(Kind::Json)
    }

    /// A push (`P-BIN-2`) or a reply (`P-BIN-3`) with bytes.
    fn encode_binary(
        self,
        message: &Outgoing,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Unfit> {
        if self == Self::V1 {
            return Err(Unfit::BinaryInV1);
        }
        let (join_ref, reference) = (message.join_ref.to_text(), message.reference.to_text());
        let topic = message.topic.as_ref();
        let (kind, fields) = match &message.body {
            Body::Event(event, ..) => (0, vec![&*join_ref, topic, event]),
            Body::Reply(status, ..) => (1, vec![&*join_ref, &*reference, topic, status.name()]),
        };
        let mut head = vec![kind];
        for field in &fields {
            head.push(u8::try_from(field.len()).map_err(|_| Unfit::TooLong)?);
        }
        out.reserve(head.len() + fields.iter().map(|f| f.len()).sum::<usize>() + payload.len());
        out.append(&mut head);
        fields.iter().for_each(|field| out.extend_from_slice(field.as_bytes()));
        out.extend_from_slice(payload);
        Ok(())
    }

    /// Encodes a broadcast, the same bytes for every subscriber (`P-BC-1`, `P-BC-3`): a text
    /// message for JSON, a binary one for binary (`P-BIN-4`).
    ///
    /// # Errors
    ///
    /// [`Unfit`], with nothing written.
    pub fn encode_broadcast(self, broadcast: &Broadcast, out: &mut Vec<u8>) -> Result<(), Unfit> {
        let Broadcast { topic, event, kind, payload } = broadcast;
        match (kind, self) {
            (Kind::Json, _) => self.write("null", "null", topic, event, payload, out),
            (Kind::Binary, Self::V1) => return Err(Unfit::BinaryInV1),
            (Kind::Binary, Self::V2) => {
                let len = |text: &str| u8::try_from(text.len()).map_err(|_| Unfit::TooLong);
                let head = [2, len(topic)?, len(event)?];
                out.reserve(head.len() + topic.len() + event.len() + payload.len());
                for part in [&head, topic.as_bytes(), event.as_bytes(), payload] {
                    out.extend_from_slice(part);
                }
            }
        }
        Ok(())
    }

    fn write(
        self,
        join_ref: &str,
        reference: &str,
        topic: &str,
        event: &str,
        payload: &[u8],
        out: &mut Vec<u8>,
    ) {
        out.reserve(payload.len() + topic.len() + event.len() + 64);
        let parts: [&[u8]; 4] = match self {
            Self::V1 => [br#"{"topic":"#, br#","event":"#, br#","payload":"#, br#","ref":"#],
            Self::V2 => {
                out.push(b'[');
                out.extend_from_slice(join_ref.as_bytes());
                out.push(b',');
                out.extend_from_slice(reference.as_bytes());
                [b",", b",", b",", b"]"]
            }
        };
        out.extend_from_slice(parts[0]);
        quote(topic, out);
        out.extend_from_slice(parts[1]);
        quote(event, out);
        out.extend_from_slice(parts[2]);
        out.extend_from_slice(payload);
        out.extend_from_slice(parts[3]);
        if self == Self::V1 {
            out.extend_from_slice(reference.as_bytes());
            out.push(b'}');
        }
    }
}

/// Appends `text` as a JSON string.
fn quote(text: &str, out: &mut Vec<u8>) {
    // Writing a str into a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

fn reference(raw: &RawValue) -> Option<Ref> {
    Ref::from_json(raw.get())
}

/// A JSON string; borrowed unless it has escapes.
fn string(raw: &RawValue) -> Option<Cow<'_, str>> {
    let inner = raw.get().strip_prefix('"')?.strip_suffix('"')?;
    if inner.contains('\\') {
        return serde_json::from_str(raw.get()).ok().map(Cow::Owned);
    }
    Some(Cow::Borrowed(inner))
}

/// Kind 0: lengths of join_ref, ref, topic and event, one byte each, then these, then the payload.
/// A length of 0 is an empty string, not null (`P-BIN-6`).
fn binary(bytes: &[u8]) -> Option<Incoming<'_>> {
    let [0, join_ref, reference, topic, event, ref rest @ ..] = *bytes else { return None };
    let mut rest = rest;
    let mut field = |len: u8| {
        let (field, after) = rest.split_at_checked(usize::from(len))?;
        rest = after;
        simdutf8::basic::from_utf8(field).ok()
    };
    let (join_ref, reference) = (field(join_ref)?, field(reference)?);
    let (topic, event) = (field(topic)?, field(event)?);
    Some(Incoming {
        join_ref: Ref::from_text(join_ref)?,
        reference: Ref::from_text(reference)?,
        topic: Cow::Borrowed(topic),
        event: Cow::Borrowed(event),
        payload: Payload::Binary(rest),
    })
}

struct Fields<'a> {
    join_ref: Option<&'a RawValue>,
    reference: &'a RawValue,
    topic: &'a RawValue,
    event: &'a RawValue,
    payload: &'a RawValue,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    join_ref: Option<&'a RawValue>,
    #[serde(borrow, rename = "ref")]
    reference: &'a RawValue,
    #[serde(borrow)]
    topic: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
}

impl<'a> From<Object<'a>> for Fields<'a> {
    fn from(object: Object<'a>) -> Self {
        let Object { join_ref, reference, topic, event, payload } = object;
        Self { join_ref, reference, topic, event, payload }
    }
}

struct Array<'a>(Fields<'a>);

impl<'de> Deserialize<'de> for Array<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ArrayVisitor)
    }
}

struct ArrayVisitor;

impl<'de> Visitor<'de> for ArrayVisitor {
    type Value = Array<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[join_ref, ref, topic, event, payload]")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut next = |index| {
            seq.next_element::<&'de RawValue>()?
                .ok_or_else(|| serde::de::Error::invalid_length(index, &"five elements"))
        };
        let fields = Fields {
            join_ref: Some(next(0)?),
            reference: next(1)?,
            topic: next(2)?,
            event: next(3)?,
            payload: next(4)?,
        };
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Array(fields))
    }
}
