//! Writes what was rendered, by server-side apply: one field manager, forced, always the whole
//! intent, never what was read back. Nothing is sent when the object already is as rendered.
//!
//! The StatefulSet's cursor and template are applied together. When the plan keeps the template,
//! the rendering that is in force is applied again from annotation `sluice.dev/template`: it is
//! what this operator, or an earlier release, rendered, not what the API server answered. Should
//! the annotation be gone or not match its hash, today's rendering is applied: as it is in force, if
//! its hashes say so, or else as a template that is pending. While that is held back, by a pause, only
//! the cursor's fields are patched.
//!
//! It must never write unless this process leads ([`Leadership`]), and never take over an object
//! that somebody else made.
//!
//! # Rights
//!
//! In each namespace that is looked after (or for the whole Kubernetes cluster):
//!
//! | group | resources | verbs |
//! |---|---|---|
//! | sluice.dev | channelclusters | get list watch |
//! | sluice.dev | channelclusters/status | patch |
//! | sluice.dev | channelclusters/finalizers | update (for `blockOwnerDeletion`) |
//! | apps | statefulsets | get list watch create patch delete |
//! | (core) | services | get list watch create patch delete |
//! | (core) | configmaps | get list watch create patch delete |
//! | (core) | serviceaccounts | get list watch create patch |
//! | policy | poddisruptionbudgets | get list watch create patch delete |
//! | (core) | secrets | get create patch delete |
//! | (core) | pods | get list watch patch |
//! | (core) | namespaces | get (the one, to see whether it is being deleted) |
//! | events.k8s.io | events | list create patch |
//!
//! In the operator's own namespace: coordination.k8s.io leases, create; get and update by name. For
//! evictions (`crate::webhook`) also, anywhere: nodes, get; and by name, get and patch, its
//! validatingwebhookconfiguration and its Secret.

mod error;
mod template;
mod way;

pub use error::Error;
pub(crate) use error::PERSISTENT;
pub use template::Foreign;

use k8s_openapi::{
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Secret, Service, ServiceAccount},
        policy::v1::PodDisruptionBudget,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Map, Value, json};
use sluice_crds::names;

use crate::{
    build::{AUTH_CONF, Cluster, Cut, Kind, Object, PASSWORD, TEMPLATE, URL, Workload, short_hash},
    diff::first_difference,
    heal,
    leader::Leadership,
    model::{Cursor, TemplateStep},
    stores::{self, Stores},
};

/// How a patch that is no apply is written: in the operator's name.
pub(crate) fn managed() -> PatchParams {
    PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() }
}

impl Kind {
    /// The kind as the API server knows it.
    pub fn resource(self) -> ApiResource {
        match self {
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::ServiceAccount => ApiResource::erase::<ServiceAccount>(&()),
            Self::ConfigMap => ApiResource::erase::<ConfigMap>(&()),
            Self::Secret => ApiResource::erase::<Secret>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::PodDisruptionBudget => ApiResource::erase::<PodDisruptionBudget>(&()),
        }
    }
}

/// Writes the objects of one cluster.
pub struct Applier<'a> {
    /// The API server.
    pub client: &'a Client,
    /// The last known state of what was made.
    pub stores: &'a Stores,
    /// Whether this process may write.
    pub leadership: &'a Leadership,
    /// The cluster.
    pub cluster: Cluster<'a>,
}

impl Applier<'_> {
    /// Makes `object` be as rendered; whether something had to be written.
    pub async fn ensure(&self, object: &Object) -> Result<bool, Error> {
        let known = self.stores.get(object.kind, self.cluster.namespace, &object.name);
        if let Some(known) = known
            && matches!(differs(object, &serde_json::to_value(&*known)?), Differs::No)
        {
            return Ok(false);
        }
        // What is known may be older than our own last write.
        let live = self.live(object.kind, &object.name).await?;
        match live {
            None => self.apply(object, "all of it").await?,
            Some(live) => match differs(object, &serde_json::to_value(&live)?) {
                Differs::No => return Ok(false),
                Differs::At(path) => self.apply(object, &path).await?,
                Differs::Opened(patch) => self.take_out(object, patch).await?,
                Differs::Frozen => self.remake(object, live).await?,
            },
        }
        Ok(true)
    }

    /// Deletes the object if it is there and this cluster's; whether it was.
    pub async fn ensure_absent(&self, kind: Kind, name: &str) -> Result<bool, Error> {
        if stores::WATCHED.contains(&kind) && !self.knows(kind, name) {
            return Ok(false);
        }
        let live = match self.live(kind, name).await {
            Ok(Some(live)) => live,
            Ok(None) | Err(Error::Foreign { .. }) => return Ok(false),
            Err(error) => return Err(error),
        };
        // A Secret that a person brought is the cluster's from when it was taken over, not before.
        let made = kind != Kind::Secret || controller(&live.metadata) == Some(self.cluster.uid);
        if live.metadata.deletion_timestamp.is_some() || !made {
            return Ok(false);
        }
        let deleted = self.delete(kind, name, live.metadata.uid).await?;
        if deleted {
            tracing::info!(?kind, name, "deleted: the spec does not ask for it any more");
        }
        Ok(deleted)
    }

    /// Deletes the managed Redis; whether there was one.
    pub async fn ensure_no_redis(&self, absent: &[(Kind, String)]) -> Result<bool, Error> {
        if !absent.iter().any(|(kind, name)| self.knows(*kind, name)) {
            return Ok(false);
        }
        let mut deleted = false;
        for (kind, name) in absent {
            deleted |= self.ensure_absent(*kind, name).await?;
        }
        Ok(deleted)
    }

    /// Whether the object was there when the watches last told, and was this cluster's.
    fn knows(&self, kind: Kind, name: &str) -> bool {
        let known = self.stores.get(kind, self.cluster.namespace, name);
        known.is_some_and(|known| is_ours(kind, &known, &self.cluster))
    }

    /// Brings the StatefulSet to `cursor`, in one write. `live` was read just now, and the write
    /// fails if it has changed since.
    pub async fn ensure_workload(
        &self,
        workload: &Workload,
        live: Option<&DynamicObject>,
        cursor: &Cursor,
        rollout: Option<String>,
    ) -> Result<bool, Error> {
        let name = self.cluster.name;
        if let Some(live) = live {
            self.ours(Kind::StatefulSet, name, live)?;
        }
        let kept = live.and_then(|live| {
            Kept::of(&live.metadata).or_else(|| Kept::today(&live.metadata, workload))
        });
        let today = (&workload.template, &*workload.template_hash, &*workload.spec_hash);
        let (template, rollout) = match (live, cursor.template, &kept) {
            (None, ..) | (_, TemplateStep::Apply, _) => (today, rollout),
            (Some(_), TemplateStep::Keep, Some(kept)) => {
                ((&kept.template, &*kept.template_hash, &*kept.spec_hash), kept.rollout.clone())
            }
            (Some(live), TemplateStep::Keep, None) => return self.patch_cursor(live, cursor).await,
        };
        let mut object = workload.stateful_set(&Cut {
            replicas: cursor.replicas,
            start: cursor.ordinals_start,
            partition: cursor.partition,
            rollout,
            template,
        });
        let what = match live {
            None => "all of it".into(),
            Some(live) => match first_difference(&object.value, &serde_json::to_value(live)?) {
                None => return Ok(false),
                Some(path) => path,
            },
        };
        if let Some(version) = live.and_then(|live| live.metadata.resource_version.as_deref()) {
            object.value["metadata"]["resourceVersion"] = version.into();
        }
        self.apply(&object, &what).await?;
        Ok(true)
    }

    async fn patch_cursor(&self, live: &DynamicObject, cursor: &Cursor) -> Result<bool, Error> {
        let spec = json!({
            "replicas": cursor.replicas,
            "ordinals": { "start": cursor.ordinals_start },
            "updateStrategy": {
                "type": "RollingUpdate", "rollingUpdate": { "partition": cursor.partition },
            },
        });
        if first_difference(&spec, &live.data["spec"]).is_none() {
            return Ok(false);
        }
        let name = self.cluster.name;
        tracing::warn!(
            name,
            "the StatefulSet lost annotation {TEMPLATE}: patching the cursor only"
        );
        let patch = json!({
            "metadata": { "resourceVersion": live.metadata.resource_version },
            "spec": spec,
        });
        self.patch(Kind::StatefulSet, name, Patch::Merge(patch)).await?;
        Ok(true)
    }

    /// Patches an object in the operator's name.
    async fn patch(&self, kind: Kind, name: &str, patch: Patch<Value>) -> Result<(), Error> {
        self.may_write()?;
        self.api(kind)
            .patch(name, &managed(), &patch)
            .await
            .map(drop)
            .map_err(|source| Error::api("patch", kind, name, source))
    }

    /// Reads the object; an error when it is not this cluster's.
    pub async fn live(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, Error> {
        let live = self
            .api(kind)
            .get_opt(name)
            .await
            .map_err(|source| Error::api("read", kind, name, source))?;
        if let Some(live) = &live {
            self.ours(kind, name, live)?;
        }
        Ok(live)
    }

    async fn apply(&self, object: &Object, what: &str) -> Result<(), Error> {
        let Object { kind, name, value } = object;
        self.may_write()?;
        let params = PatchParams::apply(names::FIELD_MANAGER).force();
        let api = self.api(*kind);
        let mut answer = api.patch(name, &params, &Patch::Apply(value)).await;
        if let Err(kube::Error::Api(status)) = &answer
            && heal::may_collide(status.code)
            && self.make_way(object).await?
        {
            self.may_write()?;
            answer = api.patch(name, &params, &Patch::Apply(value)).await;
        }
        if let Err(source) = answer {
            return Err(self.refused(object, source).await);
        }
        tracing::info!(?kind, name, differs = what, "applied");
        Ok(())
    }

    fn ours(&self, kind: Kind, name: &str, live: &DynamicObject) -> Result<(), Error> {
        if is_ours(kind, live, &self.cluster) {
            Ok(())
        } else {
            Err(Error::Foreign { kind, name: name.into() })
        }
    }

    pub(crate) fn may_write(&self) -> Result<(), Error> {
        if self.leadership.still_valid() { Ok(()) } else { Err(Error::NotLeading) }
    }

    fn api(&self, kind: Kind) -> kube::Api<DynamicObject> {
        stores::api(self.client, Some(self.cluster.namespace), kind)
    }
}

/// How a live object differs from the rendered one.
enum Differs {
    No,
    /// By this field, which an apply brings back.
    At(String),
    /// By what was added to a Service; this patch takes it out.
    Opened(Value),
    /// It can't be changed any more.
    Frozen,
}

fn differs(object: &Object, live: &Value) -> Differs {
    if heal::frozen(object.kind, live) {
        return Differs::Frozen;
    }
    if let Some(path) = first_difference(&object.value, live) {
        return Differs::At(path);
    }
    let opened = (object.kind == Kind::Service).then(|| heal::service_patch(&object.value, live));
    opened.flatten().map_or(Differs::No, Differs::Opened)
}

/// Whether an object is `cluster`'s: controlled by it, or by nobody and labelled for it (restored
/// from a backup), or a Secret that a person may bring along, see [`brought`].
fn is_ours(kind: Kind, live: &DynamicObject, cluster: &Cluster<'_>) -> bool {
    let meta = &live.metadata;
    controller(meta).map_or_else(
        || {
            let label = meta.labels.as_ref().and_then(|labels| labels.get(names::CLUSTER_LABEL));
            label.is_some_and(|label| label == cluster.name)
                || (kind == Kind::Secret && brought(live, cluster))
        },
        |owner| owner == cluster.uid,
    )
}

/// The UID of what controls an object.
fn controller(meta: &ObjectMeta) -> Option<&str> {
    let mut owners = meta.owner_references.iter().flatten();
    owners.find(|owner| owner.controller == Some(true)).map(|owner| &*owner.uid)
}

/// Whether a Secret that nobody controls is meant for the cluster: the one with tokens of one's own by
/// its name; that of Redis only if it holds a password, and nothing but what that of a managed Redis
/// does. The URL of a Redis of one's own may have the same name.
fn brought(secret: &DynamicObject, cluster: &Cluster<'_>) -> bool {
    let name = secret.metadata.name.as_deref();
    let of_redis = |keys: &Map<String, Value>| {
        keys.contains_key(PASSWORD)
            && keys.keys().all(|key| [PASSWORD, URL, AUTH_CONF].contains(&key.as_str()))
    };
    name == Some(&names::tokens_secret(cluster.name))
        || (name == Some(&names::redis(cluster.name))
            && secret.data["data"].as_object().is_some_and(of_redis))
}

/// The rendering that is in force, from the StatefulSet's annotations.
pub(crate) struct Kept {
    template: Value,
    template_hash: String,
    spec_hash: String,
    rollout: Option<String>,
}

impl Kept {
    /// As it was recorded.
    pub(crate) fn of(meta: &ObjectMeta) -> Option<Self> {
        let annotations = meta.annotations.as_ref()?;
        let template: Value = serde_json::from_str(annotations.get(TEMPLATE)?).ok()?;
        let template_hash = annotations.get(names::TEMPLATE_HASH)?.clone();
        (short_hash(&template) == template_hash).then_some(())?;
        Some(Self {
            template,
            template_hash,
            spec_hash: annotations.get(names::SPEC_HASH).cloned().unwrap_or_default(),
            rollout: annotations.get(names::ROLLOUT_STARTED_AT).cloned(),
        })
    }

    /// Of a record that is gone: today's rendering, if it is by both hashes the one in force.
    fn today(meta: &ObjectMeta, workload: &Workload) -> Option<Self> {
        let annotations = meta.annotations.as_ref()?;
        let same = |key, hash| annotations.get(key) == Some(hash);
        let in_force = same(names::TEMPLATE_HASH, &workload.template_hash)
            && same(names::SPEC_HASH, &workload.spec_hash);
        in_force.then(|| Self {
            template: workload.template.clone(),
            template_hash: workload.template_hash.clone(),
            spec_hash: workload.spec_hash.clone(),
            rollout: annotations.get(names::ROLLOUT_STARTED_AT).cloned(),
        })
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
