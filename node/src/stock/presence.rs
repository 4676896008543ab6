//! Under which key a client is listed, and with which meta. Pure, but for a key that is made up and
//! the time.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sluice_node_api::config::PresenceRule;

use crate::{
    auth::template::claim,
    message::MAX_FIELD,
    presence::state::{MAX_META_DEPTH, is_shallow},
    relay::Refusal,
};

type Object = Map<String, Value>;

/// What every object of JavaScript has. Older phoenix.js takes a presence under such a key for one that
/// is there already, and fails: its user would see nobody any more, by another's choice of a key.
const INHERITED: [&str; 12] = [
    "__defineGetter__",
    "__defineSetter__",
    "__lookupGetter__",
    "__lookupSetter__",
    "__proto__",
    "constructor",
    "hasOwnProperty",
    "isPrototypeOf",
    "propertyIsEnumerable",
    "toLocaleString",
    "toString",
    "valueOf",
];

/// What a client is listed with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) key: String,
    pub(crate) meta: Object,
}

impl Present {
    /// By the claims of the client's token, the parameters of its connect, and the payload of its
    /// join.
    pub(crate) fn new(
        rule: &PresenceRule,
        claims: &Object,
        params: &Object,
        fields: &Object,
    ) -> Result<Self, Refusal> {
        let meta = meta(rule, claims, fields)?;
        Ok(Self { key: key(rule, claims, params).unwrap_or_else(made_up), meta })
    }
}

/// The client's own key, if it has one that may be.
fn key(rule: &PresenceRule, claims: &Object, params: &Object) -> Option<String> {
    let named = match (&rule.key_claim, &rule.key_param) {
        (Some(name), _) => claim(claims, name),
        (None, Some(name)) => params.get(name),
        (None, None) => None,
    };
    let text = match named? {
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_i64() || number.is_u64() => number.to_string(),
        _ => return None,
    };
    let fits = (1..=MAX_FIELD).contains(&text.len()) && !INHERITED.contains(&text.as_str());
    fits.then_some(text)
}

fn made_up() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; 12]>())
}

fn meta(rule: &PresenceRule, claims: &Object, fields: &Object) -> Result<Object, Refusal> {
    let mut meta = Object::new();
    let given = rule.meta_fields.iter().map(|name| (name, fields.get(name)));
    let sworn = rule.meta_claims.iter().map(|name| (name, claim(claims, name)));
    for (name, value) in given.chain(sworn) {
        if let Some(value) = value {
            meta.insert(name.clone(), value.clone());
        }
    }
    meta.insert("online_at".to_owned(), jiff::Timestamp::now().as_second().into());
    let most = usize::try_from(rule.max_meta_bytes).unwrap_or(usize::MAX);
    if serde_json::to_vec(&meta).map_or(usize::MAX, |json| json.len()) > most {
        let reason = format!("presence meta too large, at most {most} bytes");
        return Err(Refusal::new("presence_meta", reason));
    }
    if !is_shallow(&meta) {
        let reason = format!("presence meta nested too deep, at most {MAX_META_DEPTH} levels");
        return Err(Refusal::new("presence_meta", reason));
    }
    Ok(meta)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: Value) -> Object {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn a_key_comes_from_where_the_rule_says_or_is_made_up() {
        let by = |claim: Option<&str>, param: Option<&str>| {
            let (key_claim, key_param) = (claim.map(str::to_owned), param.map(str::to_owned));
            let rule = PresenceRule { key_claim, key_param, ..PresenceRule::default() };
            let claims = object(json!({"sub": "anna", "n": 7, "org": {"id": "o"}, "list": [],
                "half": 0.5, "empty": "", "long": "x".repeat(256)}));
            key(&rule, &claims, &object(json!({"user": "bert", "sub": "x", "list": ["a"]})))
        };
        assert_eq!(by(Some("sub"), None).as_deref(), Some("anna"));
        assert_eq!(by(Some("n"), None).as_deref(), Some("7"));
        assert_eq!(by(Some("org.id"), None).as_deref(), Some("o"));
        assert_eq!(by(None, Some("user")).as_deref(), Some("bert"));
        for claim in ["absent", "list", "half", "empty", "long", "user"] {
            assert_eq!(by(Some(claim), None), None, "{claim}");
        }
        for param in ["absent", "list"] {
            assert_eq!(by(None, Some(param)), None, "{param}");
        }
        assert_eq!(by(None, None), None);
        for name in INHERITED {
            let rule =
                PresenceRule { key_param: Some("user".to_owned()), ..PresenceRule::default() };
            assert_eq!(
                key(&rule, &Object::new(), &object(json!({ "user": name }))),
                None,
                "{name}"
            );
        }
        let rule = PresenceRule::default();
        let of = || Present::new(&rule, &Object::new(), &Object::new(), &Object::new());
        let (one, other) = (of().expect("small").key, of().expect("small").key);
        assert_eq!(one.len(), 16);
        assert_ne!(one, other);
    }

    #[test]
    fn a_meta_has_what_is_named_and_no_more_than_it_may() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let mut rule = PresenceRule {
            meta_claims: names(&["name", "absent"]),
            meta_fields: names(&["status", "name"]),
            ..PresenceRule::default()
        };
        let claims = object(json!({"name": "Anna", "secret": 1}));
        let fields = object(json!({"status": {"mood": "x"}, "name": "Mallory", "other": 2}));
        let mut meta = meta(&rule, &claims, &fields).expect("small");
        assert!(meta.remove("online_at").is_some_and(|at| at.is_i64()));
        assert_eq!(Value::Object(meta), json!({"name": "Anna", "status": {"mood": "x"}}));
        rule.max_meta_bytes = 64;
        let fields = object(json!({"status": "x".repeat(64)}));
        let refusal = super::meta(&rule, &claims, &fields).expect_err("large");
        assert_eq!(refusal.word, "presence_meta");
    }
}
