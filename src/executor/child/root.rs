//! The container's root: how it is mounted, taken along, and entered.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::super::script::MountRoot;
use super::mounts::{change, map_ids};
use super::{Context, DEVICES, Failure, Outcome, at};
use crate::sys::mount::{self as m, CWD, MountAttr, attr};
use crate::sys::{creds, process};

pub(super) fn open_slash() -> Outcome<OwnedFd> {
    m::openat(CWD, c"/", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open"))
}

/// What leads out of the container is not there any more when its own programs run.
pub(super) fn leave_node(ctx: &mut Context<'_>) {
    ctx.node_root = None;
    ctx.sysfs = None;
    ctx.root_tree = None;
    ctx.devices = [const { None }; DEVICES];
}

/// The root that was placed; else, after mounts that make it up, what is at its path.
pub(super) fn take_root(ctx: &mut Context<'_>, path: &CStr) -> Outcome<OwnedFd> {
    match ctx.root.take() {
        Some(root) => Ok(root),
        None => m::openat(CWD, path, libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open")),
    }
}

pub(super) fn clone_root(ctx: &Context<'_>, path: &CStr) -> Outcome<OwnedFd> {
    let clone = match &ctx.root {
        Some(root) => m::open_tree_clone(root.as_fd(), c"", true),
        None => m::open_tree_clone(CWD, path, true),
    };
    clone.map_err(at("open_tree"))
}

/// Attaches the tree of [`clone_root`].
pub(super) fn attach_root(ctx: &mut Context<'_>) -> Outcome<()> {
    let tree = ctx.root_tree.take().ok_or(Failure("open", Errno::EBADF))?;
    let top = open_slash()?;
    m::move_mount(tree.as_fd(), top.as_fd()).map_err(at("move_mount"))?;
    ctx.root = Some(tree);
    ctx.node_root = Some(top);
    Ok(())
}

/// Attaches a root that is there already, as a mount of its own.
pub(super) fn place_root(ctx: &mut Context<'_>, tree: &OwnedFd, target: &CStr) -> Outcome<()> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let target = m::openat(CWD, target, flags, 0).map_err(at("open"))?;
    m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
    // As if it had been bound after the node's propagation was cut.
    let slave = MountAttr {
        propagation: libc::MS_SLAVE,
        ..MountAttr::default()
    };
    change(tree.as_fd(), true, &slave)?;
    let kept = tree.try_clone();
    ctx.root = Some(kept.map_err(|_| Failure("dup", Errno::EMFILE))?);
    Ok(())
}

/// One of the mounts that make up the root.
pub(super) fn mount_root(mount: &MountRoot) -> Outcome<()> {
    if let Some(dir) = &mount.workdir {
        process::chdir(dir).map_err(at("chdir"))?;
    }
    let (target, flags) = (&mount.target, mount.flags);
    let call = || {
        let data = mount.data.as_deref();
        m::mount(
            Some(&mount.source),
            target,
            Some(&mount.fstype),
            flags,
            data,
        )
    };
    match mount.owner {
        Some(id) => creds::with_file_owner(id, id, call).map_err(at("setfsuid"))?,
        None => call(),
    }
    .map_err(at("mount"))?;
    if flags & libc::MS_BIND != 0 && flags & !(libc::MS_BIND | libc::MS_REC) != 0 {
        // Flags of a bind mount take effect on a second call only.
        m::mount(None, target, None, flags | libc::MS_REMOUNT, None).map_err(at("mount"))?;
    }
    Ok(())
}

/// Mounts the layers of an overlay with their ids mapped, below `place` under `names`.
pub(super) fn map_layers(
    maps: &OwnedFd,
    layers: &[CString],
    names: &[CString],
    place: &CStr,
) -> Outcome<()> {
    m::mount(Some(c"tmpfs"), place, Some(c"tmpfs"), 0, None).map_err(at("mount"))?;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let place = m::openat(CWD, place, flags, 0).map_err(at("open"))?;
    for (layer, name) in layers.iter().zip(names.iter()) {
        let tree = m::open_tree_clone(CWD, layer, false).map_err(at("open_tree"))?;
        map_ids(&tree, maps, false)?;
        m::mkdirat(place.as_fd(), name, 0o700).map_err(at("mkdir"))?;
        let target = m::openat(place.as_fd(), name, flags, 0).map_err(at("open"))?;
        m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
    }
    Ok(())
}

/// Maps the ids of what is mounted at `target`, by a mount on top of it.
pub(super) fn map_root(ctx: &mut Context<'_>, maps: &OwnedFd, target: &CStr) -> Outcome<()> {
    let tree = clone_root(ctx, target)?;
    map_ids(&tree, maps, true)?;
    let place = take_root(ctx, target)?;
    m::move_mount(tree.as_fd(), place.as_fd()).map_err(at("move_mount"))?;
    ctx.root = Some(tree);
    Ok(())
}

/// `pivot_root(2)`, after which the node's root is nowhere.
pub(super) fn pivot_root(ctx: &mut Context<'_>) -> Outcome<()> {
    leave_node(ctx);
    process::fchdir(ctx.root()?).map_err(at("fchdir"))?;
    m::pivot_here().map_err(at("pivot_root"))?;
    m::umount_detach(c".").map_err(at("umount"))?;
    process::chdir(c"/").map_err(at("chdir"))
}

/// Mounts the root over the node's: `--no-pivot`, for a node's root that cannot be pivoted away.
/// What the kernel shows of itself on the node goes first: a covered mount that is whole is enough for the kernel to allow a container
/// another whole one (`mount_too_revealing` in fs/namespace.c).
pub(super) fn move_root(ctx: &mut Context<'_>, hide: &[CString]) -> Outcome<()> {
    leave_node(ctx);
    for path in hide.iter().rev() {
        if m::umount_detach(path).is_err() {
            // Locked: covered by what is empty.
            match m::mount(Some(c"tmpfs"), path, Some(c"tmpfs"), libc::MS_RDONLY, None) {
                // It was below another one.
                Ok(()) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(e) => return Err(Failure("hide the node's procfs and sysfs: mount", e)),
            }
        }
    }
    process::fchdir(ctx.root()?).map_err(at("fchdir"))?;
    m::mount(Some(c"."), c"/", None, libc::MS_MOVE, None).map_err(at("mount"))?;
    change_root(ctx)
}

/// `chroot(2)`: a container in the node's mount namespace has nothing else.
pub(super) fn change_root(ctx: &Context<'_>) -> Outcome<()> {
    process::fchdir(ctx.root()?).map_err(at("fchdir"))?;
    process::chroot(c".").map_err(at("chroot"))?;
    process::chdir(c"/").map_err(at("chdir"))
}

/// Keeps what is mounted below the root from appearing anywhere else.
pub(super) fn make_private(ctx: &Context<'_>) -> Outcome<()> {
    let private = MountAttr {
        propagation: libc::MS_PRIVATE,
        ..MountAttr::default()
    };
    change(ctx.root()?, true, &private)
}

/// Makes the root's own mount read-only, not those below it.
pub(super) fn make_read_only(ctx: &Context<'_>) -> Outcome<()> {
    let set = MountAttr {
        attr_set: attr::RDONLY,
        ..MountAttr::default()
    };
    change(ctx.root()?, false, &set)
}
