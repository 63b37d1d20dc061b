//! Mounts below the container's root, and what hides and protects.

use std::ffi::{CStr, CString};
use std::iter::once;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::super::script::{CopyUp, Mount, Source};
use super::paths::{open_in, open_target};
use super::{Context, Failure, Outcome, at};
use crate::sys::copy;
use crate::sys::mount::{self as m, MountAttr, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, attr, magic};

/// Attaches a detached mount, changed as asked. Before Linux 5.12 only attached mounts can be changed.
pub(super) fn place(
    tree: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    changes: impl Iterator<Item = (bool, MountAttr)> + Clone,
) -> Outcome<()> {
    let mut late = false;
    for (recursive, attr) in changes.clone() {
        match m::mount_setattr(tree, recursive, &attr) {
            Err(Errno::ENOSYS) => late = true,
            changed => changed.map_err(at("mount_setattr"))?,
        }
    }
    m::move_mount(tree, target).map_err(at("move_mount"))?;
    if late {
        for (recursive, attr) in changes {
            m::remount(tree, recursive, &attr).map_err(at("mount_setattr (Linux 5.12)"))?;
        }
    }
    Ok(())
}

/// Changes an attached mount.
pub(super) fn change(mount: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Outcome<()> {
    match m::mount_setattr(mount, recursive, attr) {
        Err(Errno::ENOSYS) => m::remount(mount, recursive, attr),
        changed => changed,
    }
    .map_err(at("mount_setattr"))
}

/// Gives a detached mount the ids of a user namespace's maps.
pub(super) fn map_ids(tree: &OwnedFd, maps: &OwnedFd, recursive: bool) -> Outcome<()> {
    m::map_ids(tree.as_fd(), maps.as_fd(), recursive).map_err(at(
        "map ids (can its file system, on this kernel?): mount_setattr",
    ))
}

/// A new file system, detached.
pub(super) fn new_file_system(
    fstype: &CStr,
    params: &[(CString, Option<CString>)],
    attr: u64,
) -> Outcome<OwnedFd> {
    with_mode(fstype, params, None, attr)
}

fn with_mode(
    fstype: &CStr,
    params: &[(CString, Option<CString>)],
    mode: Option<&CStr>,
    attr: u64,
) -> Outcome<OwnedFd> {
    let fs = m::fsopen(fstype).map_err(at("fsopen"))?;
    if mode.is_some() {
        m::fsconfig_set(fs.as_fd(), c"mode", mode).map_err(at("fsconfig"))?;
    }
    for (key, value) in params {
        m::fsconfig_set(fs.as_fd(), key, value.as_deref()).map_err(at("fsconfig"))?;
    }
    m::fsmount(fs.as_fd(), attr).map_err(at("fsmount"))
}

pub(super) fn attach(ctx: &Context<'_>, mount: &mut Mount) -> Outcome<()> {
    let root = ctx.root()?;
    // Cloned once more, so that mounts are numbered, and listed, in the spec's order. (Linux 6.15; before, they are listed in the
    // order in which they are attached.)
    let again = |tree: OwnedFd, recursive: bool| {
        m::open_tree_clone(tree.as_fd(), c"", recursive).unwrap_or(tree)
    };
    let (tree, directory) = match &mut mount.source {
        Source::New { fstype, params } => {
            // Nothing can be copied to a read-only mount.
            let attr = match mount.copy_up {
                Some(_) => mount.attr.attr_set & !m::attr::RDONLY,
                None => mount.attr.attr_set,
            };
            let mode = if mount.keeps_mode {
                mode_of(root, &mount.dest)
            } else {
                None
            };
            let mode = mode
                .as_ref()
                .and_then(|m| CStr::from_bytes_with_nul(m).ok());
            (with_mode(fstype, params, mode, attr)?, true)
        }
        Source::Sysfs => {
            let made = ctx.sysfs.as_ref().ok_or(Failure("open", Errno::EBADF))?;
            let tree = m::open_tree_clone(made.as_fd(), c"", false);
            let tree = tree.or_else(|_| made.try_clone().map_err(|_| Errno::EMFILE));
            (tree.map_err(at("open_tree"))?, true)
        }
        Source::Device(number) => {
            let slot = ctx.devices.get(*number).and_then(Option::as_ref);
            let made = slot.ok_or(Failure("open", Errno::EBADF))?;
            (
                made.try_clone()
                    .map_err(|_| Failure("dup", Errno::EMFILE))?,
                false,
            )
        }
        Source::Tree {
            tree,
            recursive,
            procfs,
        } => {
            let tree = tree.take().ok_or(Failure("open", Errno::EBADF))?;
            let tree = again(tree, *recursive);
            if *procfs && m::fs_magic(tree.as_fd()).map_err(at("fstatfs"))? != magic::PROC {
                return Err(Failure(
                    "only a procfs may be mounted on /proc",
                    Errno::EPERM,
                ));
            }
            let directory = m::fstat(tree.as_fd()).map_err(at("fstat"))?.st_mode & libc::S_IFMT
                == libc::S_IFDIR;
            (tree, directory)
        }
    };
    let target = open_target(root, &mount.dest, directory, mount.no_symlinks)?;
    not_by_links(root, &mount.dest, target.as_fd())?;
    if let Some(copy_up) = mount.copy_up {
        fill(tree.as_fd(), target.as_fd(), copy_up)?;
    }
    // A new file system was made with its attributes, unless something had to be copied first.
    let own = !matches!(mount.source, Source::New { .. }) || mount.copy_up.is_some();
    let plain = [(own, false, mount.attr), (true, true, mount.recursive_attr)];
    let propagation = mount.propagation.iter().map(|(propagation, recursive)| {
        let attr = MountAttr {
            propagation: *propagation,
            ..MountAttr::default()
        };
        (true, *recursive, attr)
    });
    let changes = plain.into_iter().chain(propagation);
    let changes = changes
        .filter(|(wanted, _, a)| *wanted && (a.attr_set | a.attr_clr | a.propagation) != 0)
        .map(|(_, recursive, attr)| (recursive, attr));
    place(tree.as_fd(), target.as_fd(), changes)
}

/// Gives a new file system what its image's directory has.
fn fill(tree: BorrowedFd<'_>, target: BorrowedFd<'_>, copy_up: CopyUp) -> Outcome<()> {
    copy::contents(target, tree).map_err(at("copy what is there"))?;
    if copy_up == CopyUp::All {
        let stat = m::fstat(target).map_err(at("fstat"))?;
        let root = open_in(tree, c".", libc::O_RDONLY).map_err(at("openat2"))?;
        copy::own_as(root.as_fd(), &stat).map_err(at("fchown"))?;
    }
    Ok(())
}

/// The mode of what is on a path, as an octal number; nothing where nothing is there.
fn mode_of(root: BorrowedFd<'_>, path: &CStr) -> Option<[u8; 5]> {
    let there = open_in(root, path, libc::O_PATH).ok()?;
    let mut mode = m::fstat(there.as_fd()).ok()?.st_mode;
    let mut text = [b'0', b'0', b'0', b'0', 0];
    for digit in text.iter_mut().take(4).rev() {
        *digit = b'0' + (mode & 7) as u8;
        mode >>= 3;
    }
    Some(text)
}

/// Hides a file behind the null device, a directory behind an empty read-only tmpfs that all hidden directories share.
pub(super) fn mask(ctx: &mut Context<'_>, path: &CStr) -> Outcome<()> {
    let root = ctx
        .root
        .as_ref()
        .map(AsFd::as_fd)
        .ok_or(Failure("open", Errno::EBADF))?;
    let target = match open_in(root, path, libc::O_PATH) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(e) => return Err(Failure("openat2", e)),
    };
    let is_dir =
        m::fstat(target.as_fd()).map_err(at("fstat"))?.st_mode & libc::S_IFMT == libc::S_IFDIR;
    if !is_dir {
        let (tree, attr) = hides_files(root)?;
        return place(tree.as_fd(), target.as_fd(), once((false, attr)));
    }
    if let Some(empty) = &ctx.empty {
        let tree = m::open_tree_clone(empty.as_fd(), c"", false).map_err(at("open_tree"))?;
        return m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"));
    }
    let fs = m::fsopen(c"tmpfs").map_err(at("fsopen"))?;
    m::fsconfig_set(fs.as_fd(), c"nr_inodes", Some(c"1")).map_err(at("fsconfig"))?;
    let tree = m::fsmount(
        fs.as_fd(),
        attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC,
    )
    .map_err(at("fsmount"))?;
    m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
    ctx.empty = Some(tree);
    Ok(())
}

/// What is judged is a mount's path in the spec. A link of the image may lead it anywhere in the root, but not to what is the
/// kernel's or the executor's there: it would be covered by something that was allowed elsewhere.
fn not_by_links(root: BorrowedFd<'_>, dest: &CStr, target: BorrowedFd<'_>) -> Outcome<()> {
    let typ = m::fs_magic(target).map_err(at("fstatfs"))?;
    let id = |fd: BorrowedFd<'_>| m::fstat(fd).map(|s| (s.st_dev, s.st_ino));
    let without_links = |path: &CStr| {
        let rules = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
        m::openat2(root.as_fd(), path, libc::O_PATH, 0, rules)
    };
    let is_kernels = matches!(
        typ,
        magic::PROC | magic::SYSFS | magic::CGROUP | magic::CGROUP2
    );
    let is_dev = || {
        let dev = without_links(c"dev").and_then(|dev| id(dev.as_fd()));
        dev.is_ok() && dev == id(target)
    };
    // The kernel's file systems have links of their own.
    let from_kernels = || {
        let first = dest
            .to_bytes()
            .split(|b| *b == b'/')
            .find(|part| !part.is_empty());
        let top = match first {
            Some(b"proc") => c"proc",
            Some(b"sys") => c"sys",
            _ => return false,
        };
        let typ = without_links(top).and_then(|top| m::fs_magic(top.as_fd()));
        matches!(typ, Ok(magic::PROC | magic::SYSFS))
    };
    if (is_kernels && !from_kernels() || is_dev()) && without_links(dest).is_err() {
        return Err(Failure(
            "a symbolic link of the image leads to /dev, or into /proc or /sys: mount",
            Errno::ELOOP,
        ));
    }
    Ok(())
}

/// What hides files: the container's own null device, looked at before it is used (CVE-2025-31133), which nobody can replace as long as
/// the container does not run. Never the node's: its mode and its owner would be the container's to change. Where the container has
/// another thing there (a whole `/dev` of somebody else's), an empty file hides them.
fn hides_files(root: BorrowedFd<'_>) -> Outcome<(OwnedFd, MountAttr)> {
    let null = m::openat2(
        root.as_fd(),
        c"dev/null",
        libc::O_PATH,
        0,
        RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
    );
    if let Ok(fd) = null
        && m::fstat(fd.as_fd()).is_ok_and(|s| {
            s.st_mode & libc::S_IFMT == libc::S_IFCHR && s.st_rdev == m::makedev(1, 3)
        })
    {
        let tree = m::open_tree_clone(fd.as_fd(), c"", false).map_err(at("open_tree"))?;
        return Ok((tree, MountAttr::default()));
    }
    let tree = new_file_system(c"tmpfs", &[], attr::NOSUID | attr::NODEV | attr::NOEXEC)?;
    let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;
    m::openat(tree.as_fd(), c"empty", flags, 0o444).map_err(at("open"))?;
    // A file of a detached file system can be cloned since Linux 6.15 only, so its directory is attached where it will be covered.
    let place = m::openat(root.as_fd(), c".", libc::O_PATH, 0).map_err(at("open"))?;
    m::move_mount(tree.as_fd(), place.as_fd()).map_err(at("move_mount"))?;
    let clone = m::open_tree_clone(tree.as_fd(), c"empty", false).map_err(at("open_tree"));
    crate::sys::process::fchdir(tree.as_fd()).map_err(at("fchdir"))?;
    m::umount_detach(c".").map_err(at("umount"))?;
    let read_only = MountAttr {
        attr_set: attr::RDONLY,
        ..MountAttr::default()
    };
    Ok((clone?, read_only))
}

/// Changes the mount on a path. It was made a moment ago.
pub(super) fn make_read_only(root: BorrowedFd<'_>, path: &CStr) -> Outcome<()> {
    let target = open_in(root, path, libc::O_PATH).map_err(at("openat2"))?;
    let set = MountAttr {
        attr_set: attr::RDONLY,
        ..MountAttr::default()
    };
    change(target.as_fd(), false, &set)
}

pub(super) fn protect(root: BorrowedFd<'_>, path: &CStr) -> Outcome<()> {
    let target = match open_in(root, path, libc::O_PATH) {
        Ok(fd) => fd,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        Err(e) => return Err(Failure("openat2", e)),
    };
    let tree = m::open_tree_clone(target.as_fd(), c"", true).map_err(at("open_tree"))?;
    let set = MountAttr {
        attr_set: attr::RDONLY,
        ..MountAttr::default()
    };
    let set = std::iter::once((false, set));
    place(tree.as_fd(), target.as_fd(), set)
}
