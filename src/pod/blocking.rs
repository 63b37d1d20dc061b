//! What the methods of a pod that block have in common.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Error, Result};
use crate::sys;
use crate::sys::process::Child;

/// How long a deletion waits for killed processes to end, and then for the kernel to let go of their groups.
pub(super) const REMOVE_WITHIN: Duration = Duration::from_secs(5);

/// Runs blocking work off the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|e| Err(Error::Unknown(format!("internal error: {e}"))))
}

pub(super) fn console_size(process: Option<&oci_spec::runtime::Process>) -> Option<(u16, u16)> {
    let size = process?.console_size()?;
    Some((
        u16::try_from(size.width()).ok()?,
        u16::try_from(size.height()).ok()?,
    ))
}

pub(super) fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    let own = fd.as_fd().try_clone_to_owned();
    own.map_err(|e| Error::Unknown(format!("duplicate a pidfd: {e}")))
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` wants it
pub(super) fn no_streams(e: io::Error) -> Error {
    Error::Unknown(format!("standard streams: {e}"))
}

pub(super) fn watchable(child: Child) -> Result<AsyncFd<Child>> {
    sys::reactor::register(child, Interest::READABLE)
        .map_err(|e| Error::Unknown(format!("watch a process: {e}")))
}
