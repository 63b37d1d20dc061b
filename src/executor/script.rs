//! The steps that a child walks between `clone3` and `execve`. Everything in them is ready to be used as it is.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use super::wire::Question;
use crate::oci::capabilities::Sets;
use crate::seccomp::Program;
use crate::sys::memory::SharedTimes;
use crate::sys::mount::MountAttr;
use crate::sys::process::{CStrVec, SchedAttr};
use std::sync::Arc;
use std::time::Duration;

/// What a child does, in order.
pub(super) struct Script {
    pub steps: Vec<Step>,
    /// When each step was done, where a trace is wanted.
    pub times: Option<Arc<SharedTimes>>,
    pub program: UserProgram,
    /// How many descriptors after the standard three the program gets.
    pub preserve_fds: u32,
}

/// The program to execute at the end.
pub(super) struct UserProgram {
    /// Where to look for it, in order.
    pub candidates: Vec<CString>,
    pub argv: CStrVec,
    pub env: CStrVec,
    /// The user whose home directory is to be looked up, if `HOME` is not set.
    pub home_of: Option<u32>,
}

/// Where a mount comes from.
pub(super) enum Source {
    /// A new file system.
    New {
        fstype: CString,
        params: Vec<(CString, Option<CString>)>,
    },
    /// Something of the node's, cloned before the child was made.
    Tree {
        /// Taken when it is attached.
        tree: Option<OwnedFd>,
        recursive: bool,
        /// Only a procfs will do: something is to be bound over `/proc`.
        procfs: bool,
    },
    /// The sysfs that was made before the container's users were entered: see [`Step::TakeSysfs`].
    Sysfs,
    /// One of the devices that were made before the container's users were entered, by its number: see [`Step::MakeDevices`].
    Device(usize),
}

/// How a file system that starts as a copy of the image's directory gets its root's owner and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CopyUp {
    /// From the image, too.
    All,
    /// From the mount's own options.
    Contents,
}

/// One mount below the new root.
pub(super) struct Mount {
    /// Index in the spec's `mounts`, for messages.
    pub label: String,
    /// Relative to the root.
    pub dest: CString,
    /// The destination must be a real directory of the image, not a link (`/proc`, `/sys`).
    pub no_symlinks: bool,
    pub source: Source,
    pub attr: MountAttr,
    pub recursive_attr: MountAttr,
    /// The new file system starts with a copy of what the image has there (`tmpcopyup`).
    pub copy_up: Option<CopyUp>,
    /// Its mode is that of the image's directory, where there is one.
    pub keeps_mode: bool,
    /// Propagation flags with their recursion.
    pub propagation: Vec<(u64, bool)>,
}

/// `mount(2)` for one of the mounts that make up the root.
pub(super) struct MountRoot {
    pub source: CString,
    pub target: CString,
    pub fstype: CString,
    pub flags: u64,
    pub data: Option<CString>,
    /// Where the mount starts from, if its options are too long for one page.
    pub workdir: Option<CString>,
    /// Whose the files are that the file system makes by itself.
    pub owner: Option<u32>,
    /// For messages.
    pub label: String,
}

/// A device node.
pub(super) struct DeviceNode {
    /// Relative to the root.
    pub path: CString,
    /// Type and permissions, as mknod(2) takes them.
    pub mode: u32,
    pub major: u32,
    pub minor: u32,
    pub uid: u32,
    pub gid: u32,
}

/// A startContainer hook: a program of the container, which its init runs to its end.
pub(super) struct StartHook {
    /// For messages.
    pub label: String,
    pub program: CString,
    pub argv: CStrVec,
    /// None: that of the container's program.
    pub env: Option<CStrVec>,
    /// Its standard input: the container's state, with room for the pid at `pid_at`.
    pub state: OwnedFd,
    /// Where in the state the pid's last digit's successor is.
    pub pid_at: usize,
    /// Its standard output.
    pub null: OwnedFd,
    pub timeout: Option<Duration>,
}

/// A ruleset as the kernel takes it, of rights that it knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ruleset {
    pub fs: u64,
    pub net: u64,
    pub scoped: u64,
    pub paths: Vec<(CString, u64)>,
    /// Of these only what is no directory counts: whoever mounts one there opens nothing below it.
    pub files: Vec<(CString, u64)>,
    pub ports: Vec<(u16, u64)>,
    /// Denials of the programs that are executed are recorded, too.
    pub audit: bool,
}

/// One step.
pub(super) enum Step {
    EnterCgroup {
        tasks: OwnedFd,
        path: String,
    },
    JoinNamespace {
        ns: OwnedFd,
        flags: i32,
        what: String,
    },
    NewCgroupNamespace,
    /// A mount namespace for what only the node's root may do, before the container's user namespace is entered.
    UnshareMounts,
    /// A time namespace for the next process, with the clocks' offsets.
    NewTimeNamespace(Vec<u8>),
    /// Goes on as a new process, a sibling of this one, in new namespaces that the user namespace just joined owns.
    CloneSibling {
        namespaces: u64,
    },
    /// The user namespace's root.
    BecomeRoot,
    /// Keeps the mounted root as a tree, to take it along into another mount namespace.
    TakeRoot {
        path: CString,
    },
    /// Attaches that tree.
    AttachRoot,
    /// A write through the host's procfs, before the root changes.
    WriteProc {
        path: CString,
        value: Vec<u8>,
        what: String,
    },
    Hostname(Vec<u8>),
    Domainname(Vec<u8>),
    Ask(Question),
    /// Says that all is ready, and waits for Start: from the parent, or from whoever connects to `listener`.
    Gate {
        listener: Option<OwnedFd>,
        /// The descriptors of the steps behind the gate, sorted: who is in the container already must not find others here.
        keep: Vec<RawFd>,
    },
    /// Makes a sysfs while the network's owner may.
    TakeSysfs,
    /// Makes the default devices while the node's root may, on a file system in memory that nobody else has.
    MakeDevices(Vec<(CString, u64)>),
    /// Attaches a root that is there already, so that it is a mount of its own, as `pivot_root(2)` wants it.
    PlaceRoot {
        tree: OwnedFd,
        target: CString,
        label: String,
    },
    /// Propagation of everything, `mount(NULL, "/", NULL, flags)`.
    Propagation {
        flags: u64,
        what: &'static str,
    },
    MountRoot(Box<MountRoot>),
    /// Maps the ids of what is mounted at `target`, by a mount on top of it.
    MapRoot {
        maps: OwnedFd,
        target: CString,
    },
    /// Mounts the layers of an overlay with their ids mapped, below `at` under `names`.
    MapLayers {
        maps: OwnedFd,
        layers: Vec<CString>,
        names: Vec<CString>,
        at: CString,
    },
    /// Keeps a descriptor of the new root.
    OpenRoot {
        path: CString,
    },
    Mount(Mount),
    Device(DeviceNode),
    Symlink {
        target: CString,
        path: CString,
        replace: bool,
    },
    /// Writes the container's notice, where that is the container's own file system.
    Notice(Vec<u8>),
    Mask(CString),
    /// Changes the mount that is there, where [`Step::ReadOnly`] makes one on top of what is there.
    MakeReadOnly(CString),
    /// Makes the working directory while that can be done. What stands in the way is told by [`Step::WorkingDirectory`].
    MakeWorkingDirectory(CString),
    ReadOnly(CString),
    PivotRoot,
    MoveRoot {
        /// Where the node has procfs and sysfs: they are still there, covered, and would let a container mount its own unmasked.
        hide: Vec<CString>,
    },
    ChangeRoot,
    /// Keeps what is mounted below the root from appearing anywhere else.
    PrivateRoot,
    RootReadOnly,
    /// After an exec joined the container's mount namespace: keeps a descriptor of its root.
    OpenOwnRoot,
    Terminal {
        uid: u32,
        size: Option<(u16, u16)>,
        plain: bool,
        console: bool,
    },
    Stdio([OwnedFd; 3]),
    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
        name: &'static str,
    },
    Keyring(CString),
    /// Gives up the caller's groups, which a user namespace may not let go of any more.
    DropGroups,
    /// Keeps the node's procfs for [`Step::OpenLsm`].
    KeepProc,
    /// Opens the LSM attribute file, in the node's procfs.
    OpenLsm {
        /// Below `/proc`.
        path: CString,
        field: &'static str,
    },
    /// Writes the label to be applied at exec.
    ApplyLsm {
        label: Vec<u8>,
        field: &'static str,
    },
    WorkingDirectory {
        path: CString,
        /// Makes it where it is missing: the init's, as OCI runtimes do.
        make: bool,
    },
    Credentials {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
        caps: Sets,
        keep: u64,
    },
    IoPriority(i32),
    Scheduler(SchedAttr),
    Affinity(Vec<u64>),
    Personality(u64),
    MemoryPolicy {
        mode: i32,
        nodes: Vec<u64>,
    },
    Umask(u32),
    NoNewPrivileges,
    FindProgram,
    /// All descriptors that the runtime opens are close-on-exec; this closes those that it inherited.
    CloseOnExec {
        first: u32,
    },
    Seccomp {
        program: Arc<Program>,
    },
    CoreScheduling {
        from: Option<i32>,
    },
    Securebits(u64),
    MitigateSpeculation,
    WriteXorExecute,
    Landlock(Box<Ruleset>),
    StartHook(Box<StartHook>),
}

impl Step {
    /// For messages: what the step does, as a person would say it.
    pub(crate) fn describe(&self) -> String {
        let lossy = |s: &CString| s.to_string_lossy().into_owned();
        match self {
            Self::EnterCgroup { path, .. } => format!("enter cgroup {path}"),
            Self::JoinNamespace { what, .. } => format!("join {what}"),
            Self::NewCgroupNamespace => "create a cgroup namespace".into(),
            Self::UnshareMounts => "create a mount namespace".into(),
            Self::NewTimeNamespace(_) => "linux.timeOffsets: create a time namespace".into(),
            Self::CloneSibling { .. } => "create the container's namespaces".into(),
            Self::BecomeRoot => "become root of the user namespace".into(),
            Self::TakeRoot { path } => format!("root.path: open {}", lossy(path)),
            Self::AttachRoot => "attach the root".into(),
            Self::WriteProc { what, .. } => what.clone(),
            Self::Hostname(_) => "set hostname".into(),
            Self::Domainname(_) => "set domainname".into(),
            Self::Ask(Question::CreateHooks) => "wait for the create hooks".into(),
            Self::Ask(Question::NetDevices) => "linux.netDevices: wait for the devices".into(),
            Self::Ask(Question::Gate) | Self::Gate { .. } => "wait to be started".into(),
            Self::TakeSysfs => "make the sysfs of the pod's network".into(),
            Self::Notice(_) => "write /dev/cofferdam".into(),
            Self::MakeDevices(_) => "make the default devices".into(),
            Self::StartHook(hook) => hook.label.clone(),
            Self::Propagation { what, .. } => format!("{what}: set mount propagation"),
            Self::MountRoot(mount) => mount.label.clone(),
            Self::PlaceRoot { label, .. } => label.clone(),
            Self::MapLayers { layers, .. } => {
                format!("map the ids of the root's {} layers", layers.len())
            }
            Self::MapRoot { target, .. } => format!("root: map the ids of {}", lossy(target)),
            Self::OpenRoot { path } => format!("root.path: open {}", lossy(path)),
            Self::Mount(m) => m.label.clone(),
            Self::Device(device) => format!("create device node /{}", lossy(&device.path)),
            Self::Symlink { path, .. } => format!("create link /{}", lossy(path)),
            Self::Mask(path) => format!("linux.maskedPaths: hide /{}", lossy(path)),
            Self::MakeReadOnly(path) => format!("make the mount on /{} read-only", lossy(path)),
            Self::MakeWorkingDirectory(path) => format!("process.cwd: make {}", lossy(path)),
            Self::ReadOnly(path) => format!("linux.readonlyPaths: protect /{}", lossy(path)),
            Self::PivotRoot | Self::MoveRoot { .. } | Self::ChangeRoot => "change the root".into(),
            Self::PrivateRoot => "keep the root's mounts to itself".into(),
            Self::RootReadOnly => "root.readonly: make the root read-only".into(),
            Self::OpenOwnRoot => "open the container's root".into(),
            Self::Terminal { .. } => "process.terminal: open a terminal on /dev/pts".into(),
            Self::Stdio(_) => "connect standard streams".into(),
            Self::Rlimit {
                name, soft, hard, ..
            } => format!("process.rlimits: set {name} to {soft} (hard {hard})"),
            Self::Keyring(_) => "join a session keyring".into(),
            Self::DropGroups => "leave the runtime's groups".into(),
            Self::KeepProc => "keep the node's procfs".into(),
            Self::OpenLsm { field, .. } | Self::ApplyLsm { field, .. } => {
                format!("process.{field}: apply the label")
            }
            Self::WorkingDirectory { path, .. } => {
                format!("process.cwd: change to {}", lossy(path))
            }
            Self::Credentials { uid, gid, .. } => {
                format!("become user {uid}, group {gid} with the spec's capabilities")
            }
            Self::IoPriority(_) => "process.ioPriority: set".into(),
            Self::Scheduler(attr) if attr.policy == libc::SCHED_DEADLINE.cast_unsigned() => {
                "process.scheduler: set SCHED_DEADLINE (it can't be used together with linux.resources.cpu.cpus)".into()
            }
            Self::Scheduler(_) => "process.scheduler: set".into(),
            Self::Affinity(_) => "process.execCPUAffinity: set the CPU affinity".into(),
            Self::Personality(_) => "linux.personality: set".into(),
            Self::MemoryPolicy { .. } => "linux.memoryPolicy: set".into(),
            Self::Umask(_) => "set umask".into(),
            Self::NoNewPrivileges => "set no_new_privs".into(),
            Self::FindProgram => "find the program".into(),
            Self::CloseOnExec { .. } => "close descriptors".into(),
            Self::CoreScheduling { .. } => "profile: process.core_scheduling".into(),
            Self::Securebits(_) => "profile: process.lock_securebits".into(),
            Self::MitigateSpeculation => "profile: process.mitigate_speculation".into(),
            Self::WriteXorExecute => "profile: process.write_xor_execute".into(),
            Self::Landlock(_) => "profile: landlock".into(),
            Self::Seccomp { .. } => "linux.seccomp: load the filter".into(),
        }
    }

    fn descriptors(&self, out: &mut Vec<RawFd>) {
        match self {
            Self::EnterCgroup { tasks: fd, .. } | Self::JoinNamespace { ns: fd, .. } => {
                out.push(fd.as_raw_fd())
            }
            Self::Mount(Mount {
                source: Source::Tree { tree, .. },
                ..
            }) => out.extend(tree.iter().map(AsRawFd::as_raw_fd)),
            Self::PlaceRoot { tree, .. } => out.push(tree.as_raw_fd()),
            Self::StartHook(hook) => out.extend([hook.state.as_raw_fd(), hook.null.as_raw_fd()]),
            Self::MapLayers { maps, .. } | Self::MapRoot { maps, .. } => out.push(maps.as_raw_fd()),
            Self::Stdio(fds) => out.extend(fds.iter().map(AsRawFd::as_raw_fd)),
            Self::Gate { listener, .. } => out.extend(listener.iter().map(AsRawFd::as_raw_fd)),
            _ => {}
        }
    }
}

impl Script {
    /// Whether the child goes on as a sibling of itself.
    pub(crate) fn has_sibling(&self) -> bool {
        let sibling = |step: &Step| matches!(step, Step::CloneSibling { .. });
        self.steps.iter().any(sibling)
    }

    /// Every descriptor that the steps use, sorted. The child closes all others first: a copy of another container's
    /// output held at this one's gate would keep that one's reader waiting.
    pub(crate) fn descriptors(&self) -> Vec<RawFd> {
        self.descriptors_from(0)
    }

    /// Tells the gate which descriptors are needed from there on.
    pub(crate) fn with_kept_at_gate(mut self) -> Self {
        let is_gate = |step: &Step| matches!(step, Step::Gate { .. });
        if let Some(gate) = self.steps.iter().position(is_gate) {
            let needed = self.descriptors_from(gate);
            if let Some(Step::Gate { keep, .. }) = self.steps.get_mut(gate) {
                *keep = needed;
            }
        }
        self
    }

    fn descriptors_from(&self, first: usize) -> Vec<RawFd> {
        let mut fds = Vec::new();
        for step in self.steps.iter().skip(first) {
            step.descriptors(&mut fds);
        }
        fds.extend((3..).take(self.preserve_fds as usize));
        fds.sort_unstable();
        fds.dedup();
        fds
    }
}
