//! Children that have an owner, and the reaping of those that have none.
//!
//! The shim is a subreaper: orphans of its containers, and what its hooks and loggers leave behind, become children of the
//! shim. So every child that the shim makes is registered here before it can be taken for such an orphan.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{
    WaitStatus, pidfd_open, pidfd_send_signal, reap_if_dead, try_wait_pidfd, wait_readable,
};

/// How long the drop of a child waits for its end.
const END_WITHIN: Duration = Duration::from_secs(5);

static CHILDREN: Mutex<Children> = Mutex::new(Children {
    owned: BTreeSet::new(),
    being_made: 0,
    look_again: false,
});

#[derive(Debug)]
struct Children {
    /// Pids of the children that have an owner and are not reaped yet.
    owned: BTreeSet<i32>,
    /// How many children are being made: they exist perhaps, and are not in `owned`.
    being_made: usize,
    /// Orphans were not looked for, because a child was being made.
    look_again: bool,
}

fn children() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child is being made. As long as this lives, no child of this process is reaped as an orphan.
#[derive(Debug)]
pub struct Making(());

impl Making {
    /// To be called before the child can exist.
    pub fn begin() -> Self {
        children().being_made += 1;
        Self(())
    }

    /// The owner of a child that was made.
    pub fn own(&self, pid: i32, pidfd: OwnedFd) -> Child {
        children().owned.insert(pid);
        Child {
            pid,
            pidfd,
            done: AtomicBool::new(false),
        }
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        let mut children = children();
        children.being_made -= 1;
        if children.being_made == 0 && std::mem::take(&mut children.look_again) {
            children.reap_orphans();
        }
    }
}

/// Starts a program.
///
/// # Errors
/// As [`Command::spawn`] and `pidfd_open(2)`. No child is left.
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    let making = Making::begin();
    let mut child = command.spawn()?;
    let pid = child.id() as i32;
    match pidfd_open(pid) {
        Ok(pidfd) => Ok(making.own(pid, pidfd)),
        Err(e) => {
            child.kill().ok();
            child.wait().ok();
            Err(e.into())
        }
    }
}

/// Reaps the dead children that nobody owns. To be called after `SIGCHLD`.
pub fn reap_orphans() {
    children().reap_orphans();
}

impl Children {
    fn reap_orphans(&mut self) {
        if self.being_made > 0 {
            self.look_again = true;
            return;
        }
        // The kernel gives orphans to the first thread.
        let list = format!("/proc/self/task/{}/children", std::process::id());
        let list = std::fs::read_to_string(list).unwrap_or_default();
        for pid in list.split_ascii_whitespace().filter_map(|p| p.parse().ok()) {
            if !self.owned.contains(&pid) {
                reap_if_dead(pid);
            }
        }
    }
}

/// A child process. Its owner reaps it with [`Child::try_wait`] or [`Child::wait`]. A child that is dropped before is killed
/// and reaped: an error on the way leaves no process behind.
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

    /// Sends a signal to it. It is to be reaped all the same.
    pub fn signal(&self, signal: i32) {
        pidfd_send_signal(self.as_fd(), signal).ok();
    }

    /// Reaps it if it has ended; `None` while it runs.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has reaped it.
    pub fn try_wait(&self) -> nix::Result<Option<WaitStatus>> {
        // Its pid is free for another child as soon as it is reaped.
        let mut children = children();
        let status = try_wait_pidfd(self.as_fd());
        if !matches!(status, Ok(None)) {
            self.done.store(true, Ordering::Relaxed);
            children.owned.remove(&self.pid);
        }
        status
    }

    /// Waits for its end and reaps it.
    ///
    /// # Errors
    /// `ECHILD` if somebody else has reaped it; those of `poll(2)`.
    pub fn wait(self) -> nix::Result<Option<WaitStatus>> {
        wait_readable(self.as_fd(), None)?;
        self.try_wait()
    }

    /// As [`Child::try_wait`], but waits for its end until `within` has passed.
    ///
    /// # Errors
    /// As [`Child::wait`].
    pub fn wait_within(&self, within: Duration) -> nix::Result<Option<WaitStatus>> {
        wait_readable(self.as_fd(), Some(within))?;
        self.try_wait()
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
        children().owned.remove(&self.pid);
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.done.load(Ordering::Relaxed) {
            self.signal(libc::SIGKILL);
            // A process that the kernel does not let go of must not hold the shim. It is reaped as an orphan later.
            self.wait_within(END_WITHIN).ok();
            children().owned.remove(&self.pid);
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
