//! Takes out of the StatefulSet's pod template what others put in, before anything is decided on it:
//! it would be a new revision, and every pod would be rolled to it.

use kube::api::{DynamicObject, Patch};
use serde_json::Value;

use super::{Applier, Error, Kept};
use crate::{build::Kind, foreign};

/// What others put into the pod template.
pub struct Foreign {
    /// The path of the first such field.
    added: String,
    /// Makes the template the operator's alone again, unless it has changed since it was read.
    patch: Value,
}

impl Applier<'_> {
    /// What others put into the pod template that is in force. `live` was read just now.
    pub fn foreign(&self, live: &DynamicObject) -> Result<Option<Foreign>, Error> {
        self.ours(Kind::StatefulSet, self.cluster.name, &live.metadata)?;
        // Without the record of what was rendered nobody can say what was added.
        let Some(kept) = Kept::of(&live.metadata) else { return Ok(None) };
        let live = serde_json::to_value(live)?;
        let Some(added) = foreign::addition(&kept.template, &live) else { return Ok(None) };
        Ok(Some(Foreign { added, patch: foreign::patch(&kept.template, &live) }))
    }

    /// Makes the pod template that is in force the operator's alone.
    pub async fn own_template(&self, foreign: Foreign) -> Result<(), Error> {
        let name = self.cluster.name;
        let patch = Patch::Json(serde_json::from_value(foreign.patch)?);
        self.patch(Kind::StatefulSet, name, patch).await?;
        tracing::warn!(
            name,
            added = foreign.added,
            "the pod template was changed by somebody else: put right"
        );
        Ok(())
    }
}
