//! Text with claims in it: `users:{sub}`. Pure.

use serde_json::{Map, Value};

/// Longest text that a template makes: a topic's limit.
const MAX: usize = 255;

/// A text in which `{claim}` stands for a claim's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Claim(String),
}

impl Template {
    /// Reads `text`.
    ///
    /// # Errors
    /// A brace that has no other, or nothing between two.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let wrong = "write a claim as `{name}`, each brace with its other";
        let (mut parts, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(at);
            let (claim, after) =
                after.strip_prefix('{').and_then(|a| a.split_once('}')).ok_or(wrong)?;
            if claim.is_empty() || claim.contains('{') {
                return Err(wrong);
            }
            parts.push(Part::Text(before.to_owned()));
            parts.push(Part::Claim(claim.to_owned()));
            rest = after;
        }
        parts.push(Part::Text(rest.to_owned()));
        parts.retain(|part| *part != Part::Text(String::new()));
        Ok(Self(parts))
    }

    /// The text with the values; none if a claim is missing, empty, or no text or whole number, or
    /// the whole is over 255 bytes.
    pub fn render(&self, claims: &Map<String, Value>) -> Option<String> {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Claim(name) => match claim(claims, name)? {
                    Value::String(text) if !text.is_empty() => out.push_str(text),
                    Value::Number(n) if n.is_i64() || n.is_u64() => out.push_str(&n.to_string()),
                    _ => return None,
                },
            }
        }
        (out.len() <= MAX).then_some(out)
    }
}

/// A claim by its name, or by its path with dots: `realm_access.roles`. A claim that has dots in its
/// name comes first.
pub(crate) fn claim<'a>(claims: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    claims.get(name).or_else(|| {
        let (first, rest) = name.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_stand_in_their_places() {
        let claims = json!({"sub": "anna", "org": {"id": 7}, "https://a.b/c": "x", "no": null,
            "list": ["a"], "empty": "", "half": 0.5, "long": "x".repeat(300)});
        let claims = claims.as_object().unwrap();
        let render = |text: &str| Template::parse(text).unwrap().render(claims);
        for (text, want) in [
            ("lobby", "lobby"),
            ("users:{sub}", "users:anna"),
            ("{org.id}/{sub}:x", "7/anna:x"),
            ("{https://a.b/c}", "x"),
        ] {
            assert_eq!(render(text).as_deref(), Some(want), "{text}");
        }
        for text in ["{no}", "{list}", "{empty}", "{half}", "{absent}", "{org}", "{long}"] {
            assert_eq!(render(text), None, "{text}");
        }
        for text in ["{", "}", "a{}", "{a", "a}", "{a{b}}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
