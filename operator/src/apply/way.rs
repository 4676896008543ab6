//! What an apply can't get past: fields of somebody else's that an apply leaves, and that the rendered
//! ones collide with. It takes them out, makes an object anew that can't be changed any more, and finds
//! out whether the spec or what stands there is to blame when an apply is refused.

use kube::{
    api::{DeleteParams, DynamicObject, Patch, PostParams, Preconditions},
    core::Status,
};
use serde_json::Value;
use sluice_crds::names;

use super::{Applier, Error};
use crate::{
    build::{Kind, Object},
    heal,
};

/// A name that is only ever asked about.
const ELSEWHERE: &str = "sluice-dry-run";

impl Applier<'_> {
    /// Takes out of what stands there what an apply of `object` collides with; whether there was
    /// something.
    pub(super) async fn make_way(&self, object: &Object) -> Result<bool, Error> {
        let Object { kind, name, value } = object;
        let Some(live) = self.live(*kind, name).await? else { return Ok(false) };
        let Some(patch) = heal::patch(*kind, value, &serde_json::to_value(&live)?) else {
            return Ok(false);
        };
        self.take_out(object, patch).await?;
        Ok(true)
    }

    /// Takes out what somebody else put in.
    pub(super) async fn take_out(&self, object: &Object, patch: Value) -> Result<(), Error> {
        let Object { kind, name, .. } = object;
        self.patch(*kind, name, Patch::Merge(patch)).await?;
        tracing::warn!(?kind, name, "what somebody else put in was in the way: put right");
        Ok(())
    }

    /// Puts `object` in place of one that can't be changed any more. A pod that starts in between
    /// waits for it.
    pub(super) async fn remake(&self, object: &Object, live: DynamicObject) -> Result<(), Error> {
        let Object { kind, name, .. } = object;
        self.delete(*kind, name, live.metadata.uid).await?;
        tracing::warn!(?kind, name, "somebody else made it immutable: made anew");
        self.apply(object, "all of it").await
    }

    /// Deletes the object of that UID; whether it was there.
    pub(super) async fn delete(
        &self,
        kind: Kind,
        name: &str,
        uid: Option<String>,
    ) -> Result<bool, Error> {
        let params =
            DeleteParams::background().preconditions(Preconditions { uid, resource_version: None });
        self.may_write()?;
        match self.api(kind).delete(name, &params).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            Err(source) => Err(Error::api("delete", kind, name, source)),
        }
    }

    /// What a refused apply of `object` comes to. The API server is asked whether it would take the
    /// same under another name: then the spec is right, and what stands there, if something does, is
    /// in the way.
    pub(super) async fn refused(&self, object: &Object, source: kube::Error) -> Error {
        let Object { kind, name, .. } = object;
        let in_the_way = matches!(&source, kube::Error::Api(answer) if may_be_in_the_way(answer))
            && self.stands_there(object).await
            && self.would_do_elsewhere(object).await;
        match source {
            kube::Error::Api(answer) if in_the_way => {
                Error::InTheWay { kind: *kind, name: name.clone(), answer }
            }
            source => Error::api("apply", *kind, name, source),
        }
    }

    async fn stands_there(&self, object: &Object) -> bool {
        matches!(self.live(object.kind, &object.name).await, Ok(Some(_)))
    }

    async fn would_do_elsewhere(&self, object: &Object) -> bool {
        let Object { kind, value, .. } = object;
        let mut value = value.clone();
        value["metadata"]["name"] = ELSEWHERE.into();
        if let Some(metadata) = value["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let Ok(object) = serde_json::from_value::<DynamicObject>(value) else { return false };
        let params = PostParams { dry_run: true, field_manager: Some(names::FIELD_MANAGER.into()) };
        self.may_write().is_ok() && self.api(*kind).create(&params, &object).await.is_ok()
    }
}

/// Whether an answer may come from what stands there. A node port that can't be had is the spec's:
/// a dry run, which gives none away, does not look at their range.
fn may_be_in_the_way(answer: &Status) -> bool {
    let causes = answer.details.iter().flat_map(|details| &details.causes);
    answer.code == 422 && !causes.into_iter().any(|cause| cause.field.ends_with(".nodePort"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn answer(code: u16, field: &str) -> Status {
        let causes = json!([{ "reason": "FieldValueInvalid", "message": "no", "field": field }]);
        let details = json!({ "name": "chat", "kind": "Service", "causes": causes });
        let status = json!({ "status": "Failure", "code": code, "details": details });
        serde_json::from_value(status).unwrap()
    }

    #[test]
    fn a_node_port_that_cannot_be_had_is_the_specs() {
        assert!(!may_be_in_the_way(&answer(422, "spec.ports[0].nodePort")));
        for field in ["spec.clusterIPs[0]", "spec.healthCheckNodePort", "spec.ports[0].port"] {
            assert!(may_be_in_the_way(&answer(422, field)), "{field}");
        }
        assert!(!may_be_in_the_way(&answer(403, "spec.clusterIPs[0]")));
    }
}
