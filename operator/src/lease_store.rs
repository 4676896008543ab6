//! The Lease object behind [`crate::leader`]: reading and writing it, nothing else. It must never
//! decide who leads.

use std::time::Duration;

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};

use crate::leader::LeaseStore;

/// What a lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRecord {
    /// Who holds it; `None` when it was released.
    pub holder: Option<String>,
    /// How long others must wait after the last change.
    pub duration_seconds: u32,
    /// When the holder took it. For people: nothing is decided by it.
    pub acquired: Option<MicroTime>,
    /// When it was last renewed. For people: nothing is decided by it.
    pub renewed: Option<MicroTime>,
    /// How often it changed hands.
    pub transitions: i32,
}

impl LeaseRecord {
    /// A lease that nobody held before.
    pub fn first(identity: &str, lease: Duration) -> Self {
        Self {
            holder: Some(identity.into()),
            duration_seconds: seconds(lease),
            acquired: Some(now()),
            renewed: Some(now()),
            transitions: 0,
        }
    }

    /// This lease taken or, when it is `ours` already, renewed.
    pub fn taken(&self, identity: &str, lease: Duration, ours: bool) -> Self {
        Self {
            holder: Some(identity.into()),
            duration_seconds: seconds(lease),
            acquired: if ours { self.acquired.clone() } else { Some(now()) },
            renewed: Some(now()),
            transitions: if ours { self.transitions } else { self.transitions.saturating_add(1) },
        }
    }
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX).max(1)
}

fn now() -> MicroTime {
    MicroTime(jiff::Timestamp::now())
}

/// A lease together with its resourceVersion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// What it says.
    pub record: LeaseRecord,
    /// The version to replace it at.
    pub version: String,
}

impl Versioned {
    /// Whether nobody wrote the lease in between.
    pub fn same(&self, other: &Self) -> bool {
        self.version == other.version && self.record == other.record
    }
}

/// Why a lease can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote it meanwhile.
    #[error("somebody else wrote the lease meanwhile")]
    Conflict,
    /// The API server was not reached or said no.
    #[error("failed to call the API server for the lease")]
    Api(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl StoreError {
    /// Whether the API server does not let this process read or write the lease.
    pub fn denied(&self) -> bool {
        let Self::Api(error) = self else { return false };
        matches!(
            error.downcast_ref::<kube::Error>(),
            Some(kube::Error::Api(status)) if status.code == 403
        )
    }
}

impl From<kube::Error> for StoreError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            other => Self::Api(Box::new(other)),
        }
    }
}

/// A Lease object.
pub struct KubeLeases {
    api: Api<Lease>,
    name: String,
}

impl KubeLeases {
    /// The Lease `name` in `namespace`.
    pub fn new(client: kube::Client, namespace: &str, name: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), name: name.into() }
    }

    fn object(&self, record: &LeaseRecord, version: Option<&str>) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                resource_version: version.map(Into::into),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(record.holder.clone().unwrap_or_default()),
                lease_duration_seconds: i32::try_from(record.duration_seconds).ok(),
                acquire_time: record.acquired.clone(),
                renew_time: record.renewed.clone(),
                lease_transitions: Some(record.transitions),
                ..LeaseSpec::default()
            }),
        }
    }
}

fn versioned(lease: Lease) -> Versioned {
    let spec = lease.spec.unwrap_or_default();
    Versioned {
        record: LeaseRecord {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            duration_seconds: spec
                .lease_duration_seconds
                .and_then(|seconds| u32::try_from(seconds).ok())
                .unwrap_or(0),
            acquired: spec.acquire_time,
            renewed: spec.renew_time,
            transitions: spec.lease_transitions.unwrap_or(0),
        },
        version: lease.metadata.resource_version.unwrap_or_default(),
    }
}

impl LeaseStore for KubeLeases {
    async fn get(&self) -> Result<Option<Versioned>, StoreError> {
        Ok(self.api.get_opt(&self.name).await?.map(versioned))
    }

    async fn create(&self, record: &LeaseRecord) -> Result<Versioned, StoreError> {
        let made = self.api.create(&PostParams::default(), &self.object(record, None)).await?;
        Ok(versioned(made))
    }

    async fn replace(&self, record: &LeaseRecord, version: &str) -> Result<Versioned, StoreError> {
        let object = self.object(record, Some(version));
        Ok(versioned(self.api.replace(&self.name, &PostParams::default(), &object).await?))
    }
}
