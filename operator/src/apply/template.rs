//! Takes out of a StatefulSet's pod template what others put in: of the nodes' before anything is
//! decided on it, for it would be a new revision, and every pod would be rolled to it.

use kube::api::{DynamicObject, Patch};
use serde_json::Value;

use super::{Applier, Error, Kept};
use crate::{
    build::{self, Kind, Object},
    foreign,
};

/// What others put into a pod template.
pub struct Foreign {
    /// The StatefulSet.
    name: String,
    /// The path of the first such field.
    added: String,
    /// Makes the template the operator's alone again, unless it has changed since it was read.
    patch: Value,
}

impl Foreign {
    /// What is told when it was taken out `times` times and is there again.
    pub fn contested(self, times: u32) -> Error {
        Error::Contested { name: self.name, added: self.added, times }
    }
}

impl Applier<'_> {
    /// What others put into the pod template that is in force. `live` was read just now.
    pub fn foreign(&self, live: &DynamicObject) -> Result<Option<Foreign>, Error> {
        self.ours(Kind::StatefulSet, self.cluster.name, live)?;
        // Without the record of what was rendered nobody can say what was added, unless it is what is
        // rendered now.
        let today = || Kept::today(&live.metadata, &build::build(&self.cluster).ok()?.workload);
        let Some(kept) = Kept::of(&live.metadata).or_else(today) else { return Ok(None) };
        found(self.cluster.name, &kept.template, live)
    }

    /// What others put into the pod template of `object`, a StatefulSet that is always as it was
    /// rendered last.
    pub async fn foreign_in(&self, object: &Object) -> Result<Option<Foreign>, Error> {
        let Object { kind, name, value } = object;
        let template = &value["spec"]["template"];
        let known = self.stores.get(*kind, self.cluster.namespace, name);
        let Some(known) = known else { return Ok(None) };
        if found(name, template, &known)?.is_none() {
            return Ok(None);
        }
        match self.live(*kind, name).await? {
            Some(live) => found(name, template, &live),
            None => Ok(None),
        }
    }

    /// Makes the pod template the operator's alone.
    pub async fn own_template(&self, foreign: Foreign) -> Result<(), Error> {
        let Foreign { name, added, patch } = foreign;
        let patch = Patch::Json(serde_json::from_value(patch)?);
        self.patch(Kind::StatefulSet, &name, patch).await?;
        tracing::warn!(name, added, "the pod template was changed by somebody else: put right");
        Ok(())
    }
}

fn found(name: &str, template: &Value, live: &DynamicObject) -> Result<Option<Foreign>, Error> {
    let live = serde_json::to_value(live)?;
    Ok(foreign::addition(template, &live).map(|added| Foreign {
        name: name.into(),
        added,
        patch: foreign::patch(template, &live),
    }))
}
