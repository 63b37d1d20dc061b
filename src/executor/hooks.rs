//! Lifecycle hooks, OCI config.md "POSIX-platform Hooks": each gets the container's state on standard input.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Hook, Hooks, Spec};
use serde::Serialize;

use super::{Error, Result};
use crate::sys::process::in_namespaces;

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
    /// The init's pid as the node sees it; 0 when it is gone.
    pub pid: i32,
    /// Directory of `config.json`.
    pub bundle: &'a Path,
    /// The spec's annotations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub annotations: Option<&'a HashMap<String, String>>,
}

/// The container that hooks are run for.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Container id.
    pub id: String,
    /// Directory of `config.json`.
    pub bundle: std::path::PathBuf,
    oci_version: String,
    annotations: Option<HashMap<String, String>>,
    hooks: Hooks,
}

/// A kind of hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// In the runtime's namespace, deprecated but in use.
    Prestart,
    /// In the runtime's namespace.
    CreateRuntime,
    /// In the container's namespaces, before its root is the root.
    CreateContainer,
    /// In the container, before the user's program.
    StartContainer,
    /// In the runtime's namespace, after the user's program began. A failure is logged.
    Poststart,
    /// In the runtime's namespace, after the container is deleted. A failure is logged.
    Poststop,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Prestart => "prestart",
            Self::CreateRuntime => "createRuntime",
            Self::CreateContainer => "createContainer",
            Self::StartContainer => "startContainer",
            Self::Poststart => "poststart",
            Self::Poststop => "poststop",
        }
    }

    fn status(self) -> &'static str {
        match self {
            Self::CreateRuntime | Self::CreateContainer => "creating",
            // OCI config.md has prestart "after the start operation is called".
            Self::Prestart | Self::StartContainer => "created",
            Self::Poststart => "running",
            Self::Poststop => "stopped",
        }
    }

    #[allow(deprecated)]
    fn of(self, hooks: &Hooks) -> &[Hook] {
        match self {
            Self::Prestart => hooks.prestart(),
            Self::CreateRuntime => hooks.create_runtime(),
            Self::CreateContainer => hooks.create_container(),
            Self::StartContainer => hooks.start_container(),
            Self::Poststart => hooks.poststart(),
            Self::Poststop => hooks.poststop(),
        }
        .as_deref()
        .unwrap_or_default()
    }
}

#[allow(deprecated)]
pub(super) fn has_prestart(hooks: &Hooks) -> bool {
    hooks.prestart().as_ref().is_some_and(|h| !h.is_empty())
}

impl Subject {
    /// `None` where the spec has no hooks at all.
    pub fn new(spec: &Spec, id: &str, bundle: &Path) -> Option<Self> {
        Some(Self {
            id: id.to_owned(),
            bundle: bundle.to_owned(),
            oci_version: spec.version().clone(),
            annotations: spec.annotations().clone(),
            hooks: spec.hooks().clone()?,
        })
    }

    /// Runs the hooks of one kind in the spec's order; the first failure ends it. `pid` is the init's, and `namespaces` a
    /// pidfd of it where the hook belongs into the container's namespaces.
    pub fn run(&self, kind: Kind, pid: i32, namespaces: Option<BorrowedFd<'_>>) -> Result<()> {
        let state = State {
            oci_version: &self.oci_version,
            id: &self.id,
            status: kind.status(),
            pid,
            bundle: &self.bundle,
            annotations: self.annotations.as_ref(),
        };
        let state = serde_json::to_vec(&state).unwrap_or_default();
        for hook in kind.of(&self.hooks) {
            log::info!(
                "id={} hook={} path={} msg=\"run hook\"",
                self.id,
                kind.name(),
                hook.path().display()
            );
            run_one(hook, &state, namespaces).map_err(|reason| Error::Hook {
                kind: kind.name(),
                path: hook.path().clone(),
                reason,
            })?;
        }
        Ok(())
    }

    /// As [`Subject::run`], for the kinds whose failure must not stop the lifecycle: logs each and goes on.
    pub fn run_all_logged(&self, kind: Kind, pid: i32) {
        if let Err(e) = self.run(kind, pid, None) {
            log::warn!("id={} msg={:?}", self.id, e.to_string());
        }
    }
}

fn run_one(
    hook: &Hook,
    state: &[u8],
    namespaces: Option<BorrowedFd<'_>>,
) -> std::result::Result<(), String> {
    if !hook.path().is_absolute() {
        return Err("the path must be absolute".into());
    }
    let mut command = Command::new(hook.path());
    if let Some((first, rest)) = hook.args().as_deref().unwrap_or_default().split_first() {
        std::os::unix::process::CommandExt::arg0(&mut command, first);
        command.args(rest);
    }
    command.env_clear();
    for entry in hook.env().iter().flatten() {
        if let Some((k, v)) = entry.split_once('=') {
            command.env(k, v);
        }
    }
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(pidfd) = namespaces {
        let pidfd: OwnedFd = pidfd.try_clone_to_owned().map_err(|e| e.to_string())?;
        in_namespaces(&mut command, pidfd);
    }
    let mut child = command.spawn().map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A hook that does not read its state is no error.
        stdin.write_all(state).ok();
    }
    // The wait starts at once and never reads first: a hook's background child may hold the pipes open for long.
    let deadline = hook
        .timeout()
        .filter(|t| *t > 0)
        .map(|t| Instant::now() + Duration::from_secs(t as u64));
    let output = child.stderr.take();
    drop(child.stdout.take());
    let mut pause = Duration::from_micros(500);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if deadline.is_some_and(|d| Instant::now() >= d) => {
                child.kill().ok();
                child.wait().ok();
                return Err(format!(
                    "did not finish within {} s",
                    hook.timeout().unwrap_or_default()
                ));
            }
            Ok(None) => std::thread::sleep(pause),
            Err(e) => return Err(e.to_string()),
        }
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    if status.success() {
        return Ok(());
    }
    let mut text = vec![0; 4096];
    let n = output
        .and_then(|mut e| {
            nix::fcntl::fcntl(
                e.as_fd(),
                nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
            )
            .ok()?;
            e.read(&mut text).ok()
        })
        .unwrap_or(0);
    text.truncate(n);
    Err(format!(
        "{status}: {}",
        String::from_utf8_lossy(&text).trim()
    ))
}
