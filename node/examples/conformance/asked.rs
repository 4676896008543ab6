//! What a client asks for: the fields of its payload, each as it was written. Read as values, a number
//! that fits no machine word would come back as another.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, value::RawValue};
use sluice_node::channel::{Crash, Payload};

/// The fields of an object; none of any other payload.
#[derive(Clone, Default)]
pub struct Asked(BTreeMap<String, Box<RawValue>>);

impl Asked {
    pub fn of(payload: &Payload) -> Self {
        Self(payload.parse().unwrap_or_default())
    }

    /// A field, if it is there and is what `T` needs.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }

    /// A field as it was written.
    pub fn raw(&self, name: &str) -> Option<Box<RawValue>> {
        self.0.get(name).cloned()
    }

    /// All fields, and one more.
    pub fn with(mut self, name: &str, value: Box<RawValue>) -> Result<Payload, serde_json::Error> {
        self.0.insert(name.to_owned(), value);
        Ok(serde_json::value::to_raw_value(&self.0)?.into())
    }

    /// A presence key: a string, or a number as one.
    pub fn key(&self) -> Result<String, Crash> {
        let raw = self.0.get("key").ok_or("no key")?.get();
        let whole = raw.trim_start_matches('-').bytes().all(|byte| byte.is_ascii_digit());
        match serde_json::from_str(raw)? {
            Value::String(key) => Ok(key),
            Value::Number(_) if whole => Ok(raw.to_owned()),
            Value::Number(key) => Ok(key.to_string()),
            _ => Err("no key".into()),
        }
    }

    /// A presence meta: an object, by default the empty one.
    pub fn meta(&self) -> Result<Map<String, Value>, Crash> {
        let meta = self.0.get("meta").map_or("null", |raw| raw.get());
        match serde_json::from_str(meta)? {
            Value::Null => Ok(Map::new()),
            Value::Object(meta) => Ok(meta),
            _ => Err("the meta is no object".into()),
        }
    }
}
