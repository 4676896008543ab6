//! Who may join a topic, by the claims of the socket's token. Pure.

use serde_json::{Map, Value};
use sluice_node_api::config::JoinRule;

use super::template::{Template, claim};
use crate::message::matches;

/// A [`JoinRule`], compiled.
#[derive(Debug)]
pub struct Join {
    claim: Option<String>,
    topics: Vec<(Template, bool)>,
}

impl Join {
    /// Compiles a rule; a topic that is no template admits nobody.
    pub fn new(rule: &JoinRule) -> Self {
        let topic = |text: &String| {
            let bare = text.strip_suffix('*');
            Some((Template::parse(bare.unwrap_or(text)).ok()?, bare.is_some()))
        };
        Self { claim: rule.claim.clone(), topics: rule.topics.iter().filter_map(topic).collect() }
    }

    /// Whether the bearer of `claims` may join `topic`. A star in a claim's value is a plain
    /// character in a template, and a pattern's end in the claim that lists topics.
    pub fn admits(&self, claims: &Map<String, Value>, topic: &str) -> bool {
        let own = self.topics.iter().any(|(template, prefix)| {
            let rendered = template.render(claims);
            rendered.is_some_and(|text| match prefix {
                true => topic.starts_with(&text),
                false => topic == text,
            })
        });
        own || self.claim.as_ref().is_some_and(|name| match claim(claims, name) {
            Some(Value::Array(list)) => {
                list.iter().filter_map(Value::as_str).any(|pattern| matches(pattern, topic))
            }
            Some(Value::String(pattern)) => matches(pattern, topic),
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_lists_topics_and_a_template_names_ones_own() {
        let admits = |claims: Value, topic: &str| {
            let topics = vec!["user:{sub}".to_owned(), "org:{org.id}:*".to_owned()];
            let join = Join::new(&JoinRule { claim: Some("topics".into()), topics });
            join.admits(claims.as_object().unwrap(), topic)
        };
        let anna = json!({"sub": "anna", "org": {"id": 7}, "topics": ["room:1", "news:*", 5]});
        for topic in ["user:anna", "org:7:x", "org:7:", "room:1", "news:a"] {
            assert!(admits(anna.clone(), topic), "{topic}");
        }
        for topic in ["user:bert", "user:annab", "user:", "org:77:x", "room:11", "new", "5", ""] {
            assert!(!admits(anna.clone(), topic), "{topic}");
        }
        assert!(admits(json!({"topics": "room:*"}), "room:1"));
        for claims in [json!({}), json!({"topics": {"room:1": true}}), json!({"topics": null})] {
            assert!(!admits(claims, "room:1"));
        }
        // A user whose name is a star is not everybody.
        assert!(!admits(json!({"sub": "*"}), "user:anna"));
        assert!(admits(json!({"sub": "*"}), "user:*"));
    }
}
