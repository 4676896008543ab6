//! What travels with an event: JSON that stays encoded, or bytes. Never inspected unless asked.

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::{Value, value::RawValue};

use crate::{message, pubsub::Kind};

/// The payload of an event or of a reply; cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    kind: Kind,
    bytes: Bytes,
}

impl Payload {
    /// Bytes (`P-BIN-1`); clients of V1 can't take them.
    pub fn binary(bytes: impl Into<Bytes>) -> Self {
        Self { kind: Kind::Binary, bytes: bytes.into() }
    }

    /// The empty object.
    pub fn empty() -> Self {
        Self { kind: Kind::Json, bytes: Bytes::from_static(b"{}") }
    }

    /// Whether it is bytes.
    pub fn is_binary(&self) -> bool {
        self.kind == Kind::Binary
    }

    /// Whether an event may carry it: a JSON object, or bytes (`P-V2-3`). Replies may carry any.
    pub fn is_event(&self) -> bool {
        self.is_binary() || self.bytes.trim_ascii_start().starts_with(b"{")
    }

    /// The bytes: of the binary, or of the JSON text.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// As a JSON value; null for bytes.
    ///
    /// # Errors
    ///
    /// When the JSON can't be held: it is nested over 127 levels deep, has a number beyond a float (a
    /// client's may only be an integer), or half of a surrogate pair (a client's has none). Such JSON
    /// is never read as another value.
    pub fn value(&self) -> Result<Value, serde_json::Error> {
        if self.is_binary() { Ok(Value::Null) } else { self.parse() }
    }

    /// Reads the JSON.
    ///
    /// # Errors
    ///
    /// When it is binary, not what `T` needs, or as for [`Payload::value`].
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        if self.is_binary() {
            return Err(serde::de::Error::custom("the payload is binary"));
        }
        serde_json::from_slice(&self.bytes)
    }

    pub(crate) fn json_text(bytes: Bytes) -> Self {
        Self { kind: Kind::Json, bytes }
    }

    pub(crate) fn of(message: message::Payload<'_>) -> Self {
        match message {
            message::Payload::Json(text) => {
                Self::json_text(Bytes::copy_from_slice(text.as_bytes()))
            }
            message::Payload::Binary(bytes) => Self::binary(Bytes::copy_from_slice(bytes)),
        }
    }

    pub(crate) fn from_parts(kind: Kind, bytes: Bytes) -> Self {
        Self { kind, bytes }
    }

    pub(crate) fn into_parts(self) -> (Kind, Bytes) {
        (self.kind, self.bytes)
    }
}

impl From<Value> for Payload {
    fn from(value: Value) -> Self {
        Self::json_text(value.to_string().into())
    }
}

impl From<Box<RawValue>> for Payload {
    /// The JSON as it is written: no number of it changes.
    fn from(json: Box<RawValue>) -> Self {
        Self::json_text(String::from(Box::<str>::from(json)).into())
    }
}

impl From<()> for Payload {
    fn from((): ()) -> Self {
        Self::empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_that_cannot_be_held_is_an_error_and_bytes_are_null() {
        let nested = |levels: usize| {
            let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            Payload::json_text(text.into()).value()
        };
        assert!(nested(127).is_ok_and(|value| value.is_array()));
        for levels in [128, 1_000_000] {
            assert!(nested(levels).is_err(), "{levels}");
        }
        for text in ["1e999", r#""\ud800""#] {
            assert!(Payload::json_text(text.into()).value().is_err(), "{text}");
        }
        assert!(Payload::binary(vec![1]).value().is_ok_and(|value| value.is_null()));
    }
}
