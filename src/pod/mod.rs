//! The state of one pod: its containers, their processes, who waits on what, and in which order events leave. The only
//! place with mutable shared state. Blocking work runs on a thread pool. A lock is held for a few field accesses, with three
//! exceptions that only blocking work takes: `users` while the first container's ids are taken and tried, `ahead` while the first
//! spec is read, and a container's `recorder` while its programs are loaded.

mod ahead;
mod answering;
mod blocking;
mod container;
mod create;
mod delete;
mod denials;
mod error;
mod events;
mod exit;
mod isolation;
mod learn;
mod oom;
mod process;
mod record;
#[cfg(test)]
mod script_tests;
mod start;
mod tally;
mod users;

use std::collections::{BTreeSet, HashMap};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore};

use crate::cgroup::Layout;
use crate::control;
use crate::isolation::PodOfKubernetes;
use crate::names;
use crate::oci::StdioUris;
use crate::oci::{Namespace, Namespaces, Request, RootMount, namespace};
use crate::seccomp;
use crate::sys;
pub use container::{Container, Usage};
pub use error::Error;
pub use events::{Event, Events, Happened, Publisher, queue as event_queue};
pub use isolation::{BrokenProfile, Isolation, OfPod, ProfileSource, host_limits};
pub use process::{Exit, Status, StatusReport};
pub use record::Record;

/// A pod that nothing is asked of for this long is idle.
const IDLE_AFTER: Duration = Duration::from_millis(500);

/// Result of the pod's methods.
pub type Result<T> = std::result::Result<T, Error>;

/// Locks for a few field accesses. A panic elsewhere aborts the process, so poison carries no news.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What to create.
#[derive(Debug, Clone, Default)]
pub struct CreateRequest {
    /// Container id.
    pub id: String,
    /// Directory of `config.json`.
    pub bundle: PathBuf,
    /// Mounts that make up the root file system.
    pub root_mounts: Vec<RootMount>,
    /// Standard streams.
    pub stdio: StdioUris,
    /// What the handler's options say.
    pub options: Options,
}

/// Options of a handler in containerd's configuration.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Not to pivot to the root.
    pub no_pivot_root: bool,
    /// Not to give the container a session keyring of its own.
    pub no_new_keyring: bool,
    /// Whose the standard streams become: user and group. By default the container's user.
    pub io_owner: Option<(u32, u32)>,
    /// The isolation profile, which wins over the shim's name.
    pub profile: Option<ProfileSource>,
}

/// What is loaded into a container's processes.
#[derive(Clone, Default)]
struct Filters {
    /// The pod's own, where it is loaded by itself.
    own: Option<Arc<seccomp::Program>>,
    /// The floor and the pod's own in one, whose denials are seen.
    watched: Option<Arc<seccomp::NotifyingFilter>>,
}

/// Whether this shim can answer for denied calls. It needs `CAP_SYS_PTRACE` to take the descriptor of a filter
/// (`pidfd_getfd(2)`). And a process may have one filter with a listener only (EBUSY, `seccomp(2)`), so the shim must
/// not run under a filter itself.
fn can_watch() -> bool {
    const SYS_PTRACE: u64 = 1 << 19;
    let status = crate::procfs::read("/proc/self/status").unwrap_or_default();
    status.lines().any(|l| l == "Seccomp:\t0") && crate::sys::creds::permitted() & SYS_PTRACE != 0
}

enum Slot {
    Creating,
    Ready(Arc<Container>),
}

/// One pod.
pub struct Pod {
    id: String,
    namespace: String,
    /// The profile that the shim's name stands for.
    class: String,
    /// In seconds since 1970.
    started: u64,
    layout: Arc<Layout>,
    /// Why no container can be created, where the profile is broken.
    isolation: std::result::Result<Arc<Isolation>, BrokenProfile>,
    /// The profile of the containers that there are.
    shared_profile: Mutex<Option<Arc<Isolation>>>,
    /// Kubernetes' id of the pod.
    kubernetes: Mutex<Option<String>>,
    events: Publisher,
    containers: Mutex<HashMap<String, Slot>>,
    /// Compiled filters by what they are made from: the containers of a pod mostly share them.
    filters: Mutex<HashMap<u64, Filters>>,
    /// The first container's bundle.
    ahead: Mutex<ahead::Prefetch>,
    /// Whether this process can see what filters deny.
    can_watch: bool,
    /// Held by who answers denied calls.
    answering: Arc<Semaphore>,
    /// Whether containers to come are recorded.
    learning: AtomicBool,
    /// What the containers' users are, where the profile gives them some.
    users: Mutex<users::Decision>,
    tally: tally::Tally,
    shutdown: Notify,
    activity: Notify,
}

impl Pod {
    /// An empty pod of a containerd namespace. `class` is the name of its profile.
    pub fn new(
        id: String,
        namespace: String,
        class: String,
        layout: Layout,
        isolation: std::result::Result<Isolation, BrokenProfile>,
        events: Publisher,
    ) -> Arc<Self> {
        Arc::new(Self {
            id,
            namespace,
            class,
            started: crate::sys::time::seconds_since_1970(),
            layout: Arc::new(layout),
            isolation: isolation.map(Arc::new),
            shared_profile: Mutex::default(),
            kubernetes: Mutex::default(),
            events,
            containers: Mutex::default(),
            filters: Mutex::default(),
            ahead: Mutex::default(),
            can_watch: can_watch(),
            answering: Arc::new(Semaphore::new(1)),
            learning: AtomicBool::new(false),
            users: Mutex::default(),
            tally: tally::Tally::default(),
            shutdown: Notify::new(),
            activity: Notify::new(),
        })
    }

    /// What a container is isolated by: its handler's options, or the shim's name. All containers of a pod have the same: they
    /// share a shim, and with `auto` their users.
    fn isolation(&self, profile: Option<&ProfileSource>) -> Result<Arc<Isolation>> {
        let isolation = match profile {
            Some(source) => Isolation::from_options(source).map(Arc::new),
            None => self.isolation.clone(),
        }
        .map_err(|e| Error::FailedPrecondition(e.to_string()))?;
        let mut shared = lock(&self.shared_profile);
        match &*shared {
            Some(first) if first.is_same_as(&isolation) => Ok(first.clone()),
            Some(first) => Err(Error::FailedPrecondition(format!(
                "profile {:?} is not the pod's, whose first container has {:?}: give all containers of a pod the same handler",
                isolation.name(),
                first.name()
            ))),
            None => {
                *shared = Some(isolation.clone());
                Ok(isolation)
            }
        }
    }

    /// Which pod of Kubernetes this is. The sandbox's id is the shim's; and the first container that says whose volumes are the
    /// pod's says it for all: a client cannot give a container those of another pod.
    fn of_kubernetes(
        &self,
        isolation: &Isolation,
        request: &Request,
    ) -> Result<Option<PodOfKubernetes>> {
        let claimed = PodOfKubernetes::claimed(request).filter(|p| p.sandbox == self.id);
        let Some(claimed) = claimed.filter(|_| isolation.restricts()) else {
            return Ok(None);
        };
        let mut known = lock(&self.kubernetes);
        match (&*known, &claimed.uid) {
            (Some(known), Some(uid)) if known != uid => Err(Error::FailedPrecondition(format!(
                "annotations: the container is of the pod {uid:?}, and this one is {known:?}"
            ))),
            (None, Some(uid)) => {
                *known = Some(uid.clone());
                Ok(Some(claimed))
            }
            _ => Ok(Some(claimed)),
        }
    }

    /// The namespaces of the containers that there are, where the profile cares who else is in those that are joined.
    fn namespaces(&self, isolation: &Isolation, request: &Request) -> BTreeSet<(u64, u64)> {
        let joins = |typ| matches!(request.namespaces.get(typ), Namespace::Join(_));
        if !isolation.restricts() || !Namespaces::TYPES.into_iter().any(joins) {
            return BTreeSet::new();
        }
        let of = |container: Arc<Container>| {
            // As long as it is held, its number is nobody else's.
            let held = container.init().pidfd()?;
            let found: Vec<_> = namespace::of_process(container.init().pid()).collect();
            let lives = sys::process::pidfd_send_signal(held.as_fd(), 0);
            lives.is_ok().then_some(found)
        };
        self.all().into_iter().filter_map(of).flatten().collect()
    }

    /// A container by its id.
    pub fn container(&self, id: &str) -> Result<Arc<Container>> {
        match lock(&self.containers).get(id) {
            Some(Slot::Ready(c)) => Ok(c.clone()),
            Some(Slot::Creating) => Err(Error::NotFound(format!(
                "container {id} is still being created"
            ))),
            None => Err(Error::NotFound(format!(
                "container {id} not found: not created, or deleted already"
            ))),
        }
    }

    fn put(&self, container: &Arc<Container>) {
        lock(&self.containers).insert(container.id().to_owned(), Slot::Ready(container.clone()));
    }

    fn forget(&self, id: &str) {
        let mut containers = lock(&self.containers);
        containers.remove(id);
        // The pod's own lines have its names until its end.
        if id != self.id {
            names::forget(id);
        }
        // The next one is a first one.
        if containers.is_empty() {
            lock(&self.shared_profile).take();
            *lock(&self.users) = users::Decision::Open;
        }
    }

    fn all(&self) -> Vec<Arc<Container>> {
        lock(&self.containers)
            .values()
            .filter_map(|s| {
                if let Slot::Ready(c) = s {
                    Some(c.clone())
                } else {
                    None
                }
            })
            .collect()
    }

    /// Ends the shim if there is nothing left to serve; otherwise nothing happens, as containerd expects: it asks after
    /// every deletion.
    pub fn request_shutdown(&self) {
        if lock(&self.containers).is_empty() {
            self.shutdown.notify_one();
        }
    }

    /// To be called when something was done: see [`Pod::give_back_when_idle`].
    pub fn note_activity(&self) {
        self.activity.notify_one();
    }

    /// Gives memory back once each time that the pod has been left alone for a moment. Wakes up only after activity.
    pub async fn give_back_when_idle(self: Arc<Self>) {
        loop {
            self.activity.notified().await;
            while tokio::time::timeout(IDLE_AFTER, self.activity.notified())
                .await
                .is_ok()
            {}
            crate::sys::memory::give_back();
        }
    }

    /// Gives back what the pod has on the node beside its containers, of which there are none any more.
    pub fn release(&self) {
        *lock(&self.users) = users::Decision::Open;
    }

    /// Completes when the shim is to end.
    pub async fn until_shutdown(&self) {
        self.shutdown.notified().await;
    }

    /// The node goes down: asks every init to end, waits, then kills.
    pub async fn terminate(self: &Arc<Self>) {
        let containers = self.all();
        for c in &containers {
            c.init().signal(libc::SIGTERM).ok();
        }
        let all = async {
            for c in &containers {
                c.init().wait().await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), all)
            .await
            .is_err()
        {
            for c in &containers {
                c.kill_everything().await.ok();
            }
        }
        self.shutdown.notify_one();
    }

    /// Waits until containerd has taken every event, for a bounded time.
    pub async fn flush_events(&self, within: Duration) {
        self.events.flush(within).await;
    }

    /// Answers what people ask of the pod. Blocks.
    pub fn answer(&self, ask: control::Ask) -> control::Answer {
        use control::Ask;
        let answer = match ask {
            Ask::State => serde_json::to_value(self.describe()).map_err(learn::Error::Encode),
            Ask::LearnStart { container } => self.learn_start(container.as_deref()),
            Ask::LearnShow { container } => self.learn_show(container.as_deref(), false),
            Ask::LearnStop { container } => self.learn_show(container.as_deref(), true),
        };
        match answer {
            Ok(value) => control::Answer::Ok(value),
            Err(why) => control::Answer::Error(why.to_string()),
        }
    }

    fn describe(&self) -> control::Pod {
        let mut containers: Vec<control::Container> =
            self.all().iter().map(|c| c.describe()).collect();
        containers.sort_by(|a, b| (a.created, &a.id).cmp(&(b.created, &b.id)));
        control::Pod {
            id: self.id.clone(),
            namespace: self.namespace.clone(),
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").into(),
            class: self.class.clone(),
            broken: self.isolation.as_ref().err().map(ToString::to_string),
            started: self.started,
            containers,
        }
    }

    /// A text for people: every container and process, and what is pending.
    pub fn dump(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "containers={} pending_events={}",
            lock(&self.containers).len(),
            self.events.pending()
        )];
        lines.extend(self.all().iter().flat_map(|c| c.dump()));
        lines
    }
}
