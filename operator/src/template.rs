//! Pod templates are the operator's alone. What a pass does first: nothing is planned on one that
//! somebody else has changed. It must never answer such a change at once each time: that would be an
//! endless fight.

use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;

use crate::{
    apply::{Applier, Error, Foreign},
    build::{Kind, Object},
    observe::Seen,
    reconcile::{Context, STALE},
};

/// Who changes it again so soon after it was put right gets no answer before that time is over.
pub const PAUSE: Duration = Duration::from_secs(5);

/// How often a pod template was put right.
pub struct Fight {
    last: Instant,
    /// In a row.
    times: u32,
}

impl Context {
    /// Takes out of the pod template what others put in. If there was something, this pass is over:
    /// when to look again. [`Error::Contested`] when it was taken out just now and is there again.
    pub async fn own_template(
        &self,
        applier: &Applier<'_>,
        seen: &Seen,
    ) -> Result<Option<Duration>, Error> {
        let Some(live) = &seen.stateful_set else { return Ok(None) };
        let Some(foreign) = applier.foreign(live)? else { return Ok(None) };
        self.put_right(applier, foreign).await?;
        Ok(Some(STALE))
    }

    /// The same for `object`, if it is a StatefulSet that is not the nodes': the managed Redis.
    pub async fn own_template_of(
        &self,
        applier: &Applier<'_>,
        object: &Object,
    ) -> Result<(), Error> {
        if object.kind != Kind::StatefulSet {
            return Ok(());
        }
        match applier.foreign_in(object).await? {
            Some(foreign) => self.put_right(applier, foreign).await,
            None => Ok(()),
        }
    }

    async fn put_right(&self, applier: &Applier<'_>, foreign: Foreign) -> Result<(), Error> {
        let reference = ObjectRef::new(applier.cluster.name).within(applier.cluster.namespace);
        let before = self.owned.lock().get(&reference).map(|f| (f.last.elapsed(), f.times));
        let times = match before {
            Some((ago, times)) if ago < PAUSE => return Err(foreign.contested(times)),
            Some((ago, times)) if ago < PAUSE * 3 => times.saturating_add(1),
            _ => 1,
        };
        match applier.own_template(foreign).await {
            Ok(()) => self.metrics.wrote(),
            // It has changed again: the next pass looks.
            Err(Error::Stale(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        self.owned.lock().insert(reference, Fight { last: Instant::now(), times });
        Ok(())
    }
}
