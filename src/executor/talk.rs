//! The parent's half of the conversation with a process that sets itself up: see [`wire`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::script::Step;
use super::wire::{self, Message, NO_EXEC};
use super::{Error, Result};
use crate::seccomp;
use crate::show::shown;
use crate::sys::confine::landlock::EXECUTE;
use crate::sys::{process, socket};

/// How long a seccomp agent may take to take a message.
const AGENT_WITHIN: Duration = Duration::from_secs(5);

/// Receives what a process says, with the descriptor that it hands over; `None` if its end is closed: its program executes, or it
/// is dead. Gives up at a deadline.
pub(super) fn receive<'b>(
    control: &OwnedFd,
    deadline: Option<Instant>,
    buffer: &'b mut [u8; wire::LONGEST],
) -> Result<Option<(Message<'b>, Option<OwnedFd>)>> {
    if let Some(deadline) = deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        let ready = process::wait_readable(control.as_fd(), Some(left))
            .map_err(Error::system("wait for the container's process"))?;
        if !ready {
            return Err(Error::System {
                what: "the process was not set up in time (was it stopped, or can its program not be read?)".into(),
                errno: Errno::ETIMEDOUT,
            });
        }
    }
    let (n, fd) = socket::receive(control.as_fd(), buffer)
        .map_err(Error::system("hear from the container's process"))?;
    if n == 0 {
        return Ok(None);
    }
    let message = buffer.get(..n).and_then(Message::decode);
    message.map_or_else(|| Err(misunderstood()), |message| Ok(Some((message, fd))))
}

pub(super) fn misunderstood() -> Error {
    Error::System {
        what: "understand the container's process".into(),
        errno: Errno::EPROTO,
    }
}

/// What may keep a process from executing its program, beside the program's own mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Suspects {
    /// A list of what may be executed: `landlock.execute`.
    landlock: bool,
    /// A filter that denies execve(2).
    filter: bool,
}

impl Suspects {
    pub(super) fn of(steps: &[Step]) -> Self {
        let denies =
            |step: &Step| matches!(step, Step::Seccomp { program } if program.denies("execve"));
        let lists = |step: &Step| matches!(step, Step::Landlock(rules) if rules.fs & EXECUTE != 0);
        Self {
            landlock: steps.iter().any(lists),
            filter: steps.iter().any(denies),
        }
    }

    /// The rule that denied an execution, for who has to change it.
    fn rule(self, op: &str, errno: Errno) -> Option<&'static str> {
        match (op, errno) {
            (NO_EXEC, _) => Some(
                "it is on a file system that is mounted noexec, by the pod or by its profile's filesystem.no_exec_mounts",
            ),
            // A filter is asked first.
            ("execve", _) if self.filter => {
                Some("a seccomp filter denies execve: the pod's, or its profile's seccomp.actions")
            }
            // The kernel does not say who denied it. A security module could have.
            ("execve", Errno::EACCES) if self.landlock => Some(
                "probably by its profile's landlock.execute, which lists neither the program nor a directory above it, or does not list its interpreter",
            ),
            _ => None,
        }
    }
}

pub(super) fn explain(
    program: &str,
    what: Option<&str>,
    op: &str,
    number: i32,
    suspects: Suspects,
) -> Error {
    let errno = Errno::from_raw(number);
    let exec = |reason: String| Error::Exec {
        program: program.to_owned(),
        reason,
    };
    if let Some(rule) = suspects.rule(op, errno) {
        return exec(format!("permission denied ({rule})"));
    }
    match (op, errno) {
        ("find", Errno::ENOENT) if program.contains('/') => exec(format!(
            "stat {}: no such file or directory",
            shown(program)
        )),
        ("find", Errno::ENOENT) => exec("executable file not found in $PATH".into()),
        ("find" | "execve", Errno::EISDIR) => exec("is a directory".into()),
        ("find" | "execve", Errno::EACCES | Errno::EPERM) => exec("permission denied".into()),
        ("find" | "execve", e) => exec(e.desc().to_lowercase()),
        _ => Error::Step {
            what: what.unwrap_or("set up the container").to_owned(),
            op: op.to_owned(),
            errno,
        },
    }
}

pub(super) fn go_on(control: &OwnedFd) -> Result<()> {
    process::write_all(control.as_fd(), &[wire::GO_ON])
        .map_err(Error::system("answer the container's process"))
}

/// A process whose system calls somebody else decides on: whom to tell, and what.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SeccompAgent {
    pub(super) listener: seccomp::Listener,
    /// OCI runtime.md "State", but for the pid.
    pub(super) state: serde_json::Value,
}

/// The handler in the shim that receives the denials of a process's filters.
#[derive(Clone)]
pub struct NotifyHandler {
    /// The filters in one, which asks.
    pub program: Arc<seccomp::Program>,
    /// Who gets the descriptor to be asked through; called before the process's program is executed.
    pub adopt: Arc<dyn Fn(OwnedFd) + Send + Sync>,
}

impl std::fmt::Debug for NotifyHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifyHandler").finish_non_exhaustive()
    }
}

/// Gives the filter's descriptor to who watches, or sends it to the listener: OCI config-linux.md "The Container Process State".
pub(super) fn hand_over(
    control: &OwnedFd,
    pid: i32,
    pidfd: BorrowedFd<'_>,
    number: i32,
    (watcher, seccomp_agent): (Option<&NotifyHandler>, Option<&SeccompAgent>),
) -> Result<()> {
    if let Some(watcher) = watcher {
        let fd = process::pidfd_getfd(pidfd, number)
            .map_err(Error::system("take the filter's descriptor"))?;
        (watcher.adopt)(fd);
        return go_on(control);
    }
    let Some(SeccompAgent { listener, state }) = seccomp_agent else {
        return Err(Error::field("linux.seccomp.listenerPath", "is missing"));
    };
    let failed = |what: &str, reason: String| {
        Error::field(
            "linux.seccomp.listenerPath",
            format!("{what} {}: {reason}", listener.path.display()),
        )
    };
    let fd = process::pidfd_getfd(pidfd, number)
        .map_err(Error::system("take the filter's descriptor"))?;
    let mut state = state.clone();
    state["pid"] = pid.into();
    let message = serde_json::json!({
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": listener.metadata,
        "state": state
    });
    let connected = socket::connect_at_once(&listener.path).map(UnixStream::from);
    let stream = connected
        .map_err(|e| failed("failed to connect with seccomp agent", e.desc().to_owned()))?;
    stream
        .set_write_timeout(Some(AGENT_WITHIN))
        .map_err(|e| failed("limit the time for", e.to_string()))?;
    socket::send_fd(stream.as_fd(), message.to_string().as_bytes(), fd.as_fd())
        .map_err(|e| failed("send the filter's descriptor to", e.desc().to_owned()))?;
    go_on(control)
}
