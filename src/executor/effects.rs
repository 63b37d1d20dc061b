//! For tests: what a script does to the node, as a list that can be compared with what was judged.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use super::fuzz::planned;
use super::script::{Mount, MountRoot, Source, Step};
use super::{Result, hooks, rootfs};
use crate::isolation::Judged;
use crate::oci::capabilities::Sets;
use crate::oci::{Request, RootMount};
use crate::sys::mount::{attr, fstat};

/// One effect.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// A mount below the root.
    Mount {
        /// An absolute path of the container.
        at: PathBuf,
        /// Device and inode of what is bound, or the type of what is made.
        what: std::result::Result<(u64, u64), String>,
        /// Attributes in the end, where it begins without any.
        attributes: u64,
        /// Attributes that are set on everything below.
        tree: u64,
        /// Whether what is mounted below the source comes along.
        recursive: bool,
        /// Whether mounts below it appear on the other side.
        shared: bool,
        /// Parameters of a new file system.
        data: Vec<(String, Option<String>)>,
    },
    /// A root that is there already.
    Root(u64, u64),
    /// A namespace that is joined: its type's flag, device and inode.
    Join(i32, u64, u64),
    /// Namespaces that are made, `CLONE_NEW*`.
    New(u64),
    /// A device node: path, type bits, major, minor.
    Device(PathBuf, u32, u32, u32),
    /// A kernel parameter or another file of `/proc`.
    Proc(PathBuf, String),
    /// The capabilities of the process.
    Capabilities {
        /// All five sets together.
        all: u64,
    },
    /// `no_new_privs`.
    NoNewPrivileges,
    /// A limit of the process: resource, soft, hard.
    Rlimit(u32, u64, u64),
    /// A class and priority of input and output.
    IoPriority(i32),
    /// A scheduling policy.
    Scheduler(u32),
    /// A hidden path.
    Mask(PathBuf),
    /// A read-only path.
    ReadOnly(PathBuf),
    /// A read-only root.
    ReadOnlyRoot,
    /// A program of the container's that its init runs before the user's.
    StartHook(PathBuf),
}

/// What the init of a container does, and the hooks of the node that its creation runs.
///
/// # Errors
/// As for a creation.
pub fn effects(request: &Judged<Request>) -> Result<(Vec<Effect>, Vec<PathBuf>)> {
    let (job, subject) = planned(request, &Judged::standard(Vec::new()), None)?;
    let (steps, new, pid) = job.parts();
    let mut out: Vec<Effect> = Vec::new();
    for step in steps {
        match step {
            Step::MakeReadOnly(path) => make_read_only(&mut out, &absolute(path)),
            step => out.extend(one(step)),
        }
    }
    out.push(Effect::New(new));
    out.extend(pid.map(|fd| join(libc::CLONE_NEWPID, fd)));
    let hooks = subject
        .iter()
        .flat_map(hooks::HookRunner::of_node)
        .collect();
    Ok((out, hooks))
}

/// What is mounted for a container's root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootEffect {
    /// The file system's type.
    pub fstype: String,
    /// The arguments of the mount, as the kernel receives them.
    pub source: PathBuf,
    /// Where, below the root.
    pub target: PathBuf,
    /// `MS_*`, `mount(2)`.
    pub flags: u64,
    /// The file system's options. Paths among them are absolute.
    pub data: Vec<(String, String)>,
}

/// What is mounted for the root of a container, one after the other.
///
/// # Errors
/// As for a creation.
pub fn root_effects(
    request: &Judged<Request>,
    mounts: &Judged<Vec<RootMount>>,
) -> Result<Vec<RootEffect>> {
    let mut steps = Vec::new();
    rootfs::plan(&request.root, mounts, None, &mut steps)?;
    let path = |c: &std::ffi::CStr| PathBuf::from(c.to_string_lossy().into_owned());
    let one = |step: &Step| {
        let Step::MountRoot(mount) = step else {
            return None;
        };
        let MountRoot {
            source,
            target,
            fstype,
            flags,
            data,
            workdir,
            ..
        } = mount.as_ref();
        let words = data.as_ref().map(|d| d.to_string_lossy().into_owned());
        let base = workdir.as_deref().map(path).unwrap_or_default();
        let word = |word: &str| {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            let layers: Vec<String> = value
                .split(':')
                .map(|layer| base.join(layer).display().to_string())
                .collect();
            let is_path = matches!(key, "lowerdir" | "upperdir" | "workdir");
            let value = if is_path {
                layers.join(":")
            } else {
                value.to_owned()
            };
            (key.to_owned(), value)
        };
        let words = words.as_deref().unwrap_or_default();
        let data = words.split(',').filter(|w| !w.is_empty()).map(word);
        let below = path(target);
        let below = below.strip_prefix(&request.root.source.path);
        Some(RootEffect {
            fstype: fstype.to_string_lossy().into_owned(),
            source: path(source),
            target: below.map_or_else(|_| path(target), Path::to_owned),
            flags: *flags,
            data: data.collect(),
        })
    };
    Ok(steps.iter().filter_map(one).collect())
}

fn id(fd: BorrowedFd<'_>) -> (u64, u64) {
    fstat(fd).map_or((0, 0), |s| (s.st_dev, s.st_ino))
}

fn join(flag: i32, fd: BorrowedFd<'_>) -> Effect {
    let (dev, ino) = id(fd);
    Effect::Join(flag, dev, ino)
}

fn absolute(path: &std::ffi::CStr) -> PathBuf {
    Path::new("/").join(path.to_string_lossy().as_ref())
}

fn mount(m: &Mount) -> Effect {
    let text = |c: &std::ffi::CString| c.to_string_lossy().into_owned();
    let (what, data) = match &m.source {
        Source::New { fstype, params } => {
            let one = |(k, v): &(std::ffi::CString, Option<std::ffi::CString>)| {
                (text(k), v.as_ref().map(text))
            };
            (Err(text(fstype)), params.iter().map(one).collect())
        }
        Source::Sysfs => (Err("sysfs".to_owned()), Vec::new()),
        Source::Device(_) => (Err("device".to_owned()), Vec::new()),
        Source::Tree { tree, .. } => {
            let found = tree.as_ref().map(|t| id(t.as_fd()));
            (Ok(found.unwrap_or_default()), Vec::new())
        }
    };
    Effect::Mount {
        at: absolute(&m.dest),
        what,
        attributes: (m.attr.attr_set & !m.recursive_attr.attr_clr) | m.recursive_attr.attr_set,
        tree: m.recursive_attr.attr_set,
        recursive: matches!(
            m.source,
            Source::Tree {
                recursive: true,
                ..
            }
        ),
        shared: m.propagation.iter().any(|(p, _)| *p == libc::MS_SHARED),
        data,
    }
}

/// Changes what was mounted there.
fn make_read_only(effects: &mut [Effect], path: &Path) {
    let last = effects.iter_mut().rev().find_map(|effect| match effect {
        Effect::Mount { at, attributes, .. } if at == path => Some(attributes),
        _ => None,
    });
    if let Some(attributes) = last {
        *attributes |= attr::RDONLY;
    }
}

fn one(step: &Step) -> Option<Effect> {
    Some(match step {
        Step::Mount(m) => mount(m),
        Step::PlaceRoot { tree, .. } => {
            let (dev, ino) = id(tree.as_fd());
            Effect::Root(dev, ino)
        }
        Step::JoinNamespace { ns, flags, .. } => join(*flags, ns.as_fd()),
        Step::CloneSibling { namespaces } => Effect::New(*namespaces),
        Step::NewCgroupNamespace => Effect::New(libc::CLONE_NEWCGROUP as u64),
        Step::Device(d) => {
            Effect::Device(absolute(&d.path), d.mode & libc::S_IFMT, d.major, d.minor)
        }
        Step::WriteProc { path, value, .. } => Effect::Proc(
            PathBuf::from(path.to_string_lossy().into_owned()),
            String::from_utf8_lossy(value).into_owned(),
        ),
        Step::Credentials { caps, .. } => {
            let Sets {
                bounding,
                effective,
                permitted,
                inheritable,
                ambient,
            } = *caps;
            Effect::Capabilities {
                all: bounding | effective | permitted | inheritable | ambient,
            }
        }
        Step::NoNewPrivileges => Effect::NoNewPrivileges,
        Step::Rlimit {
            resource,
            soft,
            hard,
            ..
        } => Effect::Rlimit(*resource, *soft, *hard),
        Step::IoPriority(value) => Effect::IoPriority(*value),
        Step::Scheduler(attr) => Effect::Scheduler(attr.policy),
        Step::Mask(path) => Effect::Mask(absolute(path)),
        Step::ReadOnly(path) => Effect::ReadOnly(absolute(path)),
        Step::RootReadOnly => Effect::ReadOnlyRoot,
        Step::StartHook(hook) => Effect::StartHook(absolute(&hook.program)),
        _ => return None,
    })
}
