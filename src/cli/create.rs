//! `create` and `run`.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use oci_spec::runtime::Spec;

use super::args::{CgroupManager, CreateArgs, Global, Rootless, RunArgs};
use super::isolation::Profile;
use super::store::{Entry, Groups, Init, Reserved, Saved, Store};
use super::systemd::{Listeners, Notify, check_preserved};
use super::terminal::{self, Console, Signals};
use super::{Error, Result, delete, lifecycle};
use crate::cgroup::{Cgroup, Layout, is_systemd_form};
use crate::executor::hooks::HookRunner;
use crate::executor::{self, InitPlan, Spawned, Stdio, userns};
use crate::files::replace;
use crate::isolation::Judged;
use crate::oci::{self, Request};
use crate::seccomp;
use crate::sys::{creds, socket, time};

/// The streams of a process that a command starts: our own, or a terminal.
pub(super) fn stdio(process: &oci_spec::runtime::Process, console: &Console) -> Result<Stdio> {
    if process.terminal() == Some(true) {
        let short = |n: u64| u16::try_from(n).unwrap_or(u16::MAX);
        let size = process
            .console_size()
            .map(|s| (short(s.width()), short(s.height())));
        return Ok(Stdio::Terminal {
            size: size.or_else(terminal::own_size),
            // Our own terminal adds what it needs, and a file or a pipe needs nothing.
            plain: matches!(console, Console::Keep),
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

pub(super) fn write_pid_file(path: Option<&Path>, pid: i32) -> Result<()> {
    match path {
        Some(path) => {
            let failed = Error::io(format!("write {}", path.display()));
            replace(path, pid.to_string().as_bytes(), 0o644).map_err(failed)
        }
        None => Ok(()),
    }
}

/// Sends a pidfd to whoever listens on `--pidfd-socket`.
pub(super) fn send_pidfd(path: Option<&Path>, pidfd: &OwnedFd) -> Result<()> {
    let Some(path) = path else { return Ok(()) };
    let stream = crate::sys::socket::connect_at_once(path)
        .map_err(|e| Error::Io(format!("connect to {}", path.display()), e.into()))?;
    socket::send_fd(stream.as_fd(), b"pidfd", pidfd.as_fd())
        .map_err(|e| Error::Io(format!("send the pidfd to {}", path.display()), e.into()))
}

fn bundle(path: Option<&Path>) -> Result<PathBuf> {
    let path = path.unwrap_or(Path::new("."));
    fs::canonicalize(path).map_err(Error::io(format!("find the bundle {}", path.display())))
}

/// A container that was just created.
struct Created {
    entry: Entry,
    pidfd: OwnedFd,
    /// The terminal, where it was not sent away.
    console: Option<OwnedFd>,
}

/// `create`.
pub(super) fn create(store: &Store, args: &CreateArgs, global: &Global) -> Result<()> {
    make(store, args, global, true).map(drop)
}

/// `run`: the program's status, unless it runs on by itself.
pub(super) fn run(store: &Store, args: &RunArgs, global: &Global) -> Result<i32> {
    let detach = args.detach;
    let signals = if detach { None } else { Some(Signals::hold()?) };
    let Created {
        entry,
        pidfd,
        console,
    } = make(store, &args.create, global, detach)?;
    let id = &args.create.id;
    let notify = match lifecycle::open_gate(&entry) {
        Ok((notify, _)) => notify,
        Err(e) => {
            delete::delete(store, id, true).ok();
            return Err(e);
        }
    };
    let Some(signals) = signals else {
        return match notify {
            Some(notify) => notify.until_ready(&pidfd, entry.pid()).map(|()| 0),
            None => Ok(0),
        };
    };
    if let Some(notify) = notify {
        notify.in_background();
    }
    let status = terminal::attend(&pidfd, console, &signals)?;
    if !args.keep {
        delete::delete(store, id, true)?;
    }
    Ok(status)
}

/// The container's groups. Under a profile there must be some.
fn groups(spec: &Spec, id: &str, global: &Global, profile: &Profile) -> Result<Cgroup> {
    let cgroup = place_groups(spec, id, global)?.own_only(profile.restricts());
    if profile.restricts() && cgroup.is_none() {
        return Err(Error::Other(
            "a profile's limits and its device rules need control groups: run this without --cgroup-manager disabled and --rootless".into(),
        ));
    }
    Ok(cgroup)
}

/// Where the container's groups are to be; with systemd its path must have systemd's form, and there is a default one.
fn place_groups(spec: &Spec, id: &str, global: &Global) -> Result<Cgroup> {
    let manager = global.cgroups();
    let path = spec.linux().as_ref().and_then(|l| l.cgroups_path().clone());
    let path = match (path.filter(|p| !p.as_os_str().is_empty()), manager) {
        (_, CgroupManager::Disabled) => {
            return Ok(Cgroup::new(Arc::new(Layout::none()), None, id)?);
        }
        (None, CgroupManager::Systemd) => Some(PathBuf::from(format!(":cofferdam:{id}"))),
        (Some(p), CgroupManager::Systemd) if !is_systemd_form(&p) => {
            return Err(Error::Other(format!(
                "linux.cgroupsPath: {p:?}: systemd's groups want slice:prefix:name"
            )));
        }
        (path, _) => path,
    };
    let layout = Layout::detect().map_err(Error::io("find the node's cgroups"))?;
    let cgroup = Cgroup::new(Arc::new(layout), path.as_deref(), id)?;
    let cgroup = cgroup.with_resctrl(spec, id)?;
    let lenient = match global.rootless {
        Rootless::True => true,
        Rootless::False => false,
        Rootless::Auto => creds::is_in_user_namespace(),
    };
    Ok(if lenient { cgroup.or_none() } else { cgroup })
}

/// The spec of the bundle, and what the caller's environment adds to it.
fn spec(
    args: &CreateArgs,
    bundle: &Path,
    reserved: &Reserved,
    listeners: &Listeners,
) -> Result<Spec> {
    let file = args.config.as_deref();
    let mut spec = match file {
        Some(file) => oci::load_file(file)?,
        None => oci::load(bundle)?,
    };
    listeners.announce(&mut spec);
    Notify::prepare(reserved.directory(), &mut spec)?;
    Ok(spec)
}

/// The state of a container that is about to be made.
fn saved(
    args: &CreateArgs,
    bundle: &Path,
    asked: Spec,
    request: &Judged<Request>,
    (profile, cgroup): (&Profile, &Cgroup),
) -> Saved {
    Saved {
        version: Saved::VERSION,
        id: args.id.clone(),
        bundle: bundle.to_owned(),
        spec: asked,
        hooks: request.hooks.0.clone(),
        root: request.root_on_node().map(Path::to_owned),
        profile: profile.name(),
        init: None,
        cgroup: (!cgroup.is_none()).then(|| Groups {
            path: cgroup.cgroups_path(),
            below: cgroup.below().clone(),
            resctrl: cgroup.resctrl().cloned(),
        }),
        created: time::rfc3339(SystemTime::now()),
        behind_gate: None,
        new_keyring: profile.restricts() || !args.no_new_keyring,
        rootless: false,
    }
}

fn make(
    store: &Store,
    args: &CreateArgs,
    global: &Global,
    must_send_console: bool,
) -> Result<Created> {
    let listeners = Listeners::of_caller();
    let preserve_fds = args.preserve_fds.saturating_add(listeners.count());
    check_preserved(preserve_fds)?;
    let bundle = bundle(args.bundle.as_deref())?;
    let reserved = store.reserve(&args.id)?;
    let asked = spec(args, &bundle, &reserved, &listeners)?;
    let rootless = !nix::unistd::geteuid().is_root();
    let seen = if rootless {
        userns::enter_new(&asked)?;
        userns::within(asked.clone())
    } else {
        asked.clone()
    };
    let profile = Profile::of(global.profile.as_deref())?;
    let (request, notice) = profile.judge(seen, &args.id, &bundle, reserved.directory())?;
    let spec = &request.rest;
    let process = spec.process().as_ref();
    let process = process.ok_or_else(|| Error::Other("process: is missing".into()))?;
    let has_terminal = process.terminal() == Some(true);
    let socket = args.console_socket.as_deref();
    let console = Console::new(socket, has_terminal, must_send_console)?;
    let stdio = stdio(process, &console)?;
    let cgroup = groups(spec, &args.id, global, &profile)?;
    let hooks = HookRunner::new(&request, &args.id, &bundle);
    let mut saved = saved(args, &bundle, asked, &request, (&profile, &cgroup));
    saved.rootless = rootless;
    let seccomp = filter(spec)?;
    let gate = reserved.gate()?;
    reserved.write(&saved)?;
    log::debug!(id = args.id, bundle:% = bundle.display(); "create");
    let plan = InitPlan {
        request: &request,
        id: &args.id,
        bundle: &bundle,
        root_mounts: &Judged::standard(Vec::new()),
        cgroup: Some(&cgroup),
        stdio,
        seccomp,
        confinement: profile.confinement(),
        watcher: None,
        denied_egress: None,
        notice: notice.as_deref(),
        users: None,
        new_keyring: saved.new_keyring,
        gate: Some(gate),
        preserve_fds,
        pivot: profile.restricts() || !args.no_pivot,
    };
    let launched = executor::launch(plan, hooks.as_ref())?;
    saved.init = Some(Init::of(launched.pid()));
    reserved.write(&saved)?;
    let Spawned {
        undo,
        child,
        terminal,
        gate,
    } = launched.wait()?;
    saved.init = Some(Init::of(child.pid()));
    saved.behind_gate = Some(gate.map(|g| g.behind().clone()).unwrap_or_default());
    let pidfd = child.pidfd().map_err(Error::io("duplicate a pidfd"))?;
    let console = console.take(terminal)?;
    send_pidfd(args.pidfd_socket.as_deref(), &pidfd)?;
    write_pid_file(args.pid_file.as_deref(), child.pid())?;
    log::debug!(id = args.id, pid = child.pid(); "created");
    let entry = reserved.keep(saved)?;
    child.leave();
    undo.keep();
    Ok(Created {
        entry,
        pidfd,
        console,
    })
}
