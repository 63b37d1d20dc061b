//! Creating a container, up to its gate.

use std::hash::{BuildHasher, Hash, Hasher};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use oci_spec::runtime::{LinuxSeccomp, Spec};
use tokio::io::unix::AsyncFd;

use super::blocking::{blocking, console_size, duplicate, no_streams, watchable};
use super::denials::Denials;
use super::isolation::OfPod;
use super::learn;
use super::process::{Process, State};
use super::record::{Record, Recorded};
use super::users;
use super::{Container, CreateRequest, Error, Event, Filters, Isolation, Pod, Result, Slot, lock};
use crate::cgroup::{Cgroup, OomWatch};
use crate::executor::userns::Maps;
use crate::executor::{self, Gate, InitPlan, JoinedNamespaces, Spawned, hooks};
use crate::isolation::Judged;
use crate::names::{self, Names};
use crate::oci::StdioUris;
use crate::oci::capabilities::Sets;
use crate::oci::{HookKind, Inherited, Request, RootMount};
use crate::seccomp;
use crate::stdio::{Owner, Streams};
use crate::sys;
use crate::sys::process::Child;
use crate::trace;

/// A container whose init is at its gate, and which the pod does not know yet.
struct Built {
    container: Container,
    /// Killed if this is dropped.
    child: AsyncFd<Child>,
    oom: Option<OomWatch>,
}

/// A request that has passed the profile.
struct Admitted {
    isolation: Arc<Isolation>,
    request: Judged<Request>,
    notice: Option<String>,
    root_mounts: Judged<Vec<RootMount>>,
    stdio: Judged<StdioUris>,
    users: users::OfContainer,
}

impl Admitted {
    /// What `delete` needs to know of the container.
    fn record(&self, cgroup: &Cgroup) -> Record {
        Record {
            cgroup: cgroup.cgroups_path(),
            below: cgroup.below().clone(),
            resctrl: cgroup.resctrl().cloned(),
            users: self.users.own().map(|u| u.first()),
            poststop: self.request.hooks.of(HookKind::Poststop).cloned().collect(),
            ..Record::default()
        }
    }
}

/// The state of an init that waits at its gate.
fn at_gate(child: &Child, gate: Option<Gate>) -> Result<State> {
    let gate = gate.ok_or_else(|| Error::Unknown("the init has no gate".into()))?;
    Ok(State::Created {
        gate: Box::new(gate),
        pid: child.pid(),
        pidfd: Arc::new(duplicate(child)?),
    })
}

/// What an exec has of the container's process. Judged already, and judged again as the exec's.
fn inherited(spec: &Spec) -> Result<Inherited> {
    let process = spec.process().as_ref();
    let process = process.ok_or_else(|| Error::InvalidArgument("process: is missing".into()))?;
    Ok(Inherited::of(process))
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

impl Pod {
    /// Creates a container, up to its gate.
    pub async fn create(self: &Arc<Self>, request: CreateRequest) -> Result<i32> {
        let started = Instant::now();
        let _trace = trace::span("Create");
        let id = request.id.clone();
        crate::id::check(&id)?;
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
        log::debug!(id:%, pid:%, took_us:% = started.elapsed().as_micros(); "created");
        if self.tally.containers.fetch_add(1, Ordering::Relaxed) == 0 {
            self.announce();
        }
        Ok(pid)
    }

    fn reserve(&self, id: &str) -> Result<Reservation<'_>> {
        let mut containers = lock(&self.containers);
        if containers.contains_key(id) {
            return Err(Error::AlreadyExists(format!(
                "container {id} exists already"
            )));
        }
        containers.insert(id.to_owned(), Slot::Creating);
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
        let names = Names::of(|key| asked.annotation(key));
        names::register(&request.id, &names);
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
            users: users.own().map(|u| u.first()),
            place,
            namespaces: self.namespaces(&isolation, &asked),
        };
        let (judged, notice) = isolation.judge(&request.id, of_pod, asked)?;
        if judged.namespaces.mount.is_host() {
            return Err(Error::InvalidArgument(
                "linux.namespaces: a mount namespace is missing: the container's mounts would land on the node".into(),
            ));
        }
        Ok(Admitted {
            stdio: isolation.judge_streams(request.stdio.clone())?,
            request: judged,
            // Nobody looks into a pause container.
            notice: notice.filter(|_| !names.is_sandbox()),
            root_mounts,
            users,
            isolation,
        })
    }

    /// Makes a container, up to its gate. Blocks. On failure nothing of it is left.
    #[expect(
        clippy::too_many_lines,
        reason = "the order of a creation, in one place"
    )]
    fn build(&self, asked: CreateRequest) -> Result<Built> {
        let admitted = self.admit(&asked)?;
        let CreateRequest {
            id,
            bundle,
            options,
            ..
        } = asked;
        let (isolation, request) = (&admitted.isolation, &admitted.request);
        let spec = &request.rest;
        let compiling = trace::span("filters");
        let cgroup = Cgroup::of(self.layout.clone(), spec, &id)?;
        let cgroup = cgroup.own_only(isolation.restricts());
        let cgroup = if sys::creds::is_in_user_namespace() {
            cgroup.or_none()
        } else {
            cgroup
        };
        if isolation.restricts() && cgroup.is_none() {
            return Err(Error::FailedPrecondition(format!(
                "profile {:?} needs control groups for its limits, and this user may make none",
                isolation.name()
            )));
        }
        let cgroup = Arc::new(cgroup);
        let filters = self.filters(spec, isolation)?;
        drop(compiling);
        let denials = filters
            .watched
            .map(|w| Denials::new(&id, isolation.clone(), w, self.answering.clone()));
        let denied_egress = isolation.denied_egress();
        let (files, mut streams) = self.open_streams(&id, &admitted, options.io_owner)?;
        let hooks = hooks::HookRunner::new(request, &id, &bundle).map(Arc::new);
        if !admitted.root_mounts.is_empty() {
            executor::prepare_root_directory(request)?;
        }
        let new_keyring = isolation.restricts() || !options.no_new_keyring;
        let launched = executor::launch(
            InitPlan {
                request,
                id: &id,
                bundle: &bundle,
                root_mounts: &admitted.root_mounts,
                cgroup: Some(&cgroup),
                stdio: files,
                seccomp: filters.own.clone(),
                confinement: isolation.confinement(),
                watcher: denials.as_ref().map(|d| d.watcher("")),
                denied_egress: denied_egress.as_ref(),
                notice: admitted.notice.as_deref(),
                users: admitted.users.own().map(|u| &u.namespace),
                new_keyring,
                gate: None,
                preserve_fds: 0,
                pivot: true,
            },
            hooks.as_deref(),
        )?;
        // While the init sets the container up.
        let oom = cgroup.watch_oom();
        let mut recorded = Recorded::new(&bundle, admitted.record(&cgroup));
        recorded.write(launched.pid())?;
        let Spawned {
            undo,
            child,
            terminal,
            gate,
        } = launched.wait()?;
        recorded.write(child.pid())?;
        let enter = JoinedNamespaces::of(child.pid())?;
        let state = at_gate(&child, gate)?;
        let child = watchable(child)?;
        streams.run(terminal).map_err(no_streams)?;
        let seccomp_agent =
            executor::seccomp_agent(filters.own.as_ref(), spec, &id, &bundle, "running");
        self.decide_users(&admitted.users)?;
        undo.keep();
        recorded.keep();
        let container = Container {
            own_pids: request.namespaces.pid.is_new(),
            enter,
            has_tracers: AtomicBool::new(may_trace(spec.process().as_ref())),
            personality: executor::personality(spec),
            maps: Maps::of(spec),
            inherited: inherited(spec)?,
            capabilities: sets(spec.process().as_ref()).all(),
            allowed: learn::allowed(spec),
            users: admitted.users.own().map(|u| u.first()),
            init: Process::new(String::new(), admitted.stdio, state, streams),
            isolation: admitted.isolation,
            seccomp_agent,
            seccomp: filters.own,
            denials,
            denied_egress,
            hooks,
            new_keyring,
            recorder: Mutex::default(),
            execs: Mutex::default(),
            paused: AtomicBool::new(false),
            updated: AtomicBool::new(false),
            created: sys::time::seconds_since_1970(),
            names: Names::of(|key| request.annotation(key)),
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

    /// The process's end of its streams, and the shim's. Under a profile only the container's user becomes their owner: `io_owner`,
    /// which the handler's options name, counts in `standard` alone.
    fn open_streams(
        &self,
        id: &str,
        admitted: &Admitted,
        io_owner: Option<(u32, u32)>,
    ) -> Result<(executor::Stdio, Streams)> {
        let _opening = trace::span("open streams");
        let request = &admitted.request;
        let process = request.rest.process().as_ref();
        let user = process.map_or((0, 0), |p| (p.user().uid(), p.user().gid()));
        let io_owner = io_owner.filter(|_| !admitted.isolation.restricts());
        let owner = Owner {
            id,
            namespace: &self.namespace,
            user: io_owner.unwrap_or_else(|| Maps::of(&request.rest).to_host(user)),
        };
        let own_pids = request.namespaces.pid.is_new();
        let size = console_size(process);
        Ok(Streams::open(&admitted.stdio, &owner, own_pids, size)?)
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
}

/// The key under which a compiled filter is cached. The hasher is seeded at random for each process, so nobody can
/// construct two filters with the same key.
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
    for word in floor.into_iter().flat_map(|f| f.words()) {
        word.hash(&mut sink.0);
    }
    watch.hash(&mut sink.0);
    sink.0.finish()
}

fn sets(process: Option<&oci_spec::runtime::Process>) -> Sets {
    Sets::from_spec(process.and_then(|p| p.capabilities().as_ref()))
}

/// Whether a process may come to trace others that have more rights.
pub(super) fn may_trace(process: Option<&oci_spec::runtime::Process>) -> bool {
    sets(process).may_trace()
}
