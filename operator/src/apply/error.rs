//! Why something could not be written, and what follows from it.

use kube::core::Status;

use crate::build::Kind;

/// So many in a row are no hiccup.
pub(crate) const PERSISTENT: u32 = 3;

/// What is told of a field that was taken out `times` times in a row, and is there again.
fn contested(times: u32) -> &'static str {
    if times >= PERSISTENT {
        "is put in by somebody else each time that the operator takes it out: find out by its \
         managedFields who does, and stop that"
    } else {
        "was put in by somebody else once more: it is taken out in a few seconds"
    }
}

/// Why something could not be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server was not reached or said no.
    #[error("failed to {verb} {kind:?} {name}")]
    Api {
        /// What was tried.
        verb: &'static str,
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// A pod could not be read or patched.
    #[error("failed to read or patch pod {name}")]
    Pod {
        /// Its name.
        name: String,
        /// The answer.
        #[source]
        source: Box<kube::Error>,
    },
    /// The pods could not be read.
    #[error("failed to read the cluster's pods")]
    Pods(#[source] Box<kube::Error>),
    /// The cluster itself could not be read.
    #[error("failed to read the ChannelCluster")]
    Cluster(#[source] Box<kube::Error>),
    /// An object can't be written as JSON.
    #[error("failed to read an object as JSON")]
    Json(#[from] serde_json::Error),
    /// The name is taken by an object that is not this cluster's.
    #[error(
        "{kind:?} {name} exists and is not this cluster's: delete that {kind:?}, or give the cluster \
         another name"
    )]
    Foreign {
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
    },
    /// The API server would take what is written, but not in place of what stands there.
    #[error("{kind:?} {name} can't be made what the spec asks for of what it is now")]
    InTheWay {
        /// The object's kind.
        kind: Kind,
        /// The object's name.
        name: String,
        /// The answer.
        #[source]
        answer: Box<Status>,
    },
    /// Somebody else puts into a pod template what the operator takes out.
    #[error("StatefulSet {name}: {added} {}", contested(*.times))]
    Contested {
        /// The object's name.
        name: String,
        /// The path of the field.
        added: String,
        /// How often in a row it was taken out.
        times: u32,
    },
    /// The object changed between the decision and the write.
    #[error("{0} changed meanwhile; looking again")]
    Stale(String),
    /// This process does not lead any more.
    #[error("not the leader any more")]
    NotLeading,
}

impl Error {
    pub(crate) fn api(verb: &'static str, kind: Kind, name: &str, source: kube::Error) -> Self {
        match &source {
            kube::Error::Api(status) if status.code == 409 => {
                Self::Stale(format!("{kind:?} {name}"))
            }
            _ => Self::Api { verb, kind, name: name.into(), source: Box::new(source) },
        }
    }

    /// Whether it failed only because the namespace is being deleted, and everything with it.
    pub fn namespace_goes(&self) -> bool {
        let (Self::Api { source, .. } | Self::Pod { source, .. }) = self else { return false };
        let kube::Error::Api(answer) = &**source else { return false };
        let causes = answer.details.iter().flat_map(|details| &details.causes);
        causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    }

    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api { .. } => "apply",
            Self::Pod { .. } | Self::Pods(_) => "pod",
            Self::Cluster(_) => "cluster",
            Self::Json(_) => "json",
            Self::Foreign { .. } => "foreign_object",
            Self::InTheWay { .. } => "in_the_way",
            Self::Contested { .. } => "contested",
            Self::Stale(_) => "stale",
            Self::NotLeading => "not_leading",
        }
    }
}
