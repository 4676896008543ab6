//! Why a reconcile failed.

use kube::core::error_boundary::InvalidObject;

use super::PATIENCE;
use crate::{apply, build, observe, report};

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object does not have the shape of its kind.
    #[error("the ChannelCluster can't be read")]
    Invalid(#[source] Box<InvalidObject>),
    /// It can't be rendered.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// Its state can't be read.
    #[error(transparent)]
    Observe(#[from] observe::Error),
    /// Something can't be written.
    #[error(transparent)]
    Apply(#[from] apply::Error),
    /// The report can't be written.
    #[error(transparent)]
    Report(#[from] report::Error),
    /// Everything in its namespace is being deleted.
    #[error("the namespace is being deleted")]
    NamespaceGoes,
    /// It can't be seen what is left of a cluster that goes.
    #[error("failed to look after the pods of a cluster that goes")]
    Farewell(#[source] Box<kube::Error>),
    /// It hangs.
    #[error("a reconcile took more than {PATIENCE:?}")]
    TooLong,
}

impl Error {
    /// A short fixed word for metrics and logs.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "invalid_object",
            Self::Build(error) => error.category(),
            Self::Observe(error) => error.category(),
            Self::Apply(error) => error.category(),
            Self::Report(error) => error.category(),
            Self::NamespaceGoes => "namespace_goes",
            Self::Farewell(_) => "farewell",
            Self::TooLong => "too_long",
        }
    }

    /// Whether only a change of the object can help.
    pub(super) fn awaits_change(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::Build(_))
    }
}
