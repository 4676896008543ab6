//! What a stock node does with a topic: the [`ChannelRule`]s of the live configuration, compiled.

use bytes::Bytes;
use serde_json::json;
use sluice_node_api::config::{ChannelRule, LiveConfig};

use crate::auth::{Identity, Join};
use crate::message::{MAX_FIELD, matches};

/// The topic rules in force.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
}

/// One rule.
#[derive(Debug)]
pub struct Rule {
    rule: ChannelRule,
    join: Option<Join>,
    join_response: Bytes,
}

impl Rules {
    /// Compiles the rules of a node named `node`.
    pub fn new(live: &LiveConfig, node: &str) -> Self {
        let rules = live.channels.iter().map(|rule| Rule {
            rule: rule.clone(),
            join: rule.join.as_ref().map(Join::new),
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
        let fits = |rule: &&Rule| topic.len() <= MAX_FIELD && matches(&rule.rule.topic, topic);
        self.rules.iter().find(fits)
    }
}

impl Rule {
    /// The response to an accepted join.
    pub fn join_response(&self) -> &Bytes {
        &self.join_response
    }

    /// Whether a client of this identity may join `topic`.
    pub fn admits(&self, identity: Option<&Identity>, topic: &str) -> bool {
        let Some(join) = &self.join else { return true };
        identity.is_some_and(|identity| join.admits(&identity.claims(), topic))
    }

    /// Messages that a client may push on a channel in a second; none: any number.
    pub fn max_messages(&self) -> Option<u32> {
        self.rule.max_messages_per_second
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
