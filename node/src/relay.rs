//! What a stock node does with a topic: the [`ChannelRule`]s of the live configuration, compiled.

use bytes::Bytes;
use serde_json::json;
use sluice_node_api::config::{ChannelRule, LiveConfig};

use crate::message::MAX_FIELD;

/// The topic rules in force.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    rule: ChannelRule,
    join_response: Bytes,
}

impl Rules {
    /// Compiles the rules of a node named `node`.
    pub fn new(live: &LiveConfig, node: &str) -> Self {
        let rules = live.channels.iter().map(|rule| Rule {
            rule: rule.clone(),
            join_response: if rule.announce_node {
                json!({ "node": node }).to_string().into()
            } else {
                Bytes::from_static(b"{}")
            },
        });
        Self { rules: rules.collect() }
    }

    /// The first rule that matches: an exact topic, or a prefix with one trailing `*`
    /// (`P-JOIN-1`). No rule matches a topic over 255 bytes.
    pub fn find(&self, topic: &str) -> Option<&Rule> {
        let matches = |pattern: &str| match pattern.strip_suffix('*') {
            Some(prefix) => topic.starts_with(prefix),
            None => topic == pattern,
        };
        self.rules.iter().find(|rule| topic.len() <= MAX_FIELD && matches(&rule.rule.topic))
    }
}

impl Rule {
    /// The response to an accepted join.
    pub fn join_response(&self) -> &Bytes {
        &self.join_response
    }

    /// Whether clients may broadcast `event`. Names that begin with `phx_` never: a client takes
    /// them for the server's own, and one could close everyone's channel.
    pub fn allows(&self, event: &str) -> bool {
        let named = || self.rule.events.iter().any(|allowed| allowed == "*" || allowed == event);
        event.len() <= MAX_FIELD && !event.starts_with("phx_") && named()
    }

    /// Whether the sender receives its own event.
    pub fn include_sender(&self) -> bool {
        self.rule.include_sender
    }

    /// Largest payload of a client's event: bytes of JSON, or of binary.
    pub fn max_payload(&self) -> usize {
        usize::try_from(self.rule.max_payload_bytes).unwrap_or(usize::MAX)
    }
}
