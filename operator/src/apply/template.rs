//! Takes out of the StatefulSet's pod template what others put in, before anything is decided on it:
//! it would be a new revision, and every pod would be rolled to it.

use kube::api::{DynamicObject, Patch, PatchParams};
use sluice_crds::names;

use super::{Applier, Error, Kept};
use crate::{build::Kind, foreign};

impl Applier<'_> {
    /// Makes the pod template that is in force the operator's alone; whether it was not. `live` was
    /// read just now, and the write fails if it has changed since.
    pub async fn own_template(&self, live: &DynamicObject) -> Result<bool, Error> {
        let name = self.cluster.name;
        self.ours(Kind::StatefulSet, name, &live.metadata)?;
        // Without the record of what was rendered nobody can say what was added.
        let Some(kept) = Kept::of(&live.metadata) else { return Ok(false) };
        let live = serde_json::to_value(live)?;
        let Some(added) = foreign::addition(&kept.template, &live) else { return Ok(false) };
        let patch = serde_json::from_value(foreign::patch(&kept.template, &live))?;
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..Default::default() };
        self.may_write()?;
        self.api(Kind::StatefulSet)
            .patch(name, &params, &Patch::Json::<()>(patch))
            .await
            .map_err(|source| Error::api("patch", Kind::StatefulSet, name, source))?;
        tracing::warn!(name, added, "the pod template was changed by somebody else: put right");
        Ok(true)
    }
}
