//! Control groups: where a container's groups are, and what is done with them. One interface over cgroup v1, the hybrid
//! layout (v1 controllers with a cgroup v2 tree beside them) and v2.
//!
//! Sources: `Documentation/admin-guide/cgroup-v1/`, `Documentation/admin-guide/cgroup-v2.rst`, OCI `config-linux.md`.

mod devices;
mod egress;
mod layout;
mod oom;
mod path;
mod resctrl;
mod settings;
pub mod stats;
mod systemd;
mod v1;
mod v2;

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use oci_spec::runtime::{LinuxResources, Spec};

use crate::isolation::Judged;
use crate::oci::Request;
use crate::sys;
pub use egress::Destination;
pub use layout::{Hierarchy, Layout};
pub use oom::OomWatch;
use path::Unit;
pub use path::is_systemd_form;
pub use resctrl::Groups as Resctrl;
use settings::Setting;

/// Directories that we made on the way to a container's group carry this mark, so that whichever of our shims leaves
/// last may remove them, and nobody ever removes the kubelet's.
const MADE_BY_US: &std::ffi::CStr = c"trusted.cofferdam";
/// Marks the groups that were made for a container.
const CONTAINER: &std::ffi::CStr = c"trusted.cofferdam.container";

/// What went wrong with a control group.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused a value of the spec.
    #[error("{field}: writing {value:?} to {}: {}", file.display(), source)]
    Refused {
        /// JSON path in the OCI spec.
        field: String,
        /// What was written.
        value: String,
        /// Where it was written.
        file: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The spec asks for what this node's control groups do not have.
    #[error("{field}: {reason}")]
    Unavailable {
        /// JSON path in the OCI spec.
        field: String,
        /// What is missing.
        reason: String,
    },
    /// Anything else that failed.
    #[error("{what} {}: {}", path.display(), source)]
    Io {
        /// The operation.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// A device program could not be loaded or attached.
    #[error("linux.resources.devices: {what}: {} ({errno:?})", errno.desc())]
    DeviceProgram {
        /// The step that failed.
        what: &'static str,
        /// The kernel's answer.
        errno: Errno,
    },
    /// systemd is to make the groups, and did not.
    #[error("linux.cgroupsPath: {unit:?}: {reason}")]
    Systemd {
        /// The path, or the unit.
        unit: String,
        /// What is in the way.
        reason: String,
    },
    /// Groups that are others'.
    #[error("linux.cgroupsPath: {}: {reason}: choose a path of the container's own", path.display())]
    Foreign {
        /// The group.
        path: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// Processes were still there when the deadline came.
    #[error("cgroup {}: {count} processes did not go away within {within:?}", path.display())]
    Busy {
        /// The group.
        path: PathBuf,
        /// How many are left.
        count: usize,
        /// How long we waited.
        within: Duration,
    },
}

type Result<T> = std::result::Result<T, Error>;

fn io_error<'a>(what: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + 'a {
    move |source| Error::Io {
        what,
        path: path.to_owned(),
        source,
    }
}

/// A limit, as it was asked for and as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Comparison {
    /// JSON path in the spec.
    pub field: String,
    /// The control file.
    pub file: String,
    /// What was asked for.
    pub wanted: String,
    /// What the file says; none where there is no file.
    pub found: Option<String>,
    /// Nobody asked for it.
    pub optional: bool,
}

/// The control groups of one container: the same relative path in every hierarchy.
#[derive(Debug, Clone)]
pub struct Cgroup {
    layout: Arc<Layout>,
    /// Relative to each hierarchy's mount, without a leading slash.
    path: PathBuf,
    /// Whose groups these are, where systemd makes them.
    unit: Option<Unit>,
    resctrl: Option<resctrl::Groups>,
    /// Whether groups that others have made are none of its.
    own_only: bool,
}

impl Cgroup {
    /// Places a container by the spec's `linux.cgroupsPath`: in cgroupfs form (`/a/b`) we make the groups ourselves, in
    /// systemd's (`slice:prefix:name`) a transient unit of systemd does.
    pub fn new(layout: Arc<Layout>, cgroups_path: Option<&Path>, id: &str) -> Result<Self> {
        let (path, unit) = path::relative(cgroups_path, id, &layout)?;
        Ok(Self {
            layout,
            path,
            unit,
            resctrl: None,
            own_only: false,
        })
    }

    /// The same, as the spec has it, with the groups of `linux.intelRdt`.
    pub fn of(layout: Arc<Layout>, spec: &Spec, id: &str) -> Result<Self> {
        let linux = spec.linux().as_ref();
        let path = linux.and_then(|l| l.cgroups_path().as_deref());
        Self::new(layout, path, id)?.with_resctrl(spec, id)
    }

    /// Adds the groups of the spec's `linux.intelRdt`.
    pub fn with_resctrl(self, spec: &Spec, id: &str) -> Result<Self> {
        let resctrl = resctrl::Groups::of(spec, id)?;
        Ok(Self { resctrl, ..self })
    }

    /// The groups of `linux.intelRdt`, for [`Self::resume`] in another process.
    pub fn resctrl(&self) -> Option<&Resctrl> {
        self.resctrl.as_ref()
    }

    /// Adds groups of `linux.intelRdt` that were made already.
    #[must_use]
    pub fn resume(self, resctrl: Option<Resctrl>) -> Self {
        Self { resctrl, ..self }
    }

    /// Refuses groups that exist already, except those that an earlier Cofferdam container left; and none below another
    /// container's. Without it a spec may name any group of the node's that has no processes: its limits would be the spec's.
    #[must_use]
    pub fn own_only(self, own_only: bool) -> Self {
        Self { own_only, ..self }
    }

    /// A `linux.cgroupsPath` that gives the same groups again, in another process too.
    pub fn cgroups_path(&self) -> PathBuf {
        match &self.unit {
            Some(unit) => PathBuf::from(&unit.text),
            None => Path::new("/").join(&self.path),
        }
    }

    /// The path below every hierarchy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether this node is on pure cgroup v2.
    pub fn is_v2(&self) -> bool {
        self.layout.is_v2()
    }

    /// The layout of this node.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    fn dir(&self, hierarchy: &Hierarchy) -> PathBuf {
        hierarchy.mount.join(&self.path)
    }

    /// The container's directory in the hierarchy that has `controller`.
    pub fn controller_dir(&self, controller: &str) -> Option<PathBuf> {
        self.layout.find(controller).map(|h| self.dir(h))
    }

    /// The container's directory in the v2 tree, also on a hybrid node.
    fn unified_dir(&self) -> Option<PathBuf> {
        self.layout.unified().map(|h| self.dir(h))
    }

    /// Creates the groups in every hierarchy and applies the request's resources. Leaves nothing behind on failure. What is
    /// returned must be kept until a process of the container is in the groups.
    pub fn create(&self, request: &Judged<Request>) -> Result<Option<Placeholder>> {
        let linux = request.rest.linux().as_ref();
        let resources = linux.and_then(|l| l.resources().as_ref());
        let placeholder = match &self.unit {
            Some(unit) => self.start_unit(unit, resources)?,
            None => None,
        };
        let mut new = Vec::new();
        let made = self
            .make_directories(&mut new)
            .and_then(|()| self.apply(resources, true))
            .and_then(|()| {
                self.resctrl
                    .as_ref()
                    .map_or(Ok(()), resctrl::Groups::create)
            });
        if let Err(e) = made {
            drop(placeholder);
            // What was there before is somebody else's.
            let is_new = |dir: &Path| self.unit.is_some() || new.iter().any(|n| n == dir);
            self.remove_those(Duration::ZERO, is_new).ok();
            return Err(e);
        }
        Ok(placeholder)
    }

    /// systemd's scopes need a process from the first moment: one that sleeps holds the place until the container's is there.
    fn start_unit(
        &self,
        unit: &Unit,
        resources: Option<&LinuxResources>,
    ) -> Result<Option<Placeholder>> {
        let placeholder = if unit.is_slice() {
            None
        } else {
            let process = sys::process::Sleeper::new().map_err(|errno| Error::Systemd {
                unit: unit.name.clone(),
                reason: format!("no process to hold the scope: {}", errno.desc()),
            })?;
            Some(Placeholder { process })
        };
        let properties = systemd::properties(&self.settings(resources)?);
        let rules = match resources {
            Some(r) if !self.is_v2() => Some(devices::normalise(
                r.devices().as_deref().unwrap_or_default(),
            )?),
            _ => None,
        };
        let pid = placeholder.as_ref().map(|p| p.process.pid());
        systemd::start(unit, pid, properties, rules.as_ref())?;
        Ok(placeholder)
    }

    fn settings(&self, resources: Option<&LinuxResources>) -> Result<Vec<Setting>> {
        let mut settings = Vec::new();
        if let Some(r) = resources {
            if self.is_v2() {
                v2::settings(self, r, &mut settings)?
            } else {
                v1::settings(self, r, &mut settings)?
            }
        }
        Ok(settings)
    }

    /// For tests: the control files that resources are written to, with their values and in their order, on a node of either
    /// kind; and what its rules open, as type, major and minor, where none is any.
    ///
    /// # Errors
    /// As for applying them.
    #[cfg(any(test, fuzzing, feature = "sabotage"))]
    pub fn effects(
        &self,
        resources: &Judged<LinuxResources>,
        v2: bool,
    ) -> Result<(Vec<(String, String)>, devices::Opened)> {
        let mut settings = Vec::new();
        if v2 {
            v2::settings(self, resources, &mut settings)?;
        } else {
            v1::settings(self, resources, &mut settings)?;
        }
        let rules = devices::normalise(resources.devices().as_deref().unwrap_or_default())?;
        let written = settings.into_iter().map(|s| (s.file, s.value));
        Ok((written.collect(), rules.opened()))
    }

    /// What `resources` ask for, and what is in the live groups.
    pub fn compare(&self, resources: &LinuxResources) -> Result<Vec<Comparison>> {
        let one = |s: Setting| {
            let file = self.controller_dir(s.controller).map(|d| d.join(&s.file));
            let found = file.and_then(|f| fs::read_to_string(f).ok());
            Comparison {
                field: s.field,
                file: s.file,
                wanted: s.value,
                found: found.map(|f| f.trim().to_owned()),
                optional: s.optional,
            }
        };
        let settings = self.settings(Some(resources))?;
        Ok(settings.into_iter().map(one).collect())
    }

    /// How many eBPF programs filter devices, and how many connections, in the v2 tree. None where there is no such tree.
    pub fn programs(&self) -> Option<(usize, usize)> {
        let group = fs::File::open(self.unified_dir()?).ok()?;
        let count = |hook| sys::bpf::attached(std::os::fd::AsFd::as_fd(&group), hook).unwrap_or(0);
        Some((
            count(sys::bpf::CGROUP_DEVICE),
            count(sys::bpf::SocketHook::Connect4 as u32),
        ))
    }

    fn make_directories(&self, new: &mut Vec<PathBuf>) -> Result<()> {
        for h in &self.layout.hierarchies {
            let dir = self.dir(h);
            let mut above = self.above(h);
            if let Some(path) = above.find(|dir| self.own_only && has_mark(dir, CONTAINER)) {
                return Err(Error::Foreign {
                    path,
                    reason: "it is another container's",
                });
            }
            // systemd refuses a unit that is there already, and its placeholder is in the groups that it made.
            if make_group(h, &dir, true)? {
                new.push(dir.clone());
            } else if self.unit.is_none() {
                if self.own_only && !has_mark(&dir, CONTAINER) {
                    return Err(Error::Foreign {
                        path: dir,
                        reason: "it exists already, and no Cofferdam container has left it",
                    });
                }
                let left = read_pids(&dir.join("cgroup.procs"))?.len();
                if left > 0 {
                    return Err(Error::Foreign {
                        path: dir,
                        reason: "it has processes already, of another container",
                    });
                }
            }
            if h.v2 {
                v2::enable_controllers(&h.mount, &self.path);
            } else if h.has("cpuset") {
                v1::inherit_cpuset(&h.mount, &self.path)?;
            }
        }
        Ok(())
    }

    /// Applies `resources` to live groups. A refused value puts the earlier ones back.
    pub fn update(&self, resources: &Judged<LinuxResources>) -> Result<()> {
        self.apply(Some(resources), false)
    }

    fn apply(&self, resources: Option<&LinuxResources>, fresh: bool) -> Result<()> {
        let settings = self.settings(resources)?;
        let before = self.write_settings(&settings, !fresh)?;
        if let Some(unit) = self.unit.as_ref().filter(|_| !fresh) {
            if let Err(e) = systemd::update(unit, systemd::properties(&settings)) {
                put_back(&before);
                return Err(e);
            }
            // systemd rounds some of them.
            self.write_settings(&settings, false)?;
        }
        let rules = resources.and_then(|r| r.devices().as_deref());
        if fresh || rules.is_some_and(|r| !r.is_empty()) {
            let rules = devices::normalise(rules.unwrap_or_default())?;
            match self.layout.find("devices") {
                Some(h) if !h.v2 => devices::write_v1(&self.dir(h), &rules, fresh)?,
                _ => {
                    if let Some(dir) = self.is_v2().then(|| self.unified_dir()).flatten() {
                        devices::attach_v2(&dir, &rules, fresh)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns what was there before, for [`put_back`], if that is wanted.
    fn write_settings(&self, settings: &[Setting], undo: bool) -> Result<Vec<(PathBuf, String)>> {
        let mut done: Vec<(PathBuf, String)> = Vec::new();
        for s in settings {
            let Some(dir) = self.controller_dir(s.controller) else {
                if s.optional {
                    continue;
                }
                return Err(Error::Unavailable {
                    field: s.field.clone(),
                    reason: format!("this node has no {} cgroup controller", s.controller),
                });
            };
            let file = dir.join(&s.file);
            let before = if undo {
                fs::read_to_string(&file).ok()
            } else {
                None
            };
            match fs::write(&file, s.value.as_bytes()) {
                Ok(()) => {
                    if let Some(before) = before {
                        done.push((file, before.trim().to_owned()));
                    }
                }
                Err(e) if s.optional && e.kind() == ErrorKind::NotFound => {}
                Err(source) => {
                    put_back(&done);
                    return Err(Error::Refused {
                        field: s.field.clone(),
                        value: s.value.clone(),
                        file,
                        source,
                    });
                }
            }
        }
        Ok(done)
    }

    /// What a process needs to be born here or to move here: a directory for `CLONE_INTO_CGROUP`, and the open `tasks`
    /// files of the v1 hierarchies. A single-threaded process that writes `0` to `tasks` moves itself without the
    /// wait for an RCU grace period (about 10 ms) that a write to `cgroup.procs` pays.
    pub fn entry(&self) -> Result<Entry> {
        let mut entry = Entry {
            v2: None,
            tasks: Vec::new(),
        };
        for h in &self.layout.hierarchies {
            let dir = self.dir(h);
            if h.v2 {
                entry.v2 = Some(V2Group {
                    fd: fs::File::open(&dir).map_err(io_error("open", &dir))?.into(),
                    path: Path::new("/").join(&self.path),
                    dir,
                });
            } else {
                let tasks = dir.join("tasks");
                let fd = fs::OpenOptions::new()
                    .write(true)
                    .open(&tasks)
                    .map_err(io_error("open", &tasks))?
                    .into();
                entry.tasks.push((tasks, fd));
            }
        }
        if let Some(groups) = &self.resctrl {
            let tasks = groups.entry()?;
            entry
                .tasks
                .extend(tasks.into_iter().map(|(path, file)| (path, file.into())));
        }
        Ok(entry)
    }

    /// Every process in the group and below it; as many as can be read.
    pub fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        self.collect_pids(&mut pids).ok();
        pids
    }

    fn collect_pids(&self, pids: &mut Vec<i32>) -> Result<()> {
        match self.layout.process_tree() {
            Some(h) => collect_pids(&self.dir(h), pids),
            None => Ok(()),
        }
    }

    /// Sends `signal` to every process in the group.
    pub fn signal_all(&self, signal: i32) {
        if signal == libc::SIGKILL
            && let Some(dir) = self.unified_dir()
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            // cgroup.kill (Linux 5.14) is atomic, and reaches frozen processes too, unless the v1 freezer holds them.
            self.thaw_v1();
            return;
        }
        for pid in self.pids() {
            sys::process::kill(pid, signal).ok();
        }
        if signal == libc::SIGKILL {
            self.thaw_v1();
        }
    }

    /// Kills everything in the group and waits until it is empty, for at most `within`.
    pub fn kill_and_wait(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        let mut pause = Duration::from_micros(200);
        loop {
            let mut left = Vec::new();
            // A group that cannot be read, because descriptors have run out, is not empty.
            let read = self.collect_pids(&mut left);
            if read.is_ok() && left.is_empty() {
                return Ok(());
            }
            self.signal_all(libc::SIGKILL);
            if Instant::now() >= deadline {
                read?;
                return Err(Error::Busy {
                    path: self.path.clone(),
                    count: left.len(),
                    within,
                });
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    }

    fn thaw_v1(&self) {
        if let Some(dir) = self
            .layout
            .find("freezer")
            .filter(|h| !h.v2)
            .map(|h| self.dir(h))
        {
            fs::write(dir.join("freezer.state"), "THAWED").ok();
        }
    }

    /// Freezes or thaws the group, and waits until it is so.
    pub fn set_frozen(&self, frozen: bool) -> Result<()> {
        if let Some(h) = self.layout.find("freezer").filter(|h| !h.v2) {
            return v1::set_frozen(&self.dir(h), frozen);
        }
        match self.unified_dir() {
            Some(dir) => v2::set_frozen(&dir, frozen),
            None => Err(Error::Unavailable {
                field: "pause".into(),
                reason: "this node has no freezer".into(),
            }),
        }
    }

    /// Whether the group is frozen.
    pub fn is_frozen(&self) -> bool {
        if let Some(h) = self.layout.find("freezer").filter(|h| !h.v2) {
            let state = fs::read_to_string(self.dir(h).join("freezer.state"));
            return state.is_ok_and(|s| s.trim() != "THAWED");
        }
        let dir = self.unified_dir();
        dir.is_some_and(|d| stats::single(&d.join("cgroup.freeze")) == Some(1))
    }

    /// How many times the OOM killer has struck here. `None` where there is no memory controller.
    pub fn oom_kills(&self) -> Option<u64> {
        let h = self.layout.find("memory")?;
        let file = self.dir(h).join(if h.v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        });
        stats::flat_keyed(&file)
            .into_iter()
            .find(|(k, _)| k == "oom_kill")
            .map(|(_, v)| v)
    }

    /// A descriptor that becomes readable when memory runs out here.
    pub fn watch_oom(&self) -> Option<OomWatch> {
        let h = self.layout.find("memory")?;
        OomWatch::new(&self.dir(h), h.v2).ok()
    }

    /// Removes the groups, and the directories above them that we made and nobody uses, waiting at most `within`
    /// for the kernel to let go of exiting processes.
    pub fn remove(&self, within: Duration) -> Result<()> {
        self.remove_those(within, |_| true)
    }

    fn remove_those(&self, within: Duration, is_ours: impl Fn(&Path) -> bool) -> Result<()> {
        let deadline = Instant::now() + within;
        if let Some(groups) = &self.resctrl {
            groups.remove();
        }
        let mut result = match &self.unit {
            // What systemd leaves, or all where it cannot be reached any more, goes as ever.
            Some(unit) => systemd::stop(unit),
            None => Ok(()),
        };
        for h in &self.layout.hierarchies {
            let dir = self.dir(h);
            if !is_ours(&dir) {
                continue;
            }
            if let Err(e) = remove_tree(&dir, deadline) {
                result = Err(e);
                continue;
            }
            for dir in self.above(h) {
                if !has_mark(&dir, MADE_BY_US) || fs::remove_dir(&dir).is_err() {
                    break;
                }
            }
        }
        result
    }

    /// The directories above, the nearest first, without the hierarchy's root.
    fn above<'a>(&'a self, h: &'a Hierarchy) -> impl Iterator<Item = PathBuf> + 'a {
        let parents = self.path.ancestors().skip(1);
        parents
            .filter(|p| !p.as_os_str().is_empty())
            .map(|p| h.mount.join(p))
    }

    /// Whether all existing groups were made for a Cofferdam container, by a process that may mark them.
    pub fn is_of_container(&self) -> bool {
        let mut all = self.layout.hierarchies.iter().map(|h| self.dir(h));
        all.all(|dir| !dir.exists() || has_mark(&dir, CONTAINER))
    }

    /// Whether somebody else removes the groups when their last process ends: systemd does.
    pub fn is_managed_by_systemd(&self) -> bool {
        self.unit.is_some()
    }

    /// Whether any hierarchy still has the group.
    pub fn exists(&self) -> bool {
        self.layout.hierarchies.iter().any(|h| self.dir(h).exists())
    }
}

/// Takes settings back, the last one first.
fn put_back(done: &[(PathBuf, String)]) {
    for (file, value) in done.iter().rev() {
        fs::write(file, value.as_bytes()).ok();
    }
}

/// Holds the groups of a systemd scope until the container's first process is there; ends when it is dropped.
#[derive(Debug)]
pub struct Placeholder {
    process: sys::process::Sleeper,
}

/// A group that a process can be born in, by `CLONE_INTO_CGROUP`.
#[derive(Debug)]
pub struct V2Group {
    fd: OwnedFd,
    dir: PathBuf,
    /// As `/proc/PID/cgroup` has it.
    path: PathBuf,
}

impl V2Group {
    /// Its directory.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// The group at or below this one that a process is in. A container that has divided its group among groups of its own has no
    /// process at the top: `cgroups(7)`, "no internal processes".
    ///
    /// # Errors
    /// The process is in another group; the system's.
    pub fn of(&self, pid: i32) -> io::Result<OwnedFd> {
        let all = crate::procfs::read(format!("/proc/{pid}/cgroup"))?;
        let own = all.lines().find_map(|l| l.strip_prefix("0::"));
        let below = own.and_then(|own| Path::new(own).strip_prefix(&self.path).ok());
        let below = below.ok_or(ErrorKind::NotFound)?;
        fs::File::open(self.dir.join(below)).map(Into::into)
    }
}

/// See [`Cgroup::entry`].
#[derive(Debug)]
pub struct Entry {
    /// The group in the v2 tree.
    pub v2: Option<V2Group>,
    /// The `tasks` files of v1 and of resctrl, with their paths.
    pub tasks: Vec<(PathBuf, OwnedFd)>,
}

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// Makes `dir` and what is missing above it. Returns whether the last one was new.
fn make_group(h: &Hierarchy, dir: &Path, leaf: bool) -> Result<bool> {
    for _ in 0..16 {
        match fs::create_dir(dir) {
            Ok(()) => {
                let mark = if leaf { CONTAINER } else { MADE_BY_US };
                c_path(dir).map(|p| sys::setxattr(&p, mark, b"1"));
                return Ok(true);
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            // A sibling process may remove the parent between the two calls: go round again.
            Err(e) if e.kind() == ErrorKind::NotFound && dir != h.mount => {
                if let Some(parent) = dir.parent() {
                    make_group(h, parent, false)?;
                }
            }
            Err(e) => return Err(io_error("create cgroup", dir)(e)),
        }
    }
    Err(io_error("create cgroup", dir)(ErrorKind::NotFound.into()))
}

fn has_mark(dir: &Path, mark: &std::ffi::CStr) -> bool {
    c_path(dir).is_some_and(|p| sys::has_xattr(&p, mark))
}

fn child_groups(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        entries => entries.map_err(io_error("read", dir))?,
    };
    let is_dir = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
    let groups = entries.flatten().filter(is_dir);
    Ok(groups.map(|e| e.path()).collect())
}

/// Whether a group was removed: before its file was opened, or after.
fn is_gone(e: &io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

/// The processes of a `cgroup.procs`.
fn read_pids(file: &Path) -> Result<Vec<i32>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(text.lines().filter_map(|l| l.parse().ok()).collect()),
        // A threaded group has no processes of its own: they are at the top of its domain.
        Err(e) if is_gone(&e) || e.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(Vec::new()),
        Err(e) => Err(io_error("read", file)(e)),
    }
}

fn collect_pids(dir: &Path, pids: &mut Vec<i32>) -> Result<()> {
    pids.extend(read_pids(&dir.join("cgroup.procs"))?);
    for child in child_groups(dir)? {
        collect_pids(&child, pids)?;
    }
    Ok(())
}

fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e)
                if e.raw_os_error() == Some(libc::EBUSY)
                    || e.kind() == ErrorKind::DirectoryNotEmpty =>
            {
                for child in child_groups(dir)? {
                    remove_tree(&child, deadline)?;
                }
                if Instant::now() >= deadline {
                    // One last try: the children may have been all that was in the way.
                    return fs::remove_dir(dir).map_err(io_error("remove cgroup", dir));
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Err(e) => return Err(io_error("remove cgroup", dir)(e)),
        }
    }
}
