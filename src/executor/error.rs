//! What can go wrong in the executor, each message naming the object and the system's own reason.

use std::ffi::CString;
use std::path::PathBuf;

use nix::errno::Errno;

/// An executor error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spec itself.
    #[error(transparent)]
    Spec(#[from] crate::oci::Error),
    /// A field of the spec cannot be honoured.
    #[error("{field}: {reason}")]
    Field {
        /// JSON path.
        field: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The container's control groups.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// A step of the container's set-up failed.
    #[error("{what}: {op}: {} ({errno:?})", errno.desc())]
    Step {
        /// The step, as in `mount proc on /proc`.
        what: String,
        /// The system call.
        op: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The user's program could not be executed. The wording is runc's, which clients match on.
    #[error("exec: {program:?}: {reason}")]
    Exec {
        /// `process.args[0]`.
        program: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The process ended before it was set up.
    #[error(
        "the container's process ended during set-up (while: {0}); was it killed, or did it run out of memory?"
    )]
    Died(String),
    /// A lifecycle hook failed. The beginning is runc's, which clients match on.
    #[error("error running {kind} hook #{index}: {}: {reason}", path.display())]
    Hook {
        /// Such as `createRuntime`.
        kind: &'static str,
        /// Its place among those of its kind.
        index: usize,
        /// The program.
        path: PathBuf,
        /// Exit status with its output, time-out or the system's reason.
        reason: String,
    },
    /// A file system's files cannot belong to other ids on this kernel.
    #[error("user_namespace: {what}: its file system cannot map ids on this kernel: {reason}")]
    Unmappable {
        /// Which one.
        what: String,
        /// The kernel's answer, or what it is too old for.
        reason: String,
    },
    /// A system call of our own failed.
    #[error("{what}: {} ({errno:?})", errno.desc())]
    System {
        /// What we were doing.
        what: String,
        /// The kernel's answer.
        errno: Errno,
    },
}

impl Error {
    /// A field that cannot be honoured.
    pub(crate) fn field(field: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Field {
            field: field.into(),
            reason: reason.into(),
        }
    }

    /// A system call of the runtime that failed.
    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(Errno) -> Self {
        let what = what.into();
        move |errno| Self::System { what, errno }
    }
}

/// A C string, or an error that names the field.
pub(super) fn c_string(text: impl Into<Vec<u8>>, field: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::field(field, "contains a NUL byte"))
}
