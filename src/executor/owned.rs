//! A child process that has an owner, and what a creation takes back when it fails.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::hooks;
use crate::cgroup::{Cgroup, Placeholder};
use crate::isolation::Judged;
use crate::oci::{HookKind, Request};
use crate::sys::mount::umount_detach;
use crate::sys::process::{self, WaitStatus};

/// The children that the executor made and nobody has reaped yet. Orphans of a container that shares the node's pid
/// namespace become children of the shim too, and must be told apart.
static OWN_CHILDREN: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// How long the removal of what a failed creation made may take.
const UNDO_WITHIN: Duration = Duration::from_secs(5);

/// Whether the executor made this child, and nobody has reaped it yet.
pub fn is_own_child(pid: i32) -> bool {
    registry().0.contains(&pid)
}

/// The list of children, locked.
pub(super) struct Registry(MutexGuard<'static, BTreeSet<i32>>);

/// Locks the list of children. It is held over a clone, so that the child is known before anybody can see it.
pub(super) fn registry() -> Registry {
    Registry(OWN_CHILDREN.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Registry {
    /// The owner of a child that was just made.
    pub fn own(&mut self, pid: i32, pidfd: OwnedFd) -> Child {
        self.0.insert(pid);
        Child {
            pid,
            pidfd,
            done: AtomicBool::new(false),
        }
    }
}

/// A child of the executor's. Its owner reaps it with [`Child::try_wait`] or [`Child::wait`]. A child that is dropped before is
/// killed and reaped: an error on the way leaves no process behind.
#[derive(Debug)]
pub struct Child {
    pid: i32,
    pidfd: OwnedFd,
    /// It was reaped, or is left to itself.
    done: AtomicBool,
}

impl Child {
    /// Its pid in the node's pid namespace.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Kills it. It is to be reaped all the same.
    pub fn kill(&self) {
        process::pidfd_send_signal(self.as_fd(), libc::SIGKILL).ok();
    }

    /// Reaps it if it has ended; `None` while it runs.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has reaped it.
    pub fn try_wait(&self) -> nix::Result<Option<WaitStatus>> {
        self.reap()
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has reaped it.
    pub fn wait(self) -> nix::Result<Option<WaitStatus>> {
        self.wait_for_end(PollTimeout::NONE);
        self.reap()
    }

    /// Another descriptor of it: to send signals, or to wait for its end.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn pidfd(&self) -> std::io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    /// It lives on without an owner.
    pub fn leave(self) {
        self.done.store(true, Ordering::Relaxed);
        registry().0.remove(&self.pid);
    }

    fn wait_for_end(&self, within: PollTimeout) {
        let mut fds = [PollFd::new(self.as_fd(), PollFlags::POLLIN)];
        while poll(&mut fds, within) == Err(Errno::EINTR) {}
    }

    fn reap(&self) -> nix::Result<Option<WaitStatus>> {
        // Its pid is free for another child as soon as it is reaped.
        let mut registry = registry();
        let status = process::wait_pidfd(self.as_fd(), false);
        if !matches!(status, Ok(None)) {
            self.done.store(true, Ordering::Relaxed);
            registry.0.remove(&self.pid);
        }
        status
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.done.load(Ordering::Relaxed) {
            self.kill();
            // One that cannot be killed, because the kernel does not let go of it, must not hold the shim.
            let within = PollTimeout::try_from(UNDO_WITHIN).unwrap_or(PollTimeout::MAX);
            self.wait_for_end(within);
            self.reap().ok();
        }
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl AsRawFd for Child {
    fn as_raw_fd(&self) -> RawFd {
        self.pidfd.as_raw_fd()
    }
}

/// What a creation has made beside its process. Dropped, it removes that: the control groups with all processes in them, the
/// root of a container without a mount namespace; and it runs the poststop hooks, since hooks of the creation may have run.
#[derive(Debug, Default)]
pub struct Undo<'a> {
    made: Option<Made<'a>>,
}

#[derive(Debug)]
struct Made<'a> {
    request: &'a Request,
    cgroup: Option<&'a Cgroup>,
    hooks: Option<&'a hooks::HookRunner>,
    /// Held until a process of the container is in the groups.
    placeholder: Option<Placeholder>,
}

impl<'a> Undo<'a> {
    pub(super) fn new(
        request: &'a Judged<Request>,
        cgroup: Option<&'a Cgroup>,
        hooks: Option<&'a hooks::HookRunner>,
        placeholder: Option<Placeholder>,
    ) -> Self {
        let made = Made {
            request,
            cgroup,
            hooks,
            placeholder,
        };
        Self { made: Some(made) }
    }

    pub(super) fn hooks(&self) -> Option<&'a hooks::HookRunner> {
        self.made.as_ref()?.hooks
    }

    /// A process of the container is in the groups.
    pub(super) fn drop_placeholder(&mut self) {
        if let Some(made) = &mut self.made {
            made.placeholder = None;
        }
    }

    /// The container is made: nothing is taken back.
    pub fn keep(mut self) {
        self.made = None;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        let Some(mut made) = self.made.take() else {
            return;
        };
        made.placeholder = None;
        if let Some(cgroup) = made.cgroup {
            cgroup.kill_and_wait(UNDO_WITHIN).ok();
            cgroup.remove(UNDO_WITHIN).ok();
        }
        if let Some(hooks) = made.hooks {
            hooks.run_all_logged(HookKind::Poststop, 0);
        }
        unmount_root(made.request);
    }
}

/// Takes away the mounts of a container without a mount namespace of its own; those of all others went with theirs.
pub fn unmount_root(request: &Request) {
    let rootfs = request.root.source.path.as_os_str();
    let path = CString::new(rootfs.as_encoded_bytes()).ok();
    if let (true, Some(path)) = (request.namespaces.mount.is_host(), path) {
        umount_detach(&path).ok();
    }
}
