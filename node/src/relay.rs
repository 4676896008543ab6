//! What a stock node does with a topic: the [`ChannelRule`]s of the live configuration, compiled.
//!
//! [`Rule::needs_channel`] tells which of them the relay can't keep: those are for
//! `StockChannel` in `stock`.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::json;
use sluice_node_api::config::{ChannelRule, HistoryRule, LiveConfig, PresenceRule, SlowConsumer};
use sluice_node_api::webhooks::RuleWebhooks;

use crate::arrivals::DISCONNECT;
use crate::auth::{Identity, Join};
use crate::message::{MAX_FIELD, matches};
use crate::nesting::{self, MAX_LEVELS};
use crate::presence;
use crate::pubsub::Kind;
use crate::shard::slow::DROPPED;

/// What a client is told of an event that its topic does not take.
pub(crate) const NOT_ALLOWED: &str = "event not allowed";

/// The topic rules in force.
#[derive(Debug, Default)]
pub struct Rules {
    rules: Vec<Rule>,
    need_channels: bool,
    may_drop: bool,
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
        let rules: Vec<_> = rules.collect();
        let need_channels = rules.iter().any(Rule::needs_channel);
        let may_drop = rules.iter().any(Rule::may_drop);
        Self { rules, need_channels, may_drop }
    }

    /// Whether some rule [needs a channel](Rule::needs_channel).
    pub fn need_channels(&self) -> bool {
        self.need_channels
    }

    /// Whether some rule has broadcasts dropped for clients that are slow.
    pub fn may_drop_any(&self) -> bool {
        self.may_drop
    }

    /// Whether some rule has history kept.
    pub fn keep_history(&self) -> bool {
        self.kept().next().is_some()
    }

    /// The patterns of topics whose history is kept.
    pub(crate) fn kept(&self) -> impl Iterator<Item = &str> {
        let kept = self.rules.iter().filter(|rule| rule.history().is_some());
        kept.map(|rule| &*rule.rule.topic)
    }

    /// What becomes of a client that is too slow for a broadcast. What presence says is never dropped:
    /// a client's list would be wrong from then on.
    pub fn slow_consumer(&self, topic: &str, event: &str) -> SlowConsumer {
        let rule = self.find(topic).filter(|_| !presence::is_own(event));
        rule.map_or(SlowConsumer::Disconnect, |rule| rule.rule.slow_consumer)
    }

    /// The first rule that matches: an exact topic, or a prefix with one trailing `*`
    /// (`P-JOIN-1`). No rule matches a topic over 255 bytes.
    pub fn find(&self, topic: &str) -> Option<&Rule> {
        let fits = |rule: &&Rule| topic.len() <= MAX_FIELD && matches(&rule.rule.topic, topic);
        self.rules.iter().find(fits)
    }
}

/// Whether a list of events has this one.
fn names(events: &[String], event: &str) -> bool {
    events.iter().any(|named| named == "*" || named == event)
}

/// Why a rule refuses an event.
#[derive(Debug)]
pub struct Refusal {
    /// The word under which it is counted.
    pub word: &'static str,
    /// What the client is told.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(word: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { word, reason: reason.into() }
    }
}

/// Whether a payload is no deeper than others can read.
fn check_levels(kind: Kind, payload: &[u8]) -> Result<(), Refusal> {
    if kind == Kind::Binary || nesting::is_shallow(payload) {
        return Ok(());
    }
    let reason = format!("payload nested too deep, at most {MAX_LEVELS} levels");
    Err(Refusal::new("payload_depth", reason))
}

impl Rule {
    /// Whether its topics need more than the relay: a channel of their own.
    pub fn needs_channel(&self) -> bool {
        let rule = &self.rule;
        rule.presence.is_some() || rule.history.is_some() || rule.webhooks.is_some()
    }

    /// What a backend is asked about and told, if anything.
    pub fn webhooks(&self) -> Option<&RuleWebhooks> {
        self.rule.webhooks.as_ref()
    }

    /// Whether a backend is asked about a client's `event`.
    pub fn asks_about(&self, event: &str) -> bool {
        let asks = |hooks: &RuleWebhooks| names(&hooks.events, event);
        self.may_be_named(event) && self.webhooks().is_some_and(asks)
    }

    fn may_drop(&self) -> bool {
        self.rule.slow_consumer != SlowConsumer::Disconnect
    }

    /// What is kept of its topics, if anything is.
    pub fn history(&self) -> Option<&HistoryRule> {
        self.rule.history.as_ref()
    }

    /// Whether history has an event. What presence says is of its moment only.
    pub fn keeps(&self, event: &str) -> bool {
        self.rule.history.is_some() && !presence::is_own(event)
    }

    /// Who is present, if that is kept.
    pub fn presence(&self) -> Option<&PresenceRule> {
        self.rule.presence.as_ref()
    }

    /// Whether a client may broadcast this event.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check(&self, event: &str, kind: Kind, payload: &[u8]) -> Result<(), Refusal> {
        if !self.allows(event) {
            return Err(Refusal::new("event", NOT_ALLOWED));
        }
        self.check_payload(kind, payload)
    }

    /// Whether a client may send this payload.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_payload(&self, kind: Kind, payload: &[u8]) -> Result<(), Refusal> {
        self.check_size(payload)?;
        if kind == Kind::Json && !payload.starts_with(b"{") {
            return Err(Refusal::new("payload", "payload must be an object"));
        }
        check_levels(kind, payload)
    }

    /// Whether a client may join with this payload, any JSON value.
    ///
    /// # Errors
    /// Why it may not.
    pub fn check_join(&self, kind: Kind, payload: &[u8]) -> Result<(), Refusal> {
        // No other join is read.
        if self.presence().is_none() && self.webhooks().is_none() {
            return Ok(());
        }
        self.check_size(payload)?;
        check_levels(kind, payload)
    }

    fn check_size(&self, payload: &[u8]) -> Result<(), Refusal> {
        let limit = self.max_payload();
        if payload.len() <= limit {
            return Ok(());
        }
        let reason = format!("payload too large, at most {limit} bytes");
        Err(Refusal::new("payload_size", reason))
    }

    /// Has `take` take one message out of the allowance of a topic at this rate, if there is one.
    ///
    /// # Errors
    /// When nothing is left of it.
    pub fn check_pace(&self, take: impl FnOnce(u32) -> bool) -> Result<(), Refusal> {
        let Some(rate) = self.max_messages() else { return Ok(()) };
        if take(rate) {
            return Ok(());
        }
        Err(Refusal::new("rate", format!("too many messages, at most {rate} a second")))
    }

    /// The response to an accepted join.
    pub fn join_response(&self) -> &Bytes {
        &self.join_response
    }

    /// Whether a client of this identity may join `topic`.
    pub fn admits(&self, identity: Option<&Identity>, topic: &str) -> bool {
        let Some(join) = &self.join else { return true };
        let claims = identity.and_then(Identity::claims);
        claims.is_some_and(|claims| join.admits(&claims, topic))
    }

    /// Messages that a client may push on a channel in a second; none: any number.
    pub fn max_messages(&self) -> Option<u32> {
        self.rule.max_messages_per_second
    }

    /// Whether clients may broadcast `event`.
    pub fn allows(&self, event: &str) -> bool {
        self.may_be_named(event) && names(&self.rule.events, event)
    }

    /// Whether an event may have this name. Names that begin with `phx_` never: a client takes them
    /// for the server's own, and one could close everyone's channel. Nor `disconnect`: on a topic that is
    /// the name of a socket it throws that out (`P-CON-10`). Nor those of presence where there is one, nor
    /// what tells of dropped broadcasts: nobody must be able to make them up.
    pub fn may_be_named(&self, event: &str) -> bool {
        let own = event.starts_with("phx_")
            || event == DISCONNECT
            || self.rule.presence.is_some() && presence::is_own(event)
            || self.may_drop() && event == DROPPED;
        event.len() <= MAX_FIELD && !own
    }

    /// Whether the sender receives its own event.
    pub fn include_sender(&self) -> bool {
        self.rule.include_sender
    }

    /// Largest payload of a client's event, and of a join that is read: bytes of JSON, or of binary.
    pub fn max_payload(&self) -> usize {
        usize::try_from(self.rule.max_payload_bytes).unwrap_or(usize::MAX)
    }
}
