//! Device nodes, links beside them, the terminal and the standard streams.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use super::super::script::DeviceNode;
use super::super::wire::Message;
use super::mounts::new_file_system;
use super::paths::{open_target, parent_of};
use super::talk::hand;
use super::{Context, Failure, Outcome, at};
use crate::sys::mount::{self as m, CWD, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, attr};
use crate::sys::process::{self, Standard};
use crate::sys::{self, tty};

/// Makes devices on a file system in memory, over this mount namespace's own `/dev`, which nobody else sees: only an attached mount
/// can be cloned on every kernel. What is kept are the clones, one for each.
pub(super) fn make_devices(ctx: &mut Context<'_>, devices: &[(CString, u64)]) -> Outcome<()> {
    let tree = new_file_system(c"tmpfs", &[], attr::NOSUID | attr::NOEXEC)?;
    let dev = m::openat(CWD, c"/dev", libc::O_PATH | libc::O_DIRECTORY, 0).map_err(at("open"))?;
    m::move_mount(tree.as_fd(), dev.as_fd()).map_err(at("move_mount"))?;
    for ((name, rdev), slot) in devices.iter().zip(ctx.devices.iter_mut()) {
        let mode = libc::S_IFCHR | 0o666;
        m::mknodat(tree.as_fd(), name, mode, *rdev).map_err(at("mknod"))?;
        let clone = m::open_tree_clone(tree.as_fd(), name, false);
        *slot = Some(clone.map_err(at("open_tree"))?);
    }
    m::umount_detach(c"/dev").map_err(at("umount"))
}

/// A terminal of the container's own devpts, by descriptor all the way (CVE-2025-52565).
pub(super) fn terminal(
    ctx: &Context<'_>,
    uid: u32,
    size: Option<(u16, u16)>,
    plain: bool,
    console: bool,
) -> Outcome<()> {
    let root = ctx.root()?;
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let rules = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
    let master = m::openat2(root.as_fd(), c"dev/pts/ptmx", flags, 0, rules)
        .map_err(at("openat2 /dev/pts/ptmx"))?;
    let st = m::fstat(master.as_fd()).map_err(at("fstat"))?;
    if st.st_rdev != m::makedev(5, 2)
        || m::fs_magic(master.as_fd()).map_err(at("fstatfs"))? != m::magic::DEVPTS
    {
        return Err(Failure("/dev/pts is not a devpts", Errno::ENODEV));
    }
    let peer = tty::open_peer(master.as_fd()).map_err(at("TIOCGPTPEER"))?;
    sys::fchown(peer.as_fd(), uid, u32::MAX).map_err(at("fchown"))?;
    if let Some((columns, rows)) = size {
        tty::set_size(peer.as_fd(), columns, rows).map_err(at("TIOCSWINSZ"))?;
    }
    if plain {
        tty::keep_ends_of_lines(peer.as_fd()).map_err(at("TCSETS"))?;
    }
    if console {
        let target = open_target(root, c"dev/console", false, true)?;
        let tree = m::open_tree_clone(peer.as_fd(), c"", false).map_err(at("open_tree"))?;
        m::move_mount(tree.as_fd(), target.as_fd()).map_err(at("move_mount"))?;
    }
    hand(ctx.control(), Message::Terminal, master.as_fd())?;
    process::setsid().map_err(at("setsid"))?;
    tty::set_controlling(peer.as_fd()).map_err(at("TIOCSCTTY"))?;
    for stream in Standard::ALL {
        process::become_standard(peer.as_fd(), stream).map_err(at("dup3"))?;
    }
    Ok(())
}

/// Makes a device node. If the image or a bind mount already has it, it stays.
pub(super) fn make_device(ctx: &Context<'_>, device: &DeviceNode) -> Outcome<()> {
    let (parent, name) = parent_of(ctx.root()?, &device.path)?;
    let number = m::makedev(device.major, device.minor);
    match m::mknodat(parent.as_fd(), name, device.mode, number) {
        Ok(()) => m::lchownat(parent.as_fd(), name, device.uid, device.gid).map_err(at("fchownat")),
        Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(Failure("mknod", e)),
    }
}

/// Makes a symbolic link. If something is there already, it stays, unless `replace` says otherwise.
pub(super) fn link(ctx: &Context<'_>, target: &CStr, path: &CStr, replace: bool) -> Outcome<()> {
    let (parent, name) = parent_of(ctx.root()?, path)?;
    let link = || m::symlinkat(target, parent.as_fd(), name);
    match link() {
        Err(Errno::EEXIST) if replace => {
            m::unlinkat(parent.as_fd(), name).map_err(at("unlink"))?;
            link().map_err(at("symlink"))
        }
        Ok(()) | Err(Errno::EEXIST) => Ok(()),
        Err(e) => Err(Failure("symlink", e)),
    }
}

/// Writes what the container is told of its isolation into its `/dev`, if that is in memory and nothing is in the way: it is for people,
/// and no container fails for it.
pub(super) fn write_notice(ctx: &Context<'_>, text: &[u8]) -> Outcome<()> {
    let rules = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS;
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let Ok(dev) = m::openat2(ctx.root()?.as_fd(), c"dev", flags, 0, rules) else {
        return Ok(());
    };
    if !m::fs_magic(dev.as_fd()).is_ok_and(|magic| magic == m::magic::TMPFS) {
        return Ok(());
    }
    let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    if let Ok(file) = m::openat2(dev.as_fd(), c"cofferdam", flags, 0o444, RESOLVE_NO_SYMLINKS) {
        process::write_all(file.as_fd(), text).ok();
    }
    Ok(())
}

/// Makes three descriptors the standard streams of a session of its own.
pub(super) fn connect_streams(fds: &[OwnedFd; 3]) -> Outcome<()> {
    process::setsid().map_err(at("setsid"))?;
    for (fd, stream) in fds.iter().zip(Standard::ALL) {
        process::become_standard(fd.as_fd(), stream).map_err(at("dup3"))?;
    }
    Ok(())
}
