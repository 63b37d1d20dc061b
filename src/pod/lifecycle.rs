//! Creating, starting, ending and deleting. Each runs to its end whatever becomes of the request that asked for it.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher};
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use containerd_shim_protos::api as protos;
use containerd_shim_protos::events::task::{
    TaskCreate, TaskDelete, TaskExecAdded, TaskExecStarted, TaskExit, TaskIO, TaskPaused,
    TaskResumed, TaskStart,
};
use containerd_shim_protos::protobuf::MessageField;
use oci_spec::runtime::{LinuxSeccomp, Spec};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::denials::Denials;
use super::isolation::OfPod;
use super::learn;
use super::process::{Exit, Process, State, Status};
use super::record::Record;
use super::{Container, CreateRequest, Error, Filters, Isolation, Pod, Result, lock};
use crate::cgroup::{Cgroup, OomWatch};
use crate::executor::userns::Maps;
use crate::executor::{self, Enter, ExecPlan, InitPlan, hooks, seccomp};
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

/// A container that was built and not yet registered.
struct Built {
    container: Container,
    spawned: executor::Spawned,
    oom: Option<OomWatch>,
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
        self.reserve(&id)?;
        let created = TaskCreate {
            container_id: id.clone(),
            bundle: request.bundle.display().to_string(),
            rootfs: request.root_mounts.iter().map(to_proto).collect(),
            io: MessageField::some(TaskIO {
                stdin: request.stdio.stdin.clone(),
                stdout: request.stdio.stdout.clone(),
                stderr: request.stdio.stderr.clone(),
                terminal: request.stdio.terminal,
                ..TaskIO::default()
            }),
            ..TaskCreate::default()
        };
        let pod = self.clone();
        let built = blocking(move || pod.build(request)).await;
        let Built {
            container,
            mut spawned,
            oom,
        } = match built {
            Ok(built) => built,
            Err(e) => {
                self.forget(&id);
                log::error!(id:%, error:% = e; "create failed");
                return Err(e);
            }
        };
        let container = Arc::new(container);
        container
            .init
            .streams()
            .run(spawned.terminal.take())
            .map_err(|e| Error::Unknown(format!("standard streams: {e}")))?;
        let pid = spawned.pid;
        self.put(&container);
        self.events.publish(&TaskCreate {
            pid: pid as u32,
            ..created
        });
        let oom = oom.and_then(|watch| self.watch_oom(&container, watch));
        self.watch_init(&container, spawned.pidfd, oom)?;
        if !container.enter.pid {
            self.reap_strays();
        }
        log::info!(id:%, pid:%, took_us:% = started.elapsed().as_micros(); "created");
        Ok(pid)
    }

    fn build(&self, request: CreateRequest) -> Result<Built> {
        if request.options.no_pivot_root {
            return Err(Error::Unimplemented(
                "the option NoPivotRoot is not supported: a root that can be left is none".into(),
            ));
        }
        let reading = trace::span("read config.json");
        let isolation = self.isolation(request.profile.as_ref())?;
        let asked = self.spec(&request.bundle)?;
        drop(reading);
        let applying = trace::span("apply the profile");
        let asked = Request::read(asked, &request.bundle, isolation.reading())?;
        if Record::load(&request.bundle).is_ok_and(|r| r.exit.is_none() && r.is_alive()) {
            return Err(Error::AlreadyExists(format!(
                "the bundle {} is of a container that runs",
                request.bundle.display()
            )));
        }
        let pod = self.of_kubernetes(&isolation, &asked)?;
        let place = isolation.place(&request.id, &request.bundle, pod);
        let root_mounts = isolation.judge_root_mounts(&place, request.root_mounts)?;
        let users = self.users(&isolation, &asked, &root_mounts, &request.id)?;
        let first = users.as_ref().map(|u| u.first());
        let of_pod = OfPod {
            layout: &self.layout,
            users: first,
            place,
            namespaces: self.namespaces(&isolation, &asked),
        };
        let judged = isolation.judge(&request.id, of_pod, asked)?;
        let stdio = isolation.judge_streams(request.stdio.clone())?;
        let spec = &judged.rest;
        if judged.namespaces.mount.is_host() {
            return Err(Error::InvalidArgument(
                "linux.namespaces: a mount namespace is missing: the container's mounts would land on the node".into(),
            ));
        }
        drop(applying);
        let compiling = trace::span("filters");
        let cgroup = Cgroup::of(self.layout.clone(), spec, &request.id)?;
        let cgroup = Arc::new(cgroup.own_only(isolation.restricts()));
        let Filters {
            own: filter,
            watched,
        } = self.filters(spec, &isolation)?;
        drop(compiling);
        let opening = trace::span("open streams");
        let denials = watched
            .map(|w| Denials::new(&request.id, isolation.clone(), w, self.answering.clone()));
        let own_pids = judged.namespaces.pid.is_new();
        let user = spec
            .process()
            .as_ref()
            .map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
        let maps = Maps::of(spec);
        let user = maps.to_host(user);
        // Under a profile nobody else names whose the streams become.
        let user = if isolation.restricts() || request.options.io_uid == 0 {
            user
        } else {
            (request.options.io_uid, request.options.io_gid)
        };
        let owner = Owner {
            id: &request.id,
            namespace: &self.namespace,
            user,
        };
        let (files, streams) = Streams::open(
            &stdio,
            &owner,
            own_pids,
            console_size(spec.process().as_ref()),
        )?;
        drop(opening);
        let hooks = hooks::Subject::new(&judged, &request.id, &request.bundle).map(Arc::new);
        if !root_mounts.is_empty() {
            executor::prepare_root_directory(&judged)?;
        }
        let new_keyring = isolation.restricts() || !request.options.no_new_keyring;
        // Done while the init sets the container up.
        let recorded = RefCell::new(Ok(()));
        let oom = RefCell::new(None);
        let born = |pid| {
            let _recording = trace::span("write the record");
            *oom.borrow_mut() = cgroup.watch_oom();
            let record = Record {
                pid,
                start_time: sys::process::start_time(pid).unwrap_or(0),
                shim: std::process::id(),
                cgroup: cgroup.cgroups_path(),
                resctrl: cgroup.resctrl().cloned(),
                users: first,
                poststop: judged.hooks.of(HookKind::Poststop).cloned().collect(),
                exit: None,
            };
            *recorded.borrow_mut() = record
                .store(&request.bundle)
                .and_then(|()| write_pid(&request.bundle, pid));
        };
        let plan = InitPlan {
            born: Some(&born),
            request: &judged,
            id: &request.id,
            bundle: &request.bundle,
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
        };
        let mut spawned = executor::create(plan, hooks.as_deref()).inspect_err(|_| {
            Record::remove(&request.bundle);
        })?;
        if let Err(e) = recorded.into_inner() {
            sys::process::pidfd_send_signal(spawned.pidfd.as_fd(), libc::SIGKILL).ok();
            sys::process::wait_pidfd(spawned.pidfd.as_fd(), true).ok();
            executor::give_up(Some(&cgroup), hooks.as_deref());
            return Err(Error::Unknown(format!(
                "write the container's record into {}: {e}",
                request.bundle.display()
            )));
        }
        let Some(gate) = spawned.gate.take() else {
            return Err(Error::Unknown("the init has no gate".into()));
        };
        let pidfd = spawned
            .pidfd
            .try_clone()
            .map_err(|e| Error::Unknown(format!("duplicate a pidfd: {e}")))?;
        let state = State::Created {
            gate: Box::new(gate),
            pid: spawned.pid,
            pidfd: Arc::new(pidfd),
        };
        let init = Process::new(String::new(), stdio, state, streams);
        let supervised = executor::supervised(
            filter.as_ref(),
            &judged,
            &request.id,
            &request.bundle,
            "running",
        );
        let container = Container {
            id: request.id,
            bundle: request.bundle,
            cgroup,
            own_pids,
            enter: Enter::of(&judged),
            maps,
            supervised,
            seccomp: filter,
            denials,
            isolation,
            hooks,
            new_keyring,
            allowed: learn::allowed(spec),
            recorder: Mutex::default(),
            init,
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
            updated: AtomicBool::new(false),
            created: sys::time::seconds_since_1970(),
            users: first,
            oom_announced: AtomicU64::new(0),
            last_usage: Mutex::default(),
        };
        self.learn_from_start(&container);
        Ok(Built {
            container,
            spawned,
            oom: oom.into_inner(),
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
        let key = fingerprint(hasher, &(own, floor.map(|(spec, _)| spec), watch));
        if let Some(filters) = lock(&self.filters).get(&key) {
            return Ok(filters.clone());
        }
        let watched = if watch {
            seccomp::watch(floor.map(|(_, program)| program), own)?.map(Arc::new)
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
                State::Starting {
                    pid,
                    pidfd: Some(pidfd.clone()),
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
        self.events.publish(&TaskStart {
            container_id: container.id.clone(),
            pid: pid as u32,
            ..TaskStart::default()
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
        let spawned = blocking(move || {
            let owner = Owner {
                id: &c.id,
                namespace: &namespace,
                user: c.maps.to_host((process.user().uid(), process.user().gid())),
            };
            let (stdio, streams) =
                Streams::open(e.addresses(), &owner, false, console_size(Some(&process)))?;
            let init = c.init.pidfd().ok_or_else(|| {
                Error::FailedPrecondition(format!("container {} init process is not running", c.id))
            })?;
            let spawned = executor::exec(ExecPlan {
                process: &process,
                id: &c.id,
                init: init
                    .try_clone()
                    .map_err(|e| Error::Unknown(format!("duplicate a pidfd: {e}")))?,
                enter: c.enter,
                supervised: c.supervised.clone(),
                cgroup: Some(&c.cgroup),
                stdio,
                seccomp: c.seccomp.clone(),
                confinement: c.isolation.confinement(),
                watcher: c.denials.as_ref().map(|d| d.watcher(e.exec_id())),
                new_keyring: c.new_keyring,
                preserve_fds: 0,
            })
            .and_then(|job| job.spawn(None))?;
            Ok((spawned, streams))
        })
        .await;
        let (mut spawned, streams) = match spawned {
            Ok(s) => s,
            Err(e) => {
                // Who waits for it is told that it will never run.
                exec.finish(Exit::now(128));
                log::error!(id:% = container.id, exec:% = exec_id, error:% = e; "exec failed");
                return Err(e);
            }
        };
        exec.streams().adopt(streams);
        let pid = spawned.pid;
        let watch = spawned
            .pidfd
            .try_clone()
            .map_err(|e| Error::Unknown(format!("duplicate a pidfd: {e}")))?;
        exec.streams()
            .run(spawned.terminal.take())
            .map_err(|e| Error::Unknown(format!("standard streams: {e}")))?;
        exec.set(State::Running {
            pid,
            pidfd: Arc::new(spawned.pidfd),
        });
        self.events.publish(&TaskExecStarted {
            container_id: container.id.clone(),
            exec_id: exec_id.to_owned(),
            pid: pid as u32,
            ..TaskExecStarted::default()
        });
        self.watch_exec(container, &exec, watch)?;
        log::info!(id:% = container.id, exec:% = exec_id, pid:%; "exec started");
        Ok(pid)
    }

    fn watch_init(
        self: &Arc<Self>,
        container: &Arc<Container>,
        pidfd: OwnedFd,
        oom: Option<tokio::task::JoinHandle<()>>,
    ) -> Result<()> {
        let pidfd = watchable(pidfd)?;
        let (pod, container) = (self.clone(), container.clone());
        tokio::spawn(async move {
            let mut exit = reap(pidfd).await;
            let ending = trace::span("exit");
            executor::forget_child(container.init.pid());
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
        Ok(())
    }

    fn watch_exec(
        self: &Arc<Self>,
        container: &Arc<Container>,
        exec: &Arc<Process>,
        pidfd: OwnedFd,
    ) -> Result<()> {
        let pidfd = watchable(pidfd)?;
        let (pod, container, exec) = (self.clone(), container.clone(), exec.clone());
        tokio::spawn(async move {
            let exit = reap(pidfd).await;
            executor::forget_child(exec.pid());
            let _turn = exec.turn.lock().await;
            exec.output_taken().await;
            pod.publish_exit(&container, &exec, exit);
            exec.finish(exit);
            log::info!(id:% = container.id, exec:% = exec.exec_id(), status:% = exit.status; "exec exited");
        });
        Ok(())
    }

    fn publish_exit(&self, container: &Container, process: &Process, exit: Exit) {
        self.events.publish(&TaskExit {
            container_id: container.id.clone(),
            id: if process.exec_id().is_empty() {
                container.id.clone()
            } else {
                process.exec_id().to_owned()
            },
            pid: process.pid() as u32,
            exit_status: exit.status,
            exited_at: MessageField::some(exit.timestamp()),
            ..TaskExit::default()
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
        self.events.publish(&TaskExecAdded {
            container_id: container.id.clone(),
            exec_id: exec_id.to_owned(),
            ..TaskExecAdded::default()
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
        self.events.publish(&TaskDelete {
            container_id: container.id.clone(),
            pid: pid as u32,
            exit_status: exit.map_or(0, |e| e.status),
            exited_at: exit.map(|e| e.timestamp()).into(),
            ..TaskDelete::default()
        });
        log::info!(id:% = container.id; "deleted");
        Ok((pid, exit))
    }

    /// Freezes or thaws a container.
    pub async fn set_paused(self: &Arc<Self>, id: &str, pause: bool) -> Result<()> {
        let container = self.container(id)?;
        let c = container.clone();
        blocking(move || c.set_paused(pause)).await?;
        let container_id = container.id.clone();
        if pause {
            self.events.publish(&TaskPaused {
                container_id,
                ..TaskPaused::default()
            });
        } else {
            self.events.publish(&TaskResumed {
                container_id,
                ..TaskResumed::default()
            });
        }
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
    match exec.report().status {
        Status::Running => return Err(Error::Unknown("cannot delete a running process".into())),
        Status::Created if exec.pid() != 0 => {
            return Err(Error::Unknown(
                "cannot delete a process that is being started".into(),
            ));
        }
        Status::Created | Status::Stopped => {}
    }
    let closing = exec.streams().close();
    closing.await;
    container.remove_exec(exec_id);
    Ok((exec.pid(), exec.exit()))
}

/// `init.pid`, as containerd's own shim leaves it; tools read it.
fn write_pid(bundle: &Path, pid: i32) -> std::io::Result<()> {
    std::fs::write(bundle.join("init.pid"), pid.to_string())
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

fn watchable(pidfd: OwnedFd) -> Result<AsyncFd<OwnedFd>> {
    sys::watch::register(pidfd, Interest::READABLE)
        .map_err(|e| Error::Unknown(format!("watch a process: {e}")))
}

/// Waits for the process's end and reaps it.
async fn reap(pidfd: AsyncFd<OwnedFd>) -> Exit {
    loop {
        let ready = pidfd.readable().await;
        match sys::process::wait_pidfd(pidfd.as_fd(), false) {
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
    made_from: &(Option<&LinuxSeccomp>, Option<&LinuxSeccomp>, bool),
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
    serde_json::to_writer(&mut sink, made_from).ok();
    sink.0.finish()
}

fn to_proto(m: &RootMount) -> protos::Mount {
    protos::Mount {
        type_: m.fstype.clone(),
        source: m.source.clone(),
        target: m.target.clone(),
        options: m.options.clone(),
        ..protos::Mount::default()
    }
}
