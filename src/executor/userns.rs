//! User namespaces and their maps, `user_namespaces(7)`.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use nix::errno::Errno;
use nix::unistd::{getegid, geteuid};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

use super::{Error, Result};
use crate::oci::{Namespace, Opened, Request, Source};
use crate::sys::creds;
use crate::sys::mount as m;
use crate::sys::process;
use crate::sys::socket;

/// The kernel's limit, Linux 4.15.
const MAX_LINES: usize = 340;

/// The one user namespace of all containers of a pod, where the pod did not ask for it. Their roots and volumes are mapped, so
/// that what is on disk keeps its ids.
#[derive(Debug)]
pub struct PodUsers {
    namespace: OwnedFd,
    first: u32,
    strict: bool,
}

impl PodUsers {
    /// Makes it, with `size` ids from `first` on. With `strict`, volumes whose file system cannot map ids are refused;
    /// otherwise the container sees their files as nobody's.
    pub fn new(first: u32, size: u32, strict: bool) -> Result<Self> {
        let map = LinuxIdMappingBuilder::default()
            .container_id(0u32)
            .host_id(first)
            .size(size)
            .build();
        let map = [map.map_err(|e| Error::field("user_namespace", e.to_string()))?];
        Ok(Self {
            namespace: make(&map, &map, "user_namespace")?,
            first,
            strict,
        })
    }

    /// The node's id of the container's root.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// A descriptor of the namespace.
    pub(super) fn namespace(&self) -> Result<OwnedFd> {
        let copy = self.namespace.try_clone();
        copy.map_err(|e| Error::field("user_namespace", format!("duplicate a descriptor: {e}")))
    }

    /// What was opened, with its ids mapped, as a detached mount.
    pub(super) fn map(&self, opened: &Opened, recursive: bool) -> nix::Result<OwnedFd> {
        let tree = m::open_tree_clone(opened.fd().as_fd(), c"", recursive)?;
        m::map_ids(tree.as_fd(), self.namespace.as_fd(), recursive)?;
        Ok(tree)
    }

    /// A volume, with its ids mapped. Nothing where they cannot be, and need not: of kernel file systems and devices, or
    /// where that is allowed.
    pub(super) fn map_volume(
        &self,
        source: &Source,
        opened: &Opened,
        recursive: bool,
        field: &str,
    ) -> Result<Option<OwnedFd>> {
        let errno = match self.map(opened, recursive) {
            Ok(tree) => return Ok(Some(tree)),
            Err(e) => e,
        };
        let text = source.path.to_string_lossy();
        let magic = m::fs_magic(opened.fd())
            .map_err(|e| Error::field(field, format!("{text}: {}", e.desc())))?;
        let is_device = matches!(opened.kind(), libc::S_IFCHR | libc::S_IFBLK);
        if is_device || KERNEL_FILE_SYSTEMS.contains(&magic) {
            return Ok(None);
        }
        if self.strict {
            return Err(Error::field(
                field,
                format!(
                    "{text}: its file system (or one mounted below it; type {magic:#x}) cannot map ids on this kernel: {}. \
                     The profile's user_namespace.unmappable = \"fall-back\" would show its files as nobody's",
                    errno.desc()
                ),
            ));
        }
        log::warn!(volume:% = text, type:% = format_args!("{magic:#x}"); "ids cannot be mapped: its files are nobody's");
        Ok(None)
    }
}

/// File systems of the kernel's own, which no one's ids are kept in.
const KERNEL_FILE_SYSTEMS: [i64; 11] = [
    m::magic::PROC,
    m::magic::SYSFS,
    m::magic::CGROUP,
    m::magic::CGROUP2,
    m::magic::DEVPTS,
    m::magic::MQUEUE,
    m::magic::NSFS,
    m::magic::SECURITYFS,
    m::magic::DEBUGFS,
    m::magic::TRACEFS,
    m::magic::BPF,
];

/// Whether the container's user namespace, which is to be `user`, is the owner of `ns`.
pub(super) fn owns(user: &OwnedFd, ns: &OwnedFd) -> bool {
    let same = || {
        let owner = process::owner_of_namespace(ns.as_fd())?;
        let (a, b) = (m::fstat(owner.as_fd())?, m::fstat(user.as_fd())?);
        Ok::<_, Errno>((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
    };
    same().unwrap_or(false)
}

/// The container's user namespace: joined by path, or new with the spec's maps. `None` where it has none of its own.
pub(super) fn open(request: &Request) -> Result<Option<OwnedFd>> {
    let linux = request.rest.linux().as_ref();
    let uids = linux
        .and_then(|l| l.uid_mappings().as_deref())
        .unwrap_or_default();
    let gids = linux
        .and_then(|l| l.gid_mappings().as_deref())
        .unwrap_or_default();
    match &request.namespaces.user {
        Namespace::Host if uids.is_empty() && gids.is_empty() => Ok(None),
        Namespace::Host => Err(Error::field(
            "linux.uidMappings",
            "needs a user namespace in linux.namespaces",
        )),
        // Its maps are written already; the spec's mappings only describe them.
        Namespace::Join(joined) => Ok(Some(joined.descriptor()?)),
        Namespace::New => make(uids, gids, "linux").map(Some),
    }
}

/// Makes a user namespace with these maps.
///
/// The namespace belongs to the node's id of its root, not to the node's root who makes it: what the kernel counts for each
/// user (inotify instances, user namespaces and others below `/proc/sys/user`) is then counted to the pod.
pub(super) fn make(
    uids: &[LinuxIdMapping],
    gids: &[LinuxIdMapping],
    field: &str,
) -> Result<OwnedFd> {
    let uid_map = render(uids, &format!("{field}.uidMappings"))?;
    let gid_map = render(gids, &format!("{field}.gidMappings"))?;
    let owner = (owner(uids), owner(gids));
    hold(owner, field, |pid| {
        write_map(pid, "uid_map", &uid_map, &format!("{field}.uidMappings"))?;
        write_map(pid, "gid_map", &gid_map, &format!("{field}.gidMappings"))
    })
}

/// Makes the user namespace of an ordinary user's container: `user_namespaces(7)`, "Defining user and group ID mappings". An id that is not
/// the user's own needs the set-user-id programs newuidmap and newgidmap, and an entry in `/etc/subuid` and `/etc/subgid`.
fn make_unprivileged(uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]) -> Result<OwnedFd> {
    let uid_map = render(uids, "linux.uidMappings")?;
    let gid_map = render(gids, "linux.gidMappings")?;
    let own = (geteuid().as_raw(), getegid().as_raw());
    let is_only = |maps: &[LinuxIdMapping], id: u32| matches!(maps, [one] if one.host_id() == id && one.size() == 1);
    hold(own, "linux", |pid| {
        if is_only(uids, own.0) {
            write_map(pid, "uid_map", &uid_map, "linux.uidMappings")?;
        } else {
            map_by_program("newuidmap", pid, &uid_map, "linux.uidMappings")?;
        }
        if is_only(gids, own.1) {
            // Or a user could leave a group that is denied something.
            write_map(pid, "setgroups", "deny", "linux.gidMappings")?;
            write_map(pid, "gid_map", &gid_map, "linux.gidMappings")
        } else {
            map_by_program("newgidmap", pid, &gid_map, "linux.gidMappings")
        }
    })
}

fn map_by_program(program: &str, pid: i32, map: &str, field: &str) -> Result<()> {
    let failed = |reason: String| Error::field(field, format!("{program}: {reason}"));
    let out = Command::new(program)
        .arg(pid.to_string())
        .args(map.split_ascii_whitespace())
        .output()
        .map_err(|e| {
            failed(format!(
                "{e}: ids other than the user's own need it; it is in the package uidmap or shadow-utils"
            ))
        })?;
    if out.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&out.stderr);
    Err(failed(format!(
        "{}: are these ids the user's in /etc/subuid and /etc/subgid?",
        said.trim()
    )))
}

/// For a command of an ordinary user, before anything else: enters a new user namespace with the spec's maps, as its root, and a
/// mount namespace that belongs to it. The process has one thread.
///
/// # Errors
/// Without a user namespace in the spec there is nothing that an ordinary user may do; and those of making it.
pub fn enter_new(spec: &Spec) -> Result<()> {
    let linux = spec.linux().as_ref();
    let list = linux.and_then(|l| l.namespaces().as_deref());
    let list = list.unwrap_or_default().iter();
    let mut users = list.filter(|n| n.typ() == LinuxNamespaceType::User);
    let Some(user) = users.next() else {
        return Err(Error::field(
            "linux.namespaces",
            "rootless container requires user namespaces: `cofferdam spec --rootless` writes a spec with one",
        ));
    };
    let namespace = if let Some(path) = user.path() {
        File::open(path)
            .map_err(|e| Error::field("linux.namespaces", format!("{}: {e}", path.display())))?
            .into()
    } else {
        let uids = linux.and_then(|l| l.uid_mappings().as_deref());
        must_have_own(uids.unwrap_or_default())?;
        let gids = linux.and_then(|l| l.gid_mappings().as_deref());
        make_unprivileged(uids.unwrap_or_default(), gids.unwrap_or_default())?
    };
    enter(&namespace)
}

/// Whoever has not their own id there cannot reach their own files any more, the container's state among them.
fn must_have_own(uids: &[LinuxIdMapping]) -> Result<()> {
    let own = geteuid().as_raw();
    let has_own = |map: &LinuxIdMapping| {
        own.checked_sub(map.host_id())
            .is_some_and(|offset| offset < map.size())
    };
    if uids.iter().any(has_own) {
        return Ok(());
    }
    Err(Error::field(
        "linux.uidMappings",
        format!("your own id {own} is not in the map: add it, as `cofferdam spec --rootless` does"),
    ))
}

/// Enters a user namespace, of a file or of the process of a pidfd, as its root, with a mount namespace of its own.
pub fn enter(namespace: &OwnedFd) -> Result<()> {
    let failed = |errno| Error::system("enter the container's user namespace")(errno);
    process::setns(namespace.as_fd(), libc::CLONE_NEWUSER).map_err(failed)?;
    creds::look_at_users();
    creds::setgroups(&[]).map_err(failed)?;
    creds::setresgid(0).map_err(failed)?;
    creds::setresuid(0).map_err(failed)?;
    process::unshare(libc::CLONE_NEWNS).map_err(Error::system("create a mount namespace"))?;
    let slave = libc::MS_SLAVE | libc::MS_REC;
    m::mount(None, c"/", None, slave, None).map_err(Error::system("cut off the node's mounts"))
}

/// What an ordinary user's container is, seen from within its user namespace: one that has no users of its own.
pub fn within(mut spec: Spec) -> Spec {
    let Some(mut linux) = spec.linux().clone() else {
        return spec;
    };
    let namespaces = linux.namespaces().clone().unwrap_or_default().into_iter();
    let others = namespaces.filter(|n| n.typ() != LinuxNamespaceType::User);
    linux.set_namespaces(Some(others.collect()));
    linux.set_uid_mappings(None);
    linux.set_gid_mappings(None);
    spec.set_linux(Some(linux));
    spec
}

fn write_map(pid: i32, file: &str, text: &str, field: &str) -> Result<()> {
    let path = format!("/proc/{pid}/{file}");
    fs::write(&path, text)
        .map_err(|e| Error::field(field, format!("writing {text:?} to {path}: {e}")))
}

/// Makes a user namespace. A process of this owner has to be in it for as long as it takes to write its maps.
fn hold(owner: (u32, u32), field: &str, write: impl FnOnce(i32) -> Result<()>) -> Result<OwnedFd> {
    let (ours, theirs) = socket::pair().map_err(Error::system("create a control socket"))?;
    let be_in_it = || -> std::convert::Infallible {
        #[allow(unsafe_code)]
        // SAFETY: this is a fresh child, which uses no other descriptor.
        unsafe {
            process::close_all_but(theirs.as_raw_fd(), &[]);
        }
        let errno = become_owner(owner).err().map_or(0, |e| e as u8);
        process::write_all(theirs.as_fd(), &[errno]).ok();
        process::read(theirs.as_fd(), &mut [0]).ok();
        process::exit_now(0)
    };
    #[allow(unsafe_code)]
    // SAFETY: the child only makes system calls: nothing that allocates, locks or panics.
    let child = unsafe { process::clone3(0, None, be_in_it) };
    let child = child.map_err(Error::system("create a user namespace"))?;
    drop(theirs);
    let pid = child.pid();
    let mut answer = [0];
    let there = match process::read(ours.as_fd(), &mut answer) {
        Ok(1) if answer == [0] => Ok(()),
        Ok(1) => Err(Errno::from_raw(i32::from(answer[0]))),
        Ok(_) => Err(Errno::ECHILD),
        Err(e) => Err(e),
    };
    let made = there
        .map_err(Error::system("create a user namespace"))
        .and_then(|()| write(pid))
        .and_then(|()| {
            File::open(format!("/proc/{pid}/ns/user"))
                .map_err(|e| Error::field(field, format!("open the user namespace: {e}")))
        });
    made.map(Into::into)
}

/// The node's id of what is 0 inside; of the first id where that is nobody.
fn owner(mappings: &[LinuxIdMapping]) -> u32 {
    let first = mappings.first().map_or(0, LinuxIdMapping::host_id);
    let root = mappings.iter().find(|m| m.container_id() == 0);
    root.map_or(first, LinuxIdMapping::host_id)
}

/// Between clone and the end of the process: the capabilities stay, so that a node whose ordinary users may make no namespaces
/// makes this one.
fn become_owner((uid, gid): (u32, u32)) -> nix::Result<()> {
    if (uid, gid) != (geteuid().as_raw(), getegid().as_raw()) {
        let all = creds::permitted();
        creds::keep_capabilities(true)?;
        creds::setresgid(gid)?;
        creds::setresuid(uid)?;
        creds::capset(all, all, 0)?;
    }
    process::unshare(libc::CLONE_NEWUSER)
}

fn render(mappings: &[LinuxIdMapping], field: &str) -> Result<String> {
    if mappings.is_empty() {
        return Err(Error::field(
            field,
            "is empty: a new user namespace needs at least one range",
        ));
    }
    if mappings.len() > MAX_LINES {
        return Err(Error::field(
            field,
            format!(
                "has {} ranges; the kernel takes {MAX_LINES}",
                mappings.len()
            ),
        ));
    }
    let mut text = String::new();
    for (i, m) in mappings.iter().enumerate() {
        let fits = |start: u32| start.checked_add(m.size()).is_some();
        if m.size() == 0 || !fits(m.host_id()) || !fits(m.container_id()) {
            return Err(Error::field(
                format!("{field}[{i}]"),
                format!(
                    "containerID {}, hostID {}, size {}: not a range of ids",
                    m.container_id(),
                    m.host_id(),
                    m.size()
                ),
            ));
        }
        text.push_str(&format!(
            "{} {} {}\n",
            m.container_id(),
            m.host_id(),
            m.size()
        ));
    }
    Ok(text)
}

/// A container's maps of users and groups; empty where it has the node's.
#[derive(Debug, Clone, Default)]
pub struct Maps {
    uids: Vec<LinuxIdMapping>,
    gids: Vec<LinuxIdMapping>,
}

impl Maps {
    /// Those of a spec.
    pub fn of(spec: &Spec) -> Self {
        let linux = spec.linux().as_ref();
        Self {
            uids: linux
                .and_then(|l| l.uid_mappings().clone())
                .unwrap_or_default(),
            gids: linux
                .and_then(|l| l.gid_mappings().clone())
                .unwrap_or_default(),
        }
    }

    /// A user and a group of the container, as the node knows them. What is not mapped stays what it is.
    pub fn to_host(&self, (uid, gid): (u32, u32)) -> (u32, u32) {
        (to_host(&self.uids, uid), to_host(&self.gids, gid))
    }
}

fn to_host(mappings: &[LinuxIdMapping], id: u32) -> u32 {
    let find = |m: &LinuxIdMapping| {
        let offset = id.checked_sub(m.container_id())?;
        (offset < m.size()).then(|| m.host_id().saturating_add(offset))
    };
    mappings.iter().find_map(find).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::LinuxIdMappingBuilder;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn mapping(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default()
            .container_id(container)
            .host_id(host)
            .size(size)
            .build()
            .unwrap()
    }

    #[test]
    fn maps_are_rendered_and_checked() {
        assert_eq!(
            render(&[mapping(0, 100_000, 65536), mapping(65536, 0, 1)], "f").unwrap(),
            "0 100000 65536\n65536 0 1\n"
        );
        assert!(
            render(&[], "f")
                .unwrap_err()
                .to_string()
                .starts_with("f: is empty")
        );
        assert!(
            render(&[mapping(0, u32::MAX, 2)], "f")
                .unwrap_err()
                .to_string()
                .starts_with("f[0]: containerID 0, hostID 4294967295")
        );
        assert!(render(&[mapping(0, 1, 0)], "f").is_err());
    }

    #[test]
    fn ids_are_translated() {
        let maps = vec![mapping(0, 100_000, 10), mapping(10, 5, 1)];
        assert_eq!(
            [0, 9, 10, 11].map(|id| to_host(&maps, id)),
            [100_000, 100_009, 5, 11]
        );
        assert_eq!(to_host(&[], 7), 7);
    }

    /// The helper process of a namespace must not allocate: another thread may hold the allocator's lock when it is cloned.
    #[test]
    fn threads_that_allocate_stop_no_namespace() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // As in the shim: one arena for all threads, and so one lock.
        crate::sys::memory::keep_allocator_small();
        let map = [mapping(0, 0x7000_0000, 65536)];
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        drop(std::hint::black_box(vec![0u8; 3000]));
                    }
                });
            }
            for _ in 0..300 {
                let made = scope.spawn(|| make(&map, &map, "test").map(drop));
                made.join().unwrap().unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}
