//! The admin tokens as they were last read, to save requests: nobody reads a Secret in each pass.
//! Any of them may be read again at any time; nothing is decided on what is here.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use kube::runtime::reflector::ObjectRef;
use parking_lot::Mutex;

use crate::{
    apply::{Applier, Error},
    reconcile::Guarded,
    secrets::AdminToken,
};

/// For how long a Secret is not read again.
const FRESH: Duration = Duration::from_secs(60);

/// The admin token of each cluster.
#[derive(Default)]
pub struct Tokens(Mutex<HashMap<ObjectRef<Guarded>, Known>>);

struct Known {
    /// Its cluster's UID.
    uid: String,
    token: AdminToken,
    /// When it was read; absent: it may be another one by now.
    read: Option<Instant>,
}

impl Tokens {
    /// The cluster's token, read or made if it was not lately.
    pub async fn of(&self, applier: &Applier<'_>) -> Result<AdminToken, Error> {
        let (reference, uid) = (reference(applier), applier.cluster.uid);
        if let Some(known) = self.0.lock().get(&reference)
            && known.uid == uid
            && known.read.is_some_and(|read| read.elapsed() < FRESH)
        {
            return Ok(known.token.clone());
        }
        let token = applier.ensure_tokens().await?;
        let known = Known { uid: uid.into(), token: token.clone(), read: Some(Instant::now()) };
        self.0.lock().insert(reference, known);
        Ok(token)
    }

    /// The token is read again before it is next used.
    pub fn doubt(&self, applier: &Applier<'_>) {
        if let Some(known) = self.0.lock().get_mut(&reference(applier)) {
            known.read = None;
        }
    }

    /// The one that was last used for the cluster of `applier`, if this process has used one.
    pub fn known(&self, applier: &Applier<'_>) -> Option<AdminToken> {
        self.last(&reference(applier))
    }

    /// The one that was last used for a cluster, if this process has used one.
    pub fn last(&self, reference: &ObjectRef<Guarded>) -> Option<AdminToken> {
        self.0.lock().get(reference).map(|known| known.token.clone())
    }

    /// Drops that of a cluster that is gone.
    pub fn forget(&self, reference: &ObjectRef<Guarded>) {
        self.0.lock().remove(reference);
    }
}

fn reference(applier: &Applier<'_>) -> ObjectRef<Guarded> {
    ObjectRef::new(applier.cluster.name).within(applier.cluster.namespace)
}
