//! `start`, `kill`, `pause`, `resume`.

use std::os::fd::{AsFd, OwnedFd};

use super::signal::parse_signal;
use super::store::{Entry, Status, Store};
use super::systemd::Notify;
use super::{Error, Result};
use crate::oci::HookKind;
use crate::sys::process;

pub(super) fn start(store: &Store, id: &str) -> Result<()> {
    let entry = store.load(id)?;
    let (notify, pidfd) = open_gate(&entry)?;
    match notify {
        Some(notify) => notify.until_ready(&pidfd, entry.pid()),
        None => Ok(()),
    }
}

/// Lets the init execute its program, and runs the poststart hooks. If one fails the container is stopped: OCI runtime.md 1.3,
/// "Lifecycle", step 9. Returns who passes on what the container says, and the init.
pub(super) fn open_gate(entry: &Entry) -> Result<(Option<Notify>, OwnedFd)> {
    let refused = |why: &str| Error::Other(format!("cannot start {why}"));
    let gone = || refused("a container that has stopped");
    let lock = entry.lock()?.ok_or_else(gone)?;
    match entry.status() {
        Status::Created => {}
        Status::Creating => return Err(refused("a container that is being created")),
        Status::Stopped => return Err(gone()),
        Status::Paused if entry.is_at_gate() => {
            return Err(refused("a container that is paused: resume it first"));
        }
        Status::Running | Status::Paused => return Err(refused("an already running container")),
    }
    let pidfd = entry.pidfd().ok_or_else(gone)?;
    let notify = Notify::listen(entry.directory())?;
    let pid = entry.pid();
    let opened = entry.gate()?.open(pid, &pidfd);
    entry.gate_opened();
    opened?;
    drop(lock);
    log::debug!(id = entry.saved.id, pid; "started");
    if let Some(hooks) = entry.hooks() {
        hooks.run(HookKind::Poststart, pid).inspect_err(|_| {
            process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
            process::wait_readable(pidfd.as_fd(), Some(super::delete::KILL_WITHIN)).ok();
        })?;
    }
    Ok((notify, pidfd))
}

pub(super) fn kill(store: &Store, id: &str, signal: &str, all: bool) -> Result<()> {
    let entry = store.load(id)?;
    let signal = parse_signal(signal)?;
    let not_running = || Error::Other("container not running".into());
    if all {
        // What a dead init left behind, too. That there is nobody is no error, as with runc.
        let cgroup = entry.cgroup()?;
        if cgroup.is_none() {
            for pid in entry.pids()? {
                process::kill(pid, signal).ok();
            }
        } else {
            cgroup.signal_all(signal);
        }
        return Ok(());
    }
    let status = entry.status();
    let pidfd = entry.pidfd().filter(|_| status != Status::Stopped);
    let Some(pidfd) = pidfd else {
        // Where the init was no process 1, others may have outlived it.
        let cgroup = entry.cgroup()?;
        if signal != libc::SIGKILL || entry.has_own_pids() || cgroup.pids().is_empty() {
            return Err(not_running());
        }
        cgroup.signal_all(signal);
        return Ok(());
    };
    process::pidfd_send_signal(pidfd.as_fd(), signal)
        .map_err(|e| Error::Other(format!("send {signal}: {}", e.desc())))?;
    if signal == libc::SIGKILL {
        // What shares no pid namespace of its own with the init does not end with it.
        if !entry.has_own_pids() {
            entry.cgroup()?.signal_all(signal);
        }
        if status == Status::Paused {
            entry.own_cgroup()?.set_frozen(false)?;
        }
    }
    Ok(())
}

pub(super) fn set_paused(store: &Store, id: &str, pause: bool) -> Result<()> {
    let entry = store.load(id)?;
    match (entry.status(), pause) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {
            Ok(entry.own_cgroup()?.set_frozen(pause)?)
        }
        (status, true) => Err(Error::Other(format!(
            "cannot pause a {} container",
            status.name()
        ))),
        (status, false) => Err(Error::Other(format!(
            "cannot resume a {} container",
            status.name()
        ))),
    }
}
