//! `webhooks` of the configuration: what it must mean.

use http::HeaderName;
use sluice_node_api::webhooks::Webhooks;

use super::check::Out;

/// Checks `webhooks`; files that it names are not looked at.
pub(super) fn check(webhooks: Option<&Webhooks>, out: &mut Out) {
    let Some(w) = webhooks else { return };
    out.url("webhooks.url", &w.url);
    out.that(
        "webhooks",
        w.connect || w.disconnect,
        "needs `connect` or `disconnect`: without any it is never called",
    );
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
