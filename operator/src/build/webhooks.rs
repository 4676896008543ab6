//! The backend that nodes call: `spec.webhooks` as a node reads it, and the files with its secrets.

use serde_json::Value;
use sluice_node_api::webhooks::Webhooks;

use super::config::{DIRECTORY, secret};

const SECRET_FILE: &str = "webhooks/secret";
const CA_FILE: &str = "webhooks/ca.pem";

/// The configuration, with paths of the files that [`sources`] mounts.
pub(super) fn config(spec: &sluice_crds::Webhooks) -> Webhooks {
    let path = |file: &str| format!("{DIRECTORY}/{file}");
    let number = |value: i32| value.max(1).unsigned_abs();
    Webhooks {
        ca_file: spec.ca_secret_ref.as_ref().map(|_| path(CA_FILE)),
        connect: spec.connect,
        disconnect: spec.disconnect,
        headers: spec.headers.clone(),
        on_failure: spec.on_failure,
        timeout_milliseconds: number(spec.timeout_milliseconds),
        max_concurrent: number(spec.max_concurrent),
        max_queued: number(spec.max_queued),
        ..Webhooks::new(spec.url.clone(), path(SECRET_FILE))
    }
}

/// What the volume of a node's files needs for it.
pub(super) fn sources(spec: Option<&sluice_crds::Webhooks>) -> Vec<Value> {
    let Some(spec) = spec else { return Vec::new() };
    let ca = spec.ca_secret_ref.as_ref().map(|ca| secret(ca, CA_FILE));
    [secret(&spec.secret_ref, SECRET_FILE)].into_iter().chain(ca).collect()
}
