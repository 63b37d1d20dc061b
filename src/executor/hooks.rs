//! Running lifecycle hooks, OCI config.md "POSIX-platform Hooks": each gets the container's state on standard input.
//!
//! All kinds but startContainer are programs of the node, run by this process with its rights; a profile lists them. Those of
//! kind createContainer enter the container's namespaces, its user namespace among them, and the node's root as it is seen
//! there: the program, its loader and its libraries are the node's even where the container's root is mounted over `/`
//! already. Those of kind startContainer are the container's own programs: its init runs them ([`start_steps`]), under
//! everything that confines the container, just before the user's program.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;

use super::error::c_string;
use super::namespaces::{CLONE_NEWTIME, JoinedNamespaces};
use super::script::{StartHook, Step};
use super::{Error, Result};
use crate::isolation::Judged;
use crate::oci::{Hook, HookKind, Hooks, Request};
use crate::sys::null;
use crate::sys::process::{self, CStrVec, Entry};

/// How many bytes of a failed hook's output are in the error.
const TOLD: usize = 4096;

/// The container's state as hooks see it, OCI runtime.md "State".
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct State<'a> {
    /// Version of the spec that the state follows.
    pub oci_version: &'a str,
    /// Container id.
    pub id: &'a str,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'a str,
    /// The init's pid as the node sees it; 0 when it is gone. A startContainer hook gets the pid that the container sees.
    pub pid: u32,
    /// Directory of `config.json`.
    pub bundle: &'a Path,
    /// The spec's annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a HashMap<String, String>>,
}

/// The container that hooks are run for.
#[derive(Debug, Clone)]
pub struct HookRunner {
    /// Container id.
    pub id: String,
    /// Directory of `config.json`.
    pub bundle: PathBuf,
    oci_version: String,
    annotations: Option<HashMap<String, String>>,
    hooks: Hooks,
}

/// Where a createContainer hook runs.
pub(super) struct Inside<'a> {
    /// A pidfd of the container's init.
    pub pidfd: BorrowedFd<'a>,
    /// Which of its namespaces are entered.
    pub namespaces: JoinedNamespaces,
    /// The node's root in the init's mount namespace.
    pub root: OwnedFd,
    /// The container's root.
    pub directory: OwnedFd,
    /// Whether the container has users of its own.
    pub mapped: bool,
}

fn status(kind: HookKind) -> &'static str {
    match kind {
        // Also those of kind prestart, which config.md has "after the start operation": they run in the create operation, as with runc.
        HookKind::Prestart | HookKind::CreateRuntime | HookKind::CreateContainer => "creating",
        HookKind::StartContainer => "created",
        HookKind::Poststart => "running",
        HookKind::Poststop => "stopped",
    }
}

impl HookRunner {
    /// `None` where the spec has no hooks at all.
    pub fn new(request: &Judged<Request>, id: &str, bundle: &Path) -> Option<Self> {
        if request.hooks.0.is_empty() {
            return None;
        }
        Some(Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            oci_version: request.rest.version().clone(),
            annotations: request.rest.annotations().clone(),
            hooks: request.hooks.clone(),
        })
    }

    /// The hooks of a container that is gone, as they were judged when it was created.
    pub fn recorded(
        spec: &oci_spec::runtime::Spec,
        judged: Hooks,
        id: &str,
        bundle: &Path,
    ) -> Self {
        Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            oci_version: spec.version().clone(),
            annotations: spec.annotations().clone(),
            hooks: judged,
        }
    }

    /// For tests: the programs of the node that are run.
    #[cfg(any(test, fuzzing, feature = "sabotage"))]
    pub(super) fn of_node(&self) -> impl Iterator<Item = PathBuf> {
        let all = self.hooks.0.iter().filter(|h| h.kind.is_of_node());
        all.map(|h| h.path.clone())
    }

    fn state(&self, kind: HookKind, pid: u32) -> Vec<u8> {
        let state = State {
            oci_version: &self.oci_version,
            id: &self.id,
            status: status(kind),
            pid,
            bundle: &self.bundle,
            annotations: self.annotations.as_ref(),
        };
        serde_json::to_vec(&state).unwrap_or_default()
    }

    /// Runs the hooks of one kind in the spec's order; the first failure ends it. `pid` is the init's.
    pub fn run(&self, kind: HookKind, pid: i32) -> Result<()> {
        let mut hooks = self.hooks.of(kind);
        hooks.try_for_each(|hook| self.run_one(hook, pid, None, None))
    }

    /// The same for those of a creation, which ends with the init: nobody waits for a hook of a container that was killed.
    pub(super) fn run_in_creation(
        &self,
        kind: HookKind,
        (pid, init): (i32, BorrowedFd<'_>),
        inside: Option<&Inside<'_>>,
    ) -> Result<()> {
        let mut hooks = self.hooks.of(kind);
        hooks.try_for_each(|hook| self.run_one(hook, pid, Some(init), inside))
    }

    /// Runs the poststop hooks: all of them, whatever becomes of one. A failure is logged. OCI runtime.md 1.3, "Lifecycle", step 13.
    pub(super) fn run_poststop(&self) {
        for hook in self.hooks.of(HookKind::Poststop) {
            if let Err(e) = self.run_one(hook, 0, None, None) {
                log::warn!(id = self.id, error:% = e; "a hook failed");
            }
        }
    }

    fn run_one(
        &self,
        hook: &Hook,
        pid: i32,
        init: Option<BorrowedFd<'_>>,
        inside: Option<&Inside<'_>>,
    ) -> Result<()> {
        log::debug!(
            id = self.id, hook = hook.kind.name(), path:% = hook.path.display();
            "run hook"
        );
        let state = self.state(hook.kind, pid.unsigned_abs());
        // The bundle may be gone: nothing forbids to remove it once the container is created.
        let directory = Some(self.bundle.as_path()).filter(|dir| dir.is_dir());
        let directory = directory.unwrap_or(Path::new("/"));
        let ended = run_program(hook, &state, directory, init, inside);
        ended.map_err(|reason| Error::Hook {
            kind: hook.kind.name(),
            index: hook.index,
            path: hook.path.clone(),
            reason: reason.to_string(),
        })
    }
}

/// A file in memory, which has neither a reader nor a writer that anybody could wait for.
fn in_memory(content: &[u8]) -> std::io::Result<File> {
    let file = File::from(memfd_create(c"cofferdam-hook", MFdFlags::MFD_CLOEXEC)?);
    file.write_all_at(content, 0)?;
    Ok(file)
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// It could not be run or waited for.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// With the beginning of what it wrote to standard error.
    #[error("{status}{}{said}", if said.is_empty() { "" } else { ": " })]
    Status {
        status: process::WaitStatus,
        said: String,
    },
    /// It was killed, because there is nothing to wait for any more.
    #[error("the container's process has ended")]
    Gone,
    /// It was killed.
    #[error("did not finish within {0} s")]
    Late(u64),
}

fn run_program(
    hook: &Hook,
    state: &[u8],
    directory: &Path,
    init: Option<BorrowedFd<'_>>,
    inside: Option<&Inside<'_>>,
) -> std::result::Result<(), Failure> {
    let mut command = Command::new(&hook.path);
    if let Some((first, rest)) = hook.args.split_first() {
        command.arg0(first).args(rest);
    }
    command.env_clear();
    for entry in hook.env.iter().flatten() {
        if let Some((k, v)) = entry.split_once('=') {
            command.env(k, v);
        }
    }
    let (mut output, theirs) = std::io::pipe()?;
    command
        .current_dir(directory)
        // What it has started ends with it where it is late.
        .process_group(0)
        .stdin(Stdio::from(in_memory(state)?))
        .stdout(Stdio::null())
        .stderr(Stdio::from(theirs));
    if let Some(inside) = inside {
        let entry = Entry {
            pidfd: inside.pidfd.try_clone_to_owned()?,
            // The hook stays in the node's pid and time namespaces: only its children would be in others.
            namespaces: inside.namespaces.flags
                & !(libc::CLONE_NEWPID | libc::CLONE_NEWUSER | CLONE_NEWTIME),
            root: inside.root.try_clone()?,
            directory: inside.directory.try_clone()?,
            mapped: inside.mapped,
        };
        entry.before_exec(&mut command);
    }
    let child = process::spawn(&mut command)?;
    // Its copy of the pipe's end goes with it.
    drop(command);
    let deadline = hook
        .timeout
        .map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut said = Vec::new();
    let mut open = true;
    let status = loop {
        let left = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        let other = if open { output.as_fd() } else { child.as_fd() };
        let watched = [child.as_fd(), other, init.unwrap_or(child.as_fd())];
        let [ended, readable, gone] =
            process::wait_any(watched, left).map_err(std::io::Error::from)?;
        // What it writes is taken, however much it is, or it would wait for ever.
        if readable && open && (!ended || said.len() < TOLD) {
            open = keep_beginning(&mut output, &mut said)?;
        } else if ended {
            if let Some(status) = child.try_wait().map_err(std::io::Error::from)? {
                break status;
            }
        } else if gone && init.is_some() {
            process::kill_group(child.pid());
            return Err(Failure::Gone);
        } else if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            process::kill_group(child.pid());
            return Err(Failure::Late(hook.timeout.unwrap_or_default()));
        }
    };
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(Failure::Status { status, said })
}

/// Reads once, and keeps the first [`TOLD`] bytes. False at the end of the output.
fn keep_beginning(output: &mut impl Read, said: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut buffer = [0; 4096];
    let n = output.read(&mut buffer)?;
    let room = TOLD.saturating_sub(said.len());
    said.extend(buffer.iter().take(n.min(room)));
    Ok(n > 0)
}

/// The wait status of a hook that the container's init has ended because it was late: no process ends with it.
pub(super) const LATE: i32 = -1;

/// How a startContainer hook ended, for people. `what` names it, and it has said this.
pub(super) fn explain(what: &str, status: i32, said: &[u8]) -> Error {
    let mut reason = if status == LATE {
        "did not finish within its timeout".to_owned()
    } else {
        use std::os::unix::process::ExitStatusExt;
        let status = std::process::ExitStatus::from_raw(status);
        match status.signal() {
            Some(libc::SIGSYS) => format!("{status}: bad system call, which linux.seccomp denies"),
            _ => status.to_string(),
        }
    };
    let said = String::from_utf8_lossy(said);
    if !said.trim().is_empty() {
        reason = format!("{reason}: {}", said.trim());
    }
    Error::field(what, reason)
}

/// A number that is put into the state when the init knows its pid, of as many digits as a pid can have.
const PID: u32 = 2_147_483_647;

/// The steps that run a container's startContainer hooks.
pub(super) fn start_steps(subject: Option<&HookRunner>, steps: &mut Vec<Step>) -> Result<()> {
    let Some(subject) = subject else {
        return Ok(());
    };
    let kind = HookKind::StartContainer;
    for hook in subject.hooks.of(kind) {
        let field = hook.field();
        let failed = |e: std::io::Error| Error::field(&field, e.to_string());
        let state = subject.state(kind, PID);
        let marker = format!("\"pid\":{PID}");
        let at = state
            .windows(marker.len())
            .position(|w| w == marker.as_bytes())
            .ok_or_else(|| Error::field(&field, "the state has no pid"))?;
        let strings = |list: &[String]| -> Result<Vec<_>> {
            list.iter().map(|s| c_string(s.as_str(), &field)).collect()
        };
        let path = c_string(hook.path.as_os_str().as_encoded_bytes(), &field)?;
        let argv = if hook.args.is_empty() {
            vec![path.clone()]
        } else {
            strings(&hook.args)?
        };
        steps.push(Step::StartHook(Box::new(StartHook {
            label: format!(
                "error running startContainer hook #{}: {}",
                hook.index,
                hook.path.display()
            ),
            program: path,
            argv: CStrVec::new(argv),
            env: hook
                .env
                .as_deref()
                .map(strings)
                .transpose()?
                .map(CStrVec::new),
            state: in_memory(&state).map_err(failed)?.into(),
            pid_at: at + marker.len(),
            null: null::open(libc::O_RDWR).map_err(|e| failed(e.into()))?,
            timeout: hook.timeout.map(Duration::from_secs),
        })));
    }
    Ok(())
}
