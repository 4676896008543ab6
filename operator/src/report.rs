//! Writes the status that [`crate::status`] makes, and only when it differs; publishes what is new
//! in it. It must never be what wakes the reconciler: nothing here changes by itself.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use kube::{
    Api,
    api::{Patch, PatchParams},
    runtime::reflector::ObjectRef,
};
use serde_json::{Value, json};
use sluice_crds::{ChannelCluster, ChannelClusterStatus, names};

use crate::{
    events,
    metrics::ClusterLabels,
    model::{Desired, Observed, Plan},
    reconcile::Context,
    status::{self, Facts},
};

/// The count of connections alone is written at most this often.
const COUNTS_EVERY: Duration = Duration::from_secs(15);

/// Why a status could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server was not reached or said no.
    #[error("failed to {verb} the status")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// It can't be written as JSON.
    #[error("failed to render the status")]
    Json(#[from] serde_json::Error),
    /// This process does not lead any more.
    #[error("not the leader any more")]
    NotLeading,
}

impl Error {
    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => "status",
            Self::Json(_) => "json",
            Self::NotLeading => "not_leading",
        }
    }
}

/// Reports how `object` is.
pub async fn report(
    object: &ChannelCluster,
    context: &Context,
    desired: &Desired<'_>,
    observed: &Observed,
    plan: &Plan,
    facts: &Facts,
    now: Timestamp,
) -> Result<(), Error> {
    let meta = &object.metadata;
    let namespace = meta.namespace.clone().unwrap_or_default();
    let make = |previous: Option<&ChannelClusterStatus>| {
        status::report(desired, observed, plan, facts, previous, now)
    };
    let report = make(object.status.as_ref());
    let labels = ClusterLabels { namespace: namespace.clone(), name: desired.name.into() };
    context.metrics.reported(&labels, &report.status);
    context.metrics.looked(&labels, observed, now);

    let reference = ObjectRef::new(desired.name).within(&namespace);
    let lately = context.reported.lock().get(&reference).copied();
    let lately = lately.is_some_and(|written| written.elapsed() < COUNTS_EVERY);
    if !differs(object.status.as_ref(), &report.status, lately)? {
        return Ok(());
    }

    // The status that is known may be older than our own last write.
    let api: Api<ChannelCluster> = Api::namespaced(context.client.clone(), &namespace);
    let failed = |verb| move |source| Error::Api { verb, source: Box::new(source) };
    let live = api.get_opt(desired.name).await.map_err(failed("read"))?;
    let Some(live) = live.filter(|live| live.metadata.uid == meta.uid) else { return Ok(()) };
    if live.metadata.generation != meta.generation {
        // A newer spec is on its way here; a report on this one would be out of date.
        return Ok(());
    }
    let report = make(live.status.as_ref());
    if !differs(live.status.as_ref(), &report.status, lately)? {
        return Ok(());
    }
    if !context.leadership.still_valid() {
        return Err(Error::NotLeading);
    }
    let patch = json!({
        "apiVersion": "sluice.dev/v1alpha1",
        "kind": "ChannelCluster",
        "metadata": { "name": desired.name, "uid": meta.uid },
        "status": report.status,
    });
    let params = PatchParams::apply(names::FIELD_MANAGER).force();
    match api.patch_status(desired.name, &params, &Patch::Apply(patch)).await {
        Ok(_) => {}
        // Deleted, or made anew, meanwhile.
        Err(kube::Error::Api(answer)) if matches!(answer.code, 404 | 409) => return Ok(()),
        Err(source) => return Err(failed("write")(source)),
    }
    context.reported.lock().insert(reference, Instant::now());
    events::publish(&context.recorder, object, report.events).await;
    Ok(())
}

/// Whether there is something to write. `lately`: the count of connections alone is no reason.
fn differs(
    before: Option<&ChannelClusterStatus>,
    after: &ChannelClusterStatus,
    lately: bool,
) -> Result<bool, Error> {
    let json = |status: Option<&ChannelClusterStatus>| -> Result<Value, Error> {
        let mut value = serde_json::to_value(status)?;
        if lately && value.is_object() {
            value["connections"] = Value::Null;
        }
        Ok(value)
    };
    Ok(json(before)? != json(Some(after))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_alone_are_written_now_and_then() {
        let before = ChannelClusterStatus { connections: 1, ..ChannelClusterStatus::default() };
        let counted = ChannelClusterStatus { connections: 2, ..before.clone() };
        let ready = ChannelClusterStatus { ready_replicas: 1, ..counted.clone() };
        assert!(differs(None, &before, true).unwrap());
        assert!(!differs(Some(&before), &before, false).unwrap());
        assert!(differs(Some(&before), &counted, false).unwrap());
        assert!(!differs(Some(&before), &counted, true).unwrap());
        assert!(differs(Some(&before), &ready, true).unwrap());
    }
}
