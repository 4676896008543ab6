//! What a pass does first: nothing is planned on a pod template that somebody else has changed.

use std::time::{Duration, Instant};

use kube::runtime::reflector::ObjectRef;

use crate::{
    apply::{Applier, Error},
    observe::Seen,
    reconcile::Context,
};

/// Who changes it again so soon after it was put right does not get an answer at once.
const SOON: Duration = Duration::from_secs(15);
/// The pause in which nothing is answered.
const PAUSE: Duration = Duration::from_secs(5);

impl Context {
    /// Takes out of the pod template what others put in; whether there was something, and this
    /// pass is over.
    pub async fn own_template(&self, applier: &Applier<'_>, seen: &Seen) -> Result<bool, Error> {
        let Some(live) = &seen.stateful_set else { return Ok(false) };
        match applier.own_template(live).await {
            Ok(false) => return Ok(false),
            Ok(true) => self.metrics.wrote(),
            Err(Error::Stale(_)) => return Ok(true),
            Err(error) => return Err(error),
        }
        let reference = ObjectRef::new(applier.cluster.name).within(applier.cluster.namespace);
        let before = self.owned.lock().insert(reference, Instant::now());
        if before.is_some_and(|before| before.elapsed() < SOON) {
            tokio::time::sleep(PAUSE).await;
        }
        Ok(true)
    }
}
