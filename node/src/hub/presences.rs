//! Who is on a topic, page by page, as this node knows it.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::Hub;

/// Which presences to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceQuery {
    /// Those of this topic.
    pub topic: Arc<str>,
    /// Whose keys come after this one.
    pub after: Option<Arc<str>>,
    /// The first so many, by key.
    pub limit: usize,
}

/// All that is present under one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Presences {
    /// The key.
    pub key: Arc<str>,
    /// The meta of each channel.
    pub metas: Vec<Map<String, Value>>,
}

/// Some of those who are on a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PresencePage {
    /// By key.
    pub presences: Vec<Presences>,
    /// Whether there are more after these.
    pub more: bool,
}

impl Hub {
    /// Who is on a topic, on all nodes; none if nobody is and the rule of the topic keeps
    /// no presence.
    pub fn presences(&self, query: &PresenceQuery) -> Option<PresencePage> {
        let PresenceQuery { topic, after, limit } = query;
        let page = self.plane.presence.page(topic, after.as_deref(), *limit);
        let rules = self.plane.rules.read();
        let kept = || rules.find(topic).is_some_and(|rule| rule.presence().is_some());
        (page.more || !page.presences.is_empty() || kept()).then_some(page)
    }
}
