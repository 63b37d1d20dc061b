//! The pod's errors, by the kind that a client acts on.

/// A refused or failed request.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No such container or process, or it has ended and there is nothing to signal.
    #[error("{0}")]
    NotFound(String),
    /// The id is taken.
    #[error("{0}")]
    AlreadyExists(String),
    /// Not possible in this state.
    #[error("{0}")]
    FailedPrecondition(String),
    /// The request itself is wrong.
    #[error("{0}")]
    InvalidArgument(String),
    /// Not part of this version.
    #[error("{0}")]
    Unimplemented(String),
    /// Everything else.
    #[error("{0}")]
    Unknown(String),
}

impl From<crate::id::InvalidId> for Error {
    fn from(e: crate::id::InvalidId) -> Self {
        Self::InvalidArgument(e.to_string())
    }
}

impl From<crate::executor::Error> for Error {
    fn from(e: crate::executor::Error) -> Self {
        Self::Unknown(e.to_string())
    }
}

impl From<crate::oci::Error> for Error {
    fn from(e: crate::oci::Error) -> Self {
        Self::Unknown(e.to_string())
    }
}

impl From<crate::cgroup::Error> for Error {
    fn from(e: crate::cgroup::Error) -> Self {
        Self::Unknown(e.to_string())
    }
}

impl From<crate::stdio::Error> for Error {
    fn from(e: crate::stdio::Error) -> Self {
        Self::Unknown(e.to_string())
    }
}
