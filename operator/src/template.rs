//! What a pass does first: nothing is planned on a pod template that somebody else has changed.

use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;

use crate::{
    apply::{Applier, Error},
    observe::Seen,
    reconcile::{Context, STALE},
};

/// Who changes it again so soon after it was put right gets no answer before that time is over.
const PAUSE: Duration = Duration::from_secs(5);

impl Context {
    /// Takes out of the pod template what others put in. If there was something, this pass is over:
    /// when to look again.
    pub async fn own_template(
        &self,
        applier: &Applier<'_>,
        seen: &Seen,
    ) -> Result<Option<Duration>, Error> {
        let Some(live) = &seen.stateful_set else { return Ok(None) };
        let Some(foreign) = applier.foreign(live)? else { return Ok(None) };
        let reference = ObjectRef::new(applier.cluster.name).within(applier.cluster.namespace);
        let before = self.owned.lock().get(&reference).map(Instant::elapsed);
        if let Some(wait) = before.and_then(|before| PAUSE.checked_sub(before)) {
            return Ok(Some(wait.max(STALE)));
        }
        match applier.own_template(foreign).await {
            Ok(()) => self.metrics.wrote(),
            Err(Error::Stale(_)) => return Ok(Some(STALE)),
            Err(error) => return Err(error),
        }
        self.owned.lock().insert(reference, Instant::now());
        Ok(Some(STALE))
    }
}
