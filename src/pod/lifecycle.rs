//! Creating, starting, ending and deleting. Each runs to its end whatever becomes of the request that asked for it.

use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use oci_spec::runtime::{LinuxSeccomp, Spec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::denials::Denials;
use super::isolation::OfPod;
use super::learn;
use super::process::{Exit, Process, State, Status};
use super::record::{Record, Recorded};
use super::users::Users;
use super::{Container, CreateRequest, Error, Event, Filters, Isolation, Pod, Result, lock};
use crate::cgroup::{Cgroup, OomWatch};
use crate::executor::userns::Maps;
use crate::executor::{self, Child, Enter, ExecPlan, InitPlan, Spawned, hooks, seccomp};
use crate::isolation::Judged;
use crate::oci::{self, HookKind, Request, RootMount};
use crate::stdio::{Addresses, Owner, Streams};
use crate::sys;
use crate::trace;

/// How long the removal of a container's groups waits for the kernel to let go of exiting processes.
const REMOVE_WITHIN: Duration = Duration::from_secs(5);
/// How long an init's exit waits for those of its execs, which it must not overtake.
const EXECS_WITHIN: Duration = Duration::from_secs(10);

/// Runs blocking work off the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(f)
        .await
        .unwrap_or_else(|e| Err(Error::Unknown(format!("internal error: {e}"))))
}

/// A container whose init is at its gate, and which the pod does not know yet.
struct Built {
    container: Container,
    /// Killed where this is dropped.
    child: AsyncFd<Child>,
    oom: Option<OomWatch>,
}

/// A request that has passed the profile.
struct Admitted {
    isolation: Arc<Isolation>,
    request: Judged<Request>,
    root_mounts: Judged<Vec<RootMount>>,
    stdio: Judged<Addresses>,
    users: Option<Arc<Users>>,
}

/// An id that is taken while its container is created. Dropped, it is free again.
struct Reservation<'a> {
    pod: &'a Pod,
    id: String,
    filled: bool,
}

impl Reservation<'_> {
    /// The container is there.
    fn fill(mut self, container: &Arc<Container>) {
        self.pod.put(container);
        self.filled = true;
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if !self.filled {
            self.pod.forget(&self.id);
        }
    }
}

fn console_size(process: Option<&oci_spec::runtime::Process>) -> Option<(u16, u16)> {
    let size = process?.console_size()?;
    Some((
        u16::try_from(size.width()).ok()?,
        u16::try_from(size.height()).ok()?,
    ))
}

impl Pod {
    /// Creates a container, up to its gate.
    pub async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<i32> {
        let started = Instant::now();
        let _trace = trace::span("Create");
        let id = request.id.clone();
        crate::id::check(&id).map_err(Error::InvalidArgument)?;
        let reservation = self.reserve(&id)?;
        let created = |pid| Event::Created {
            id: id.clone(),
            bundle: request.bundle.clone(),
            root_mounts: request.root_mounts.clone(),
            stdio: request.stdio.clone(),
            pid,
        };
        let asked = request.clone();
        let pod = self.clone();
        let Built {
            container,
            child,
            oom,
        } = blocking(move || pod.build(asked))
            .await
            .inspect_err(|e| log::error!(id:%, error:% = e; "create failed"))?;
        let container = Arc::new(container);
        let pid = child.get_ref().pid();
        reservation.fill(&container);
        self.events.publish(created(pid));
        let oom = oom.and_then(|watch| self.watch_oom(&container, watch));
        self.watch_init(&container, child, oom);
        if !container.enter.pid {
            self.reap_strays();
        }
        log::info!(id:%, pid:%, took_us:% = started.elapsed().as_micros(); "created");
        Ok(pid)
    }

    fn reserve(&self, id: &str) -> Result<Reservation<'_>> {
        self.take_slot(id)?;
        Ok(Reservation {
            pod: self,
            id: id.to_owned(),
            filled: false,
        })
    }

    /// Reads the spec, and puts the profile's floor under it and what was asked for beside it.
    fn admit(&self, request: &CreateRequest) -> Result<Admitted> {
        if request.options.no_pivot_root {
            return Err(Error::Unimplemented(
                "the option NoPivotRoot is not supported: a root that can be left is none".into(),
            ));
        }
        let reading = trace::span("read config.json");
        let isolation = self.isolation(request.options.profile.as_ref())?;
        let asked = self.spec(&request.bundle)?;
        drop(reading);
        let _applying = trace::span("apply the profile");
        let asked = Request::read(asked, &request.bundle, isolation.reading())?;
        if Record::load(&request.bundle).is_ok_and(|r| r.exit.is_none() && r.is_alive()) {
            return Err(Error::AlreadyExists(format!(
                "the bundle {} is of a container that runs",
                request.bundle.display()
            )));
        }
        let pod = self.of_kubernetes(&isolation, &asked)?;
        let place = isolation.place(&request.id, &request.bundle, pod);
        let root_mounts = isolation.judge_root_mounts(&place, request.root_mounts.clone())?;
        let users = self.users(&isolation, &asked, &root_mounts, &request.id)?;
        let of_pod = OfPod {
            layout: &self.layout,
            users: users.as_ref().map(|u| u.first()),
            place,
            namespaces: self.namespaces(&isolation, &asked),
        };
        let judged = isolation.judge(&request.id, of_pod, asked)?;
        if judged.namespaces.mount.is_host() {
            return Err(Error::InvalidArgument(
                "linux.namespaces: a mount namespace is missing: the container's mounts would land on the node".into(),
            ));
        }
        Ok(Admitted {
            stdio: isolation.judge_streams(request.stdio.clone())?,
            request: judged,
            root_mounts,
            users,
            isolation,
        })
    }

    /// Makes a container, up to its gate. Blocks. On failure nothing of it is left.
    fn build(&self, asked: CreateRequest) -> Result<Built> {
        let Admitted {
            isolation,
            request,
            root_mounts,
            stdio,
            users,
        } = self.admit(&asked)?;
        let CreateRequest {
            id,
            bundle,
            options,
            ..
        } = asked;
        let spec = &request.rest;
        let compiling = trace::span("filters");
        let cgroup = Cgroup::of(self.layout.clone(), spec, &id)?;
        let cgroup = Arc::new(cgroup.own_only(isolation.restricts()));
        let Filters {
            own: filter,
            watched,
        } = self.filters(spec, &isolation)?;
        drop(compiling);
        let opening = trace::span("open streams");
        let denials =
            watched.map(|w| Denials::new(&id, isolation.clone(), w, self.answering.clone()));
        let own_pids = request.namespaces.pid.is_new();
        let process = spec.process().as_ref();
        let maps = Maps::of(spec);
        let user = process.map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
        // Under a profile nobody else names whose the streams become.
        let io_owner = options.io_owner.filter(|_| !isolation.restricts());
        let user = io_owner.unwrap_or_else(|| maps.to_host(user));
        let owner = Owner {
            id: &id,
            namespace: &self.namespace,
            user,
        };
        let (files, mut streams) = Streams::open(&stdio, &owner, own_pids, console_size(process))?;
        drop(opening);
        let hooks = hooks::Subject::new(&request, &id, &bundle).map(Arc::new);
        if !root_mounts.is_empty() {
            executor::prepare_root_directory(&request)?;
        }
        let new_keyring = isolation.restricts() || !options.no_new_keyring;
        let launched = executor::launch(
            InitPlan {
                request: &request,
                id: &id,
                bundle: &bundle,
                root_mounts: &root_mounts,
                cgroup: Some(&cgroup),
                stdio: files,
                seccomp: filter.clone(),
                confinement: isolation.confinement(),
                watcher: denials.as_ref().map(|d| d.watcher("")),
                users: users.as_ref().map(|u| &u.namespace),
                new_keyring,
                gate: None,
                preserve_fds: 0,
                pivot: true,
            },
            hooks.as_deref(),
        )?;
        // While the init sets the container up.
        let oom = cgroup.watch_oom();
        let mut recorded = Recorded::new(
            &bundle,
            Record {
                shim: std::process::id(),
                cgroup: cgroup.cgroups_path(),
                resctrl: cgroup.resctrl().cloned(),
                users: users.as_ref().map(|u| u.first()),
                poststop: request.hooks.of(HookKind::Poststop).cloned().collect(),
                ..Record::default()
            },
        );
        recorded.write(launched.pid())?;
        let Spawned {
            undo,
            child,
            terminal,
            gate,
        } = launched.wait()?;
        recorded.write(child.pid())?;
        let gate = gate.ok_or_else(|| Error::Unknown("the init has no gate".into()))?;
        let pidfd = duplicate(&child)?;
        let pid = child.pid();
        let child = watchable(child)?;
        streams.run(terminal).map_err(no_streams)?;
        let state = State::Created {
            gate: Box::new(gate),
            pid,
            pidfd: Arc::new(pidfd),
        };
        let supervised = executor::supervised(filter.as_ref(), &request, &id, &bundle, "running");
        undo.keep();
        recorded.keep();
        let container = Container {
            init: Process::new(String::new(), stdio, state, streams),
            own_pids,
            enter: Enter::of(&request),
            maps,
            supervised,
            seccomp: filter,
            denials,
            isolation,
            hooks,
            new_keyring,
            allowed: learn::allowed(spec),
            recorder: Mutex::default(),
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
            updated: AtomicBool::new(false),
            created: sys::time::seconds_since_1970(),
            users: users.as_ref().map(|u| u.first()),
            oom_announced: AtomicU64::new(0),
            last_usage: Mutex::default(),
            id,
            bundle,
            cgroup,
        };
        self.learn_from_start(&container);
        Ok(Built {
            container,
            child,
            oom,
        })
    }

    /// The compiled filters, shared by the containers of the pod whose specs and profiles agree.
    pub(super) fn filters(&self, spec: &Spec, isolation: &Isolation) -> Result<Filters> {
        let own = spec.linux().as_ref().and_then(|l| l.seccomp().as_ref());
        let watch = self.can_watch && isolation.reports_denials();
        let floor = isolation.floor();
        if own.is_none() && !(watch && floor.is_some()) {
            return Ok(Filters::default());
        }
        let hasher = lock(&self.filters).hasher().build_hasher();
        let key = fingerprint(hasher, own, floor, watch);
        if let Some(filters) = lock(&self.filters).get(&key) {
            return Ok(filters.clone());
        }
        let watched = if watch {
            seccomp::watch(floor, own)?.map(Arc::new)
        } else {
            None
        };
        let own = match (&watched, own) {
            (None, Some(own)) => Some(Arc::new(seccomp::compile(own)?)),
            _ => None,
        };
        let filters = Filters { own, watched };
        lock(&self.filters).insert(key, filters.clone());
        Ok(filters)
    }

    /// Starts the init or an exec. Returns its pid.
    pub async fn start(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<i32> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            self.start_init(&container).await
        } else {
            self.start_exec(&container, exec_id).await
        }
    }

    async fn start_init(self: &Arc<Self>, container: &Arc<Container>) -> Result<i32> {
        let began = Instant::now();
        let _trace = trace::span("Start");
        let init = &container.init;
        let turn = init.turn.lock().await;
        let (gate, pid, pidfd) = init.transition(|state| match state {
            State::Created { gate, pid, pidfd } => Ok((
                State::Opening {
                    pid,
                    pidfd: pidfd.clone(),
                },
                (gate, pid, pidfd),
            )),
            State::Stopped { .. } => Err((
                state,
                Error::Unknown("cannot start a stopped process".into()),
            )),
            _ => Err((
                state,
                Error::Unknown("cannot start a running process".into()),
            )),
        })?;
        let fd = pidfd.clone();
        let opened = blocking(move || Ok(gate.open(pid, &fd)?)).await;
        init.set(State::Running { pid, pidfd });
        if let Err(e) = opened {
            log::error!(id:% = container.id, error:% = e; "start failed");
            // The init is ending. Its client deletes it next, which a running one would refuse.
            drop(turn);
            tokio::time::timeout(REMOVE_WITHIN, init.wait()).await.ok();
            return Err(e);
        }
        self.events.publish(Event::Started {
            id: container.id.clone(),
            pid,
        });
        log::info!(id:% = container.id, pid:%, took_us:% = began.elapsed().as_micros(); "started");
        drop(turn);
        if let Some(hooks) = container.hooks.clone() {
            tokio::task::spawn_blocking(move || hooks.run_all_logged(HookKind::Poststart, pid))
                .await
                .ok();
        }
        Ok(pid)
    }

    async fn start_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec_id: &str,
    ) -> Result<i32> {
        let exec = container.process(exec_id)?;
        let _turn = exec.turn.lock().await;
        container.check_exec()?;
        let process = exec.take_exec()?;
        let (c, e) = (container.clone(), exec.clone());
        let namespace = self.namespace.clone();
        let spawned = blocking(move || spawn_exec(&c, &e, &process, &namespace)).await;
        let (child, pidfd, streams) = match spawned {
            Ok(spawned) => spawned,
            Err(e) => {
                // Who waits for it is told that it will never run.
                exec.finish(Exit::now(128));
                log::error!(id:% = container.id, exec:% = exec_id, error:% = e; "exec failed");
                return Err(e);
            }
        };
        exec.streams().adopt(streams);
        let pid = child.get_ref().pid();
        exec.set(State::Running {
            pid,
            pidfd: Arc::new(pidfd),
        });
        self.events.publish(Event::ExecStarted {
            container: container.id.clone(),
            exec: exec_id.to_owned(),
            pid,
        });
        self.watch_exec(container, &exec, child);
        log::info!(id:% = container.id, exec:% = exec_id, pid:%; "exec started");
        Ok(pid)
    }

    fn watch_init(
        self: &Arc<Self>,
        container: &Arc<Container>,
        child: AsyncFd<Child>,
        oom: Option<tokio::task::JoinHandle<()>>,
    ) {
        let (pod, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let mut exit = reap(child).await;
            let ending = trace::span("exit");
            if let Some(oom) = oom {
                oom.abort();
            }
            let _turn = container.init.turn.lock().await;
            container.init.output_taken().await;
            if !container.own_pids
                && let Err(e) = container.kill_everything().await
            {
                log::error!(id:% = container.id, error:% = e; "processes of a container outlive its init");
            }
            let execs = async {
                for exec in container.all_execs() {
                    if exec.report().status == Status::Running {
                        exec.wait().await;
                    }
                }
            };
            if tokio::time::timeout(EXECS_WITHIN, execs).await.is_err() {
                log::error!(id:% = container.id; "an exec outlives its container's init");
            }
            if container.take_oom_kills() > 0 {
                pod.announce_oom(&container);
            }
            container.remember_usage();
            container.paused.store(false, Ordering::Relaxed);
            exit.at = std::time::SystemTime::now();
            record_exit(&container, exit);
            pod.publish_exit(&container, &container.init, exit);
            container.init.finish(exit);
            drop(ending);
            log::info!(id:% = container.id, status:% = exit.status; "exited");
        });
    }

    fn watch_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Process>,
        child: AsyncFd<Child>,
    ) {
        let (pod, container, exec) = (self.clone(), container.clone(), exec.clone());
        tokio::spawn(async move {
            let exit = reap(child).await;
            let _turn = exec.turn.lock().await;
            exec.output_taken().await;
            pod.publish_exit(&container, &exec, exit);
            exec.finish(exit);
            log::info!(id:% = container.id, exec:% = exec.exec_id(), status:% = exit.status; "exec exited");
        });
    }

    fn publish_exit(&self, container: &Container, process: &Process, exit: Exit) {
        self.events.publish(Event::Exited {
            container: container.id.clone(),
            exec: (!process.exec_id().is_empty()).then(|| process.exec_id().to_owned()),
            pid: process.pid(),
            exit,
        });
    }

    /// Announces an exec; Start runs it.
    pub fn exec(&self, id: &str, exec_id: &str, addresses: Addresses, spec: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        if exec_id.is_empty() {
            return Err(Error::InvalidArgument("an exec needs an id".into()));
        }
        crate::id::check(exec_id).map_err(Error::InvalidArgument)?;
        let mut process =
            oci::parse_process(spec).map_err(|e| Error::InvalidArgument(e.to_string()))?;
        process.set_terminal(Some(addresses.terminal));
        let process = container.isolation.judge_exec(&self.layout, process)?;
        let addresses = container.isolation.judge_streams(addresses)?;
        let exec = Process::new(
            exec_id.to_owned(),
            addresses,
            State::Added(Box::new(process)),
            Streams::default(),
        );
        container.check_exec()?;
        container.add_exec(&exec)?;
        self.events.publish(Event::ExecAdded {
            container: container.id.clone(),
            exec: exec_id.to_owned(),
        });
        Ok(())
    }

    /// Deletes an ended (or never started) container or exec. Returns its pid and exit.
    pub async fn delete(self: &Arc<Self>, id: &str, exec_id: &str) -> Result<(i32, Option<Exit>)> {
        let _trace = trace::span("Delete");
        let container = self.container(id)?;
        if exec_id.is_empty() {
            self.delete_container(&container).await
        } else {
            delete_exec(&container, exec_id).await
        }
    }

    async fn delete_container(
        self: &Arc<Self>,
        container: &Arc<Container>,
    ) -> Result<(i32, Option<Exit>)> {
        let init = &container.init;
        match init.report().status {
            Status::Running => {
                return Err(Error::Unknown("cannot delete a running process".into()));
            }
            Status::Created => {
                init.signal(libc::SIGKILL).ok();
                tokio::time::timeout(REMOVE_WITHIN, init.wait())
                    .await
                    .map_err(|_| {
                        Error::Unknown(
                            "the container's init does not end although it was killed".into(),
                        )
                    })?;
            }
            Status::Stopped => {}
        }
        let closing = init.streams().close();
        closing.await;
        let c = container.clone();
        blocking(move || {
            c.keep_recording();
            c.cgroup.kill_and_wait(REMOVE_WITHIN)?;
            if let Err(e) = c.cgroup.remove(REMOVE_WITHIN) {
                log::warn!(id:% = c.id, error:% = e; "control groups are left behind");
            }
            if let Some(hooks) = &c.hooks {
                hooks.run_all_logged(HookKind::Poststop, 0);
            }
            Ok(())
        })
        .await?;
        self.forget(&container.id);
        let (pid, exit) = (init.pid(), init.exit());
        self.events.publish(Event::Deleted {
            id: container.id.clone(),
            pid,
            exit,
        });
        log::info!(id:% = container.id; "deleted");
        Ok((pid, exit))
    }

    /// Freezes or thaws a container.
    pub async fn set_paused(self: &Arc<Self>, id: &str, pause: bool) -> Result<()> {
        let container = self.container(id)?;
        let c = container.clone();
        blocking(move || c.set_paused(pause)).await?;
        let id = container.id.clone();
        self.events.publish(if pause {
            Event::Paused { id }
        } else {
            Event::Resumed { id }
        });
        Ok(())
    }

    /// Applies resources (JSON, `linux.resources`) to a live container.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<()> {
        let container = self.container(id)?;
        let resources = oci::parse_resources(resources)
            .and_then(|r| oci::check_resources(&r).map(|()| r))
            .map_err(|e| Error::InvalidArgument(e.to_string()))?;
        blocking(move || container.update(resources)).await
    }

    /// Orphans of containers in the node's pid namespace become our children; somebody must reap them.
    fn reap_strays(self: &Arc<Self>) {
        if self.strays.set(()).is_err() {
            return;
        }
        let pod = Arc::downgrade(self);
        tokio::spawn(async move {
            let Ok(mut children) =
                tokio::signal::unix::signal(tokio::signal::unix::SignalKind::child())
            else {
                return;
            };
            while children.recv().await.is_some() {
                let Some(pod) = pod.upgrade() else { return };
                let groups: Vec<String> = pod
                    .all()
                    .iter()
                    .map(|c| format!("/{}", c.cgroup.path().display()))
                    .collect();
                let list = std::fs::read_to_string(format!(
                    "/proc/self/task/{}/children",
                    std::process::id()
                ))
                .unwrap_or_default();
                for pid in list
                    .split_whitespace()
                    .filter_map(|p| p.parse::<i32>().ok())
                    .filter(|p| !executor::is_own_child(*p))
                {
                    // Hooks and loggers are waited for by who started them; they are in no container's group.
                    let of = crate::procfs::read(format!("/proc/{pid}/cgroup")).unwrap_or_default();
                    if of
                        .lines()
                        .any(|l| groups.iter().any(|g| l.contains(g.as_str())))
                    {
                        sys::process::reap_if_dead(pid);
                    }
                }
            }
        });
    }
}

async fn delete_exec(container: &Arc<Container>, exec_id: &str) -> Result<(i32, Option<Exit>)> {
    let exec = container.process(exec_id)?;
    exec.end_of_use()?;
    let closing = exec.streams().close();
    closing.await;
    container.remove_exec(exec_id);
    Ok((exec.pid(), exec.exit()))
}

/// Starts an exec. Blocks. On failure nothing of it is left.
fn spawn_exec(
    container: &Container,
    exec: &Process,
    process: &Judged<oci_spec::runtime::Process>,
    namespace: &str,
) -> Result<(AsyncFd<Child>, OwnedFd, Streams)> {
    let user = (process.user().uid(), process.user().gid());
    let owner = Owner {
        id: &container.id,
        namespace,
        user: container.maps.to_host(user),
    };
    let size = console_size(Some(process));
    let (stdio, mut streams) = Streams::open(exec.addresses(), &owner, false, size)?;
    let init = container.init.pidfd().ok_or_else(|| {
        Error::FailedPrecondition(format!(
            "container {} init process is not running",
            container.id
        ))
    })?;
    let denials = container.denials.as_ref();
    let plan = ExecPlan {
        process,
        id: &container.id,
        init: duplicate(&init)?,
        enter: container.enter,
        supervised: container.supervised.clone(),
        cgroup: Some(&container.cgroup),
        stdio,
        seccomp: container.seccomp.clone(),
        confinement: container.isolation.confinement(),
        watcher: denials.map(|d| d.watcher(exec.exec_id())),
        new_keyring: container.new_keyring,
        preserve_fds: 0,
    };
    let Spawned {
        child, terminal, ..
    } = executor::exec(plan)?.spawn()?;
    let pidfd = duplicate(&child)?;
    let child = watchable(child)?;
    streams.run(terminal).map_err(no_streams)?;
    Ok((child, pidfd, streams))
}

fn duplicate(fd: &impl AsFd) -> Result<OwnedFd> {
    let own = fd.as_fd().try_clone_to_owned();
    own.map_err(|e| Error::Unknown(format!("duplicate a pidfd: {e}")))
}

#[allow(clippy::needless_pass_by_value)] // as `map_err` wants it
fn no_streams(e: io::Error) -> Error {
    Error::Unknown(format!("standard streams: {e}"))
}

fn record_exit(container: &Container, exit: Exit) {
    let nanos = exit
        .at
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_nanos() as u64;
    let stored = Record::load(&container.bundle).and_then(|r| {
        Record {
            exit: Some((exit.status, nanos)),
            ..r
        }
        .store(&container.bundle)
    });
    if let Err(e) = stored {
        // A full disk must not stop an exit from being reported.
        log::warn!(id:% = container.id, error:% = e; "cannot record the exit");
    }
}

fn watchable(child: Child) -> Result<AsyncFd<Child>> {
    sys::watch::register(child, Interest::READABLE)
        .map_err(|e| Error::Unknown(format!("watch a process: {e}")))
}

/// Waits for the process's end and reaps it.
async fn reap(child: AsyncFd<Child>) -> Exit {
    loop {
        let ready = child.readable().await;
        match child.get_ref().try_wait() {
            Ok(Some(status)) => return Exit::now(status.code),
            Ok(None) => {
                if let Ok(mut ready) = ready {
                    ready.clear_ready();
                }
            }
            // Somebody else reaped it: its status is lost.
            Err(_) => return Exit::now(255),
        }
    }
}

/// A number for what filters are made from. The hasher's keys are this process's own: nobody can look for two that agree.
fn fingerprint(
    hasher: impl Hasher,
    own: Option<&LinuxSeccomp>,
    floor: Option<&Arc<seccomp::Program>>,
    watch: bool,
) -> u64 {
    struct Sink<H>(H);
    impl<H: Hasher> Write for Sink<H> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.write(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut sink = Sink(hasher);
    serde_json::to_writer(&mut sink, &own).ok();
    for i in floor.iter().flat_map(|f| &f.insns) {
        (i.code, i.jt, i.jf, i.k).hash(&mut sink.0);
    }
    watch.hash(&mut sink.0);
    sink.0.finish()
}
