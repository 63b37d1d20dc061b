//! `create`, `start`, `run`, `kill`, `delete`, `pause`, `resume`, `update`.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use oci_spec::runtime::Spec;
use serde_json::{Value, json};

use super::signal::parse_signal;
use super::store::{Entry, Saved, Status, Store};
use super::terminal::{self, Console, Signals};
use super::{CreateArgs, Error, Result, UpdateArgs};
use crate::cgroup::{Cgroup, Layout, is_systemd_form};
use crate::executor::hooks::HookRunner;
use crate::executor::{self, InitPlan, Remains, Spawned, Stdio};
use crate::isolation::Judged;
use crate::oci::{self, HookKind, Links, Reading, Request};
use crate::seccomp;
use crate::sys::{process, time};

/// How long a deletion waits for killed processes to end, and then for their groups to go.
const KILL_WITHIN: Duration = Duration::from_secs(10);

/// The streams of a process that a command starts: our own, or a terminal.
pub(super) fn stdio(process: &oci_spec::runtime::Process) -> Result<Stdio> {
    if process.terminal() == Some(true) {
        let short = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        let size = process
            .console_size()
            .map(|s| (short(s.width()), short(s.height())));
        return Ok(Stdio::Terminal {
            size: size.or_else(terminal::own_size),
        });
    }
    let own = |fd: std::os::fd::BorrowedFd<'_>| {
        fd.try_clone_to_owned()
            .map_err(Error::io("pass on standard streams"))
    };
    Ok(Stdio::Files([
        own(std::io::stdin().as_fd())?,
        own(std::io::stdout().as_fd())?,
        own(std::io::stderr().as_fd())?,
    ]))
}

/// Compiles `linux.seccomp`.
pub(super) fn filter(spec: &Spec) -> Result<Option<Arc<seccomp::Program>>> {
    let filter = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
    Ok(filter.map(seccomp::compile).transpose()?.map(Arc::new))
}

fn bundle(path: Option<&Path>) -> Result<PathBuf> {
    let path = path.unwrap_or(Path::new("."));
    fs::canonicalize(path).map_err(Error::io(format!("find the bundle {}", path.display())))
}

/// What a container was made from, for commands that change nothing of it.
pub(super) fn known(bundle: &Path) -> Result<Judged<Request>> {
    let request = Request::read(oci::load(bundle)?, bundle, Reading::Show)?;
    Ok(Judged::standard(request))
}

pub(super) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    match path {
        Some(path) => {
            fs::write(path, pid.to_string()).map_err(Error::io(format!("write {}", path.display())))
        }
        None => Ok(()),
    }
}

/// A container that was just created.
pub(super) struct Created {
    entry: Entry,
    pidfd: OwnedFd,
    /// The terminal, where it was not sent away.
    console: Option<OwnedFd>,
}

pub(super) fn create(store: &Store, args: &CreateArgs, systemd_cgroup: bool) -> Result<Created> {
    create_with(store, args, true, systemd_cgroup)
}

/// The container's `linux.cgroupsPath`; with `--systemd-cgroup` it must have systemd's form, and there is a default one.
fn cgroups_path(spec: &Spec, id: &str, systemd_cgroup: bool) -> Result<Option<PathBuf>> {
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().clone());
    match path.filter(|p| !p.as_os_str().is_empty()) {
        None if systemd_cgroup => Ok(Some(PathBuf::from(format!(":cofferdam:{id}")))),
        Some(p) if systemd_cgroup && !is_systemd_form(&p) => Err(Error::Other(format!(
            "linux.cgroupsPath: {p:?}: --systemd-cgroup wants slice:prefix:name"
        ))),
        path => Ok(path),
    }
}

fn create_with(
    store: &Store,
    args: &CreateArgs,
    must_send_console: bool,
    systemd_cgroup: bool,
) -> Result<Created> {
    let bundle = bundle(args.bundle.as_deref())?;
    let asked = oci::load(&bundle)?;
    let reserved = store.reserve(&args.id)?;
    let request = Request::read(asked, &bundle, Reading::Run(Links::Any))?;
    let request = Judged::standard(request);
    let spec = &request.rest;
    let process = spec.process().as_ref();
    let has_terminal = process.is_some_and(|p| p.terminal() == Some(true));
    let console = Console::new(
        args.console_socket.as_deref(),
        has_terminal,
        must_send_console,
    )?;
    let stdio = match process {
        Some(p) => stdio(p)?,
        None => return Err(Error::Other("process: is missing".into())),
    };
    let layout = Arc::new(Layout::detect().map_err(Error::io("find the node's cgroups"))?);
    let cgroups_path = cgroups_path(spec, &args.id, systemd_cgroup)?;
    let cgroup =
        Cgroup::new(layout, cgroups_path.as_deref(), &args.id)?.with_resctrl(spec, &args.id)?;
    let hooks = HookRunner::new(&request, &args.id, &bundle);
    let plan = InitPlan {
        request: &request,
        id: &args.id,
        bundle: &bundle,
        root_mounts: &Judged::standard(Vec::new()),
        cgroup: Some(&cgroup),
        stdio,
        seccomp: filter(spec)?,
        confinement: None,
        watcher: None,
        users: None,
        new_keyring: !args.no_new_keyring,
        gate: Some(reserved.gate()?),
        preserve_fds: args.preserve_fds,
        pivot: !args.no_pivot,
    };
    let Spawned {
        undo,
        child,
        terminal,
        gate,
    } = executor::launch(plan, hooks.as_ref())?.wait()?;
    let saved = Saved {
        id: args.id.clone(),
        oci_version: spec.version().clone(),
        rootfs: request.root.source.path.clone(),
        bundle: bundle.clone(),
        pid: child.pid(),
        start_time: process::start_time(child.pid()).unwrap_or(0),
        cgroup: cgroup.cgroups_path(),
        created: time::rfc3339(SystemTime::now()),
        annotations: spec.annotations().clone().unwrap_or_default(),
        behind_gate: gate.map(|g| g.behind().clone()).unwrap_or_default(),
        new_keyring: !args.no_new_keyring,
    };
    let pidfd = child.pidfd().map_err(Error::io("duplicate a pidfd"))?;
    let console = console.take(terminal)?;
    write_pid_file(args.pid_file.as_deref(), child.pid())?;
    let entry = reserved.keep(saved)?;
    child.leave();
    undo.keep();
    Ok(Created {
        entry,
        pidfd,
        console,
    })
}

fn subject(entry: &Entry) -> Option<HookRunner> {
    let request = known(&entry.saved.bundle).ok()?;
    HookRunner::new(&request, &entry.saved.id, &entry.saved.bundle)
}

pub(super) fn start(store: &Store, id: &str) -> Result<()> {
    start_entry(&store.load(id)?)
}

fn start_entry(entry: &Entry) -> Result<()> {
    match entry.status() {
        Status::Created => {}
        Status::Stopped => {
            return Err(Error::Other(
                "cannot start a container that has stopped".into(),
            ));
        }
        Status::Running | Status::Paused => {
            return Err(Error::Other(
                "cannot start an already running container".into(),
            ));
        }
    }
    let pidfd = entry
        .pidfd()
        .ok_or_else(|| Error::Other("cannot start a container that has stopped".into()))?;
    let hooks = subject(entry);
    let opened = entry.gate()?.open(entry.saved.pid, &pidfd);
    entry.gate_opened();
    opened?;
    if let Some(hooks) = hooks {
        hooks.run_all_logged(HookKind::Poststart, entry.saved.pid);
    }
    Ok(())
}

pub(super) fn run(
    store: &Store,
    args: &CreateArgs,
    systemd_cgroup: bool,
    detach: bool,
    keep: bool,
) -> Result<i32> {
    let signals = if detach { None } else { Some(Signals::hold()?) };
    let Created {
        entry,
        pidfd,
        console,
    } = create_with(store, args, detach, systemd_cgroup)?;
    if let Err(e) = start_entry(&entry) {
        delete(store, &args.id, true).ok();
        return Err(e);
    }
    let Some(signals) = signals else {
        return Ok(0);
    };
    let status = terminal::attend(&pidfd, console, &signals)?;
    if !keep {
        delete(store, &args.id, true)?;
    }
    Ok(status)
}

pub(super) fn kill(store: &Store, id: &str, signal: &str, all: bool) -> Result<()> {
    let entry = store.load(id)?;
    let signal = parse_signal(signal)?;
    if all {
        // What a dead init left behind, too.
        let cgroup = entry.cgroup()?;
        if entry.status() == Status::Stopped && cgroup.pids().is_empty() {
            return Err(Error::Other("container not running".into()));
        }
        cgroup.signal_all(signal);
        return Ok(());
    }
    let pidfd = entry.pidfd().filter(|_| entry.status() != Status::Stopped);
    let pidfd = pidfd.ok_or_else(|| Error::Other("container not running".into()))?;
    process::pidfd_send_signal(pidfd.as_fd(), signal)
        .map_err(|e| Error::Other(format!("send {signal}: {}", e.desc())))?;
    if signal == libc::SIGKILL && entry.status() == Status::Paused {
        entry.cgroup()?.set_frozen(false)?;
    }
    Ok(())
}

pub(super) fn delete(store: &Store, id: &str, force: bool) -> Result<()> {
    let entry = match store.load(id) {
        Ok(entry) => entry,
        Err(_) if force => {
            store.remove_broken(id);
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    let status = entry.status();
    if !force && status != Status::Stopped {
        return Err(Error::Other(format!(
            "cannot delete container {id} that is not stopped: {}",
            status.name()
        )));
    }
    if let Some(pidfd) = entry.pidfd() {
        process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
    }
    let request = known(&entry.saved.bundle).ok();
    let mut cgroup = entry.cgroup()?;
    if let Some(request) = &request {
        cgroup = cgroup
            .clone()
            .with_resctrl(&request.rest, id)
            .unwrap_or(cgroup);
    }
    let hooks = request
        .as_ref()
        .and_then(|r| HookRunner::new(r, id, &entry.saved.bundle));
    let remains = Remains {
        id,
        cgroup: Some(&cgroup),
        request: request.as_deref(),
        hooks: hooks.as_ref(),
    };
    let gone = remains.kill(KILL_WITHIN)?.remove(KILL_WITHIN)?;
    entry.remove()?;
    gone.run_poststop();
    Ok(())
}

pub(super) fn set_paused(store: &Store, id: &str, pause: bool) -> Result<()> {
    let entry = store.load(id)?;
    match (entry.status(), pause) {
        (Status::Running | Status::Created, true) | (Status::Paused, false) => {
            Ok(entry.cgroup()?.set_frozen(pause)?)
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

pub(super) fn update(store: &Store, args: &UpdateArgs) -> Result<()> {
    let entry = store.load(&args.id)?;
    if entry.status() == Status::Stopped {
        return Err(Error::Other("cannot update a stopped container".into()));
    }
    let resources = match &args.resources {
        Some(path) => read_resources(path)?,
        None => flags(args),
    };
    let resources = oci::parse_resources(resources.to_string().as_bytes())?;
    oci::check_resources(&resources)?;
    Ok(entry.cgroup()?.update(&Judged::standard(resources))?)
}

fn read_resources(path: &Path) -> Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .map_err(Error::io("read standard input"))?;
    } else {
        text = fs::read_to_string(path).map_err(Error::io(format!("read {}", path.display())))?;
    }
    serde_json::from_str(&text).map_err(|e| Error::Other(format!("{}: {e}", path.display())))
}

/// The flags as `linux.resources`; what is not given stays as it is.
fn flags(a: &UpdateArgs) -> Value {
    fn without_nulls(value: Value) -> Value {
        let Value::Object(map) = value else {
            return value;
        };
        let map: serde_json::Map<_, _> = map
            .into_iter()
            .map(|(k, v)| (k, without_nulls(v)))
            .filter(|(_, v)| !v.is_null() && v.as_object().is_none_or(|o| !o.is_empty()))
            .collect();
        Value::Object(map)
    }
    without_nulls(json!({
        "memory": { "limit": a.memory, "swap": a.memory_swap, "reservation": a.memory_reservation },
        "cpu": { "shares": a.cpu_shares, "quota": a.cpu_quota, "period": a.cpu_period, "cpus": a.cpuset_cpus, "mems": a.cpuset_mems },
        "pids": { "limit": a.pids_limit },
        "blockIO": { "weight": a.blkio_weight }
    }))
}
