//! Pod templates are the operator's alone. What a pass does first: nothing is planned on one that
//! somebody else has changed. It must never answer such a change at once each time: that would be an
//! endless fight.

use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;

use crate::{
    apply::{Applier, Error, Foreign},
    build::{Kind, Object},
    observe::Seen,
    reconcile::{Context, Guarded, STALE},
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
        if let Some(wait) = self.fought(applier) {
            return Ok(Some(wait.max(STALE)));
        }
        self.put_right(applier, foreign).await?;
        Ok(Some(STALE))
    }

    /// The same for `object`, if it is a StatefulSet that is not the nodes': the managed Redis.
    pub async fn own_template_of(
        &self,
        applier: &Applier<'_>,
        object: &Object,
    ) -> Result<(), Error> {
        if object.kind != Kind::StatefulSet || self.fought(applier).is_some() {
            return Ok(());
        }
        match applier.foreign_in(object).await? {
            Some(foreign) => self.put_right(applier, foreign).await,
            None => Ok(()),
        }
    }

    /// For how long a change by somebody else gets no answer: the last one was just put right.
    fn fought(&self, applier: &Applier<'_>) -> Option<Duration> {
        let before = self.owned.lock().get(&reference(applier)).map(Instant::elapsed);
        before.and_then(|before| PAUSE.checked_sub(before))
    }

    async fn put_right(&self, applier: &Applier<'_>, foreign: Foreign) -> Result<(), Error> {
        match applier.own_template(foreign).await {
            Ok(()) => self.metrics.wrote(),
            // It has changed again: the next pass looks.
            Err(Error::Stale(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.owned.lock().insert(reference(applier), Instant::now());
        Ok(())
    }
}

fn reference(applier: &Applier<'_>) -> ObjectRef<Guarded> {
    ObjectRef::new(applier.cluster.name).within(applier.cluster.namespace)
}
