//! What can go wrong with control groups.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a value of the spec.
    #[error("{field}: writing {value:?} to {}: {}", file.display(), source)]
    Refused {
        /// JSON path in the OCI spec.
        field: String,
        /// What was written.
        value: String,
        /// Where it was written.
        file: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The spec asks for what this node's control groups do not have.
    #[error("{field}: {reason}")]
    Unavailable {
        /// JSON path in the OCI spec.
        field: String,
        /// What is missing.
        reason: String,
    },
    /// Anything else that failed.
    #[error("{what} {}: {}", path.display(), source)]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A device program could not be loaded or attached.
    #[error("linux.resources.devices: {what}: {} ({errno:?})", errno.desc())]
    DeviceProgram {
        /// The step that failed.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// systemd is to make the groups, and did not.
    #[error("linux.cgroupsPath: {unit:?}: {reason}")]
    Systemd {
        /// The path, or the unit.
        unit: String,
        /// What is in the way.
        reason: String,
    },
    /// Groups that are others'.
    #[error("linux.cgroupsPath: {}: {reason}: choose a path of the container's own", path.display())]
    Foreign {
        /// The group.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// Processes were still there when the deadline came.
    #[error("cgroup {}: {count} processes did not go away within {within:?}", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
        /// How many are left.
        count: usize,
        /// How long we waited.
        within: Duration,
    },
}

pub(super) type Result<T> = std::result::Result<T, Error>;

pub(super) fn io_error<'a>(
    what: &'static str,
    path: &'a Path,
) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        what,
        path: path.to_owned(),
        source,
    }
}
