//! `webhooks` of the configuration and of its topic rules: what they must mean.

use std::collections::BTreeSet;

use http::HeaderName;
use sluice_node_api::config::LiveConfig;
use sluice_node_api::webhooks::{RuleWebhooks, Webhooks};

use super::check::{Found, Out};
use crate::arrivals::DISCONNECT;

/// Most events that a rule has the backend asked about.
const MAX_EVENTS: usize = 64;

/// Checks `webhooks`; files that it names are not looked at.
pub(super) fn check(webhooks: Option<&Webhooks>, out: &mut Out) {
    let Some(w) = webhooks else { return };
    out.url("webhooks.url", &w.url);
    let headers =
        w.headers.len() <= 16 && w.headers.iter().all(|name| name.parse::<HeaderName>().is_ok());
    out.that("webhooks.headers", headers, "must be at most 16 names of headers");
    // A connect waits for it, and may take ten seconds.
    let timeout = (10..=8000).contains(&w.timeout_milliseconds);
    out.that("webhooks.timeoutMilliseconds", timeout, "must be 10 to 8000");
    let concurrent = (1..=1024).contains(&w.max_concurrent);
    out.that("webhooks.maxConcurrent", concurrent, "must be 1 to 1024");
    let queued = (1..=1_000_000).contains(&w.max_queued);
    out.that("webhooks.maxQueued", queued, "must be 1 to 1000000");
}

/// Checks what the rule at `at` asks of the backend.
pub(super) fn check_rule(at: &str, rule: Option<&RuleWebhooks>, out: &mut Out) {
    let Some(rule) = rule else { return };
    let at = format!("{at}.webhooks");
    let any = rule.join || rule.leave || !rule.events.is_empty();
    let must = "needs `join`, `events` or `leave`: without any the backend is not called";
    out.that(&at, any, must);
    let events = format!("{at}.events");
    out.that(&events, rule.events.len() <= MAX_EVENTS, "must be at most 64 events");
    let mut seen = BTreeSet::new();
    for event in rule.events.iter().take(MAX_EVENTS) {
        out.that(&events, (1..=255).contains(&event.len()), "an event must have 1 to 255 bytes");
        out.that(&events, !event.starts_with("phx_"), "events `phx_*` are the protocol's own");
        let must = "`disconnect` closes sockets and is never asked about: give yours another name";
        out.that(&events, event != DISCONNECT, must);
        out.that(&events, seen.insert(event), "an event stands there twice");
    }
}

/// What a node without a backend can't do.
pub(super) fn check_without(live: &LiveConfig) -> Found {
    let mut out = Out::default();
    for (i, rule) in live.channels.iter().enumerate() {
        let must = "needs `webhooks` in the node's configuration: there is no backend to call";
        out.that(&format!("channels[{i}].webhooks"), rule.webhooks.is_none(), must);
    }
    out.found()
}
