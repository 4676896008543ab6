//! Yes or no: what every answer of the backend begins with. Read by hand, since JSON may have a key twice
//! and a reader must not choose between two words on who is let in. Pure.

use std::fmt;

use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::call::Failure;

/// A mark that JSON may begin with, and that says nothing (RFC 8259, 8.1).
const MARK: &[u8] = "\u{feff}".as_bytes();

/// What it decides.
pub(super) enum Decision {
    Yes,
    /// For this reason, if it gives one that is a text.
    No(Option<String>),
}

/// An answer without the mark that it may begin with.
pub(super) fn unmarked(body: &[u8]) -> &[u8] {
    body.strip_prefix(MARK).unwrap_or(body)
}

/// Reads the decision of an unmarked answer.
pub(super) fn read(body: &[u8]) -> Result<Decision, Failure> {
    let Words { allow, twice, reason } =
        serde_json::from_slice(body).map_err(|_| Failure::Garbage)?;
    if twice {
        return Err(Failure::Ambiguous);
    }
    match allow.as_deref().map(RawValue::get) {
        Some("true") => Ok(Decision::Yes),
        // Who says no is heard, though the reason be no text.
        Some("false") => {
            Ok(Decision::No(reason.and_then(|raw| serde_json::from_str(raw.get()).ok())))
        }
        _ => Err(Failure::Garbage),
    }
}

/// What an answer says of it; of a reason that stands twice, the last.
#[derive(Default)]
struct Words {
    allow: Option<Box<RawValue>>,
    /// Whether `allow` stands there more than once.
    twice: bool,
    reason: Option<Box<RawValue>>,
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Words;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Words, A::Error> {
        let mut words = Words::default();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "allow" => words.twice |= words.allow.replace(map.next_value()?).is_some(),
                "reason" => words.reason = Some(map.next_value()?),
                _ => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(words)
    }
}
