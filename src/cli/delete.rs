//! `delete`.

use std::os::fd::AsFd;
use std::time::Duration;

use super::store::{Entry, Status, Store};
use super::{Error, Result};
use crate::executor::Remains;
use crate::sys::process;

/// How long a deletion waits for killed processes to end, and then for their groups to go.
pub(super) const KILL_WITHIN: Duration = Duration::from_secs(10);

/// Removes what a container leaves, also what a command that was killed has left of one.
pub(super) fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let find = || match store.load(id) {
        Err(e) if force => store.salvage(id).map_err(|_| e),
        found => found,
    };
    if force && !store.has_state(id) {
        return store.remove_empty(id);
    }
    let entry = find()?;
    let status = entry.status();
    // One that was never started goes as with runc, which buildah relies on; OCI runtime.md has only stopped ones deleted.
    if !force && !matches!(status, Status::Stopped | Status::Created) {
        return Err(Error::Other(format!(
            "cannot delete container {id} that is not stopped: {} (--force kills it)",
            status.name()
        )));
    }
    // A creation that is under way ends with its process, and takes back what it made.
    kill_init(&entry)?;
    let Some(_lock) = entry.lock()? else {
        return if force { Ok(()) } else { find().map(drop) };
    };
    // As it is now: a creation may have gone on before it could be stopped.
    let entry = find()?;
    kill_init(&entry)?;
    let hooks = entry.hooks();
    let cgroup = entry.cgroup()?;
    // A creation that was killed before it had a process may not have looked at its groups yet: they may be others'.
    let is_own = entry.saved.init.is_some() || cgroup.is_marked();
    let remains = Remains {
        id,
        cgroup: is_own.then_some(&cgroup),
        root: entry.saved.root.as_deref(),
        hooks: hooks.as_ref(),
    };
    let gone = remains.kill(KILL_WITHIN)?.remove(KILL_WITHIN)?;
    entry.remove_directory()?;
    gone.run_poststop();
    Ok(())
}

/// Without groups of its own, nothing else says when the container's processes are gone.
fn kill_init(entry: &Entry) -> Result<()> {
    let Some(pidfd) = entry.pidfd() else {
        return Ok(());
    };
    process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    if let Ok(cgroup) = entry.cgroup() {
        // A frozen process does not die on cgroup v1.
        cgroup.set_frozen(false).ok();
    }
    let ended = process::wait_readable(pidfd.as_fd(), Some(KILL_WITHIN));
    if ended.is_ok_and(|ended| ended) {
        return Ok(());
    }
    Err(Error::Other(format!(
        "container {}: its init, {}, was killed and has not ended within {} s: does it wait for a disk or a server?",
        entry.saved.id,
        entry.pid(),
        KILL_WITHIN.as_secs()
    )))
}
