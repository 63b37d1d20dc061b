//! The mount system calls that work on descriptors: `open_tree(2)`, `move_mount(2)`, `fsopen(2)`,
//! `fsconfig(2)`, `fsmount(2)`, `mount_setattr(2)`; and the classic `mount(2)` and `pivot_root(2)`.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags};
use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags};

use super::{Result, check, from_rustix};

pub use super::at::*;

/// Attributes of `mount_setattr(2)`.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x1;
    /// Ignore set-user-ID bits and file capabilities.
    pub const NOSUID: u64 = 0x2;
    /// No device nodes.
    pub const NODEV: u64 = 0x4;
    /// No program execution.
    pub const NOEXEC: u64 = 0x8;
    /// The mask of the access-time settings.
    pub const ATIME: u64 = 0x70;
    /// Update access times relative to modification times (the zero value of [`ATIME`]).
    pub const RELATIME: u64 = 0x0;
    /// Never update access times.
    pub const NOATIME: u64 = 0x10;
    /// Always update access times.
    pub const STRICTATIME: u64 = 0x20;
    /// Do not update access times of directories.
    pub const NODIRATIME: u64 = 0x80;
    /// Show files with the ids that a user namespace's maps give them (Linux 5.12).
    pub const IDMAP: u64 = 0x10_0000;
    /// Follow no symbolic links on this mount (Linux 5.10 flag, settable here since 5.14).
    pub const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Types of file systems, as `statfs(2)` tells them: `linux/magic.h`.
pub mod magic {
    /// `binfmt_misc`.
    pub const BINFMT_MISC: i64 = 0x4249_4e4d;
    /// Pinned eBPF objects.
    pub const BPF: i64 = 0xcafe_4a11;
    /// Control groups, v1.
    pub const CGROUP: i64 = 0x0027_e0eb;
    /// Control groups, v2.
    pub const CGROUP2: i64 = 0x6367_7270;
    /// configfs.
    pub const CONFIGFS: i64 = 0x6265_6570;
    /// debugfs.
    pub const DEBUGFS: i64 = 0x6462_6720;
    /// Pseudo-terminals.
    pub const DEVPTS: i64 = 0x1cd1;
    /// The firmware's variables.
    pub const EFIVARFS: i64 = 0xde5e_81e4;
    /// POSIX message queues.
    pub const MQUEUE: i64 = 0x1980_0202;
    /// Files in memory.
    pub const TMPFS: i64 = 0x0102_1994;
    /// Namespaces.
    pub const NSFS: i64 = 0x6e73_6673;
    /// Pipes that `pipe(2)` made.
    pub const PIPEFS: i64 = 0x5049_5045;
    /// procfs.
    pub const PROC: i64 = 0x9fa0;
    /// securityfs.
    pub const SECURITYFS: i64 = 0x7363_6673;
    /// selinuxfs.
    pub const SELINUXFS: i64 = 0xf97c_ff8c;
    /// sysfs.
    pub const SYSFS: i64 = 0x6265_6572;
    /// tracefs.
    pub const TRACEFS: i64 = 0x7472_6163;
}

#[repr(C)]
#[derive(Default, Clone, Copy, Debug)]
/// `struct mount_attr` of `mount_setattr(2)`.
pub struct MountAttr {
    /// Attributes to set.
    pub attr_set: u64,
    /// Attributes to clear.
    pub attr_clr: u64,
    /// One of `MS_PRIVATE`, `MS_SLAVE`, `MS_SHARED`, `MS_UNBINDABLE`, or 0 to leave it.
    pub propagation: u64,
    /// User namespace for `MOUNT_ATTR_IDMAP`.
    pub userns_fd: u64,
}

/// The id of the mount that `fd` is on, as `mountinfo` has it, and whether `fd` is the mount's root: `statx(2)`, Linux 5.8.
pub fn mount_of(fd: BorrowedFd<'_>) -> Result<(u64, bool)> {
    let stat = rustix::fs::statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID);
    let stat = stat.map_err(from_rustix)?;
    let is_root = stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT);
    Ok((stat.stx_mnt_id, is_root))
}

/// Clones the mount at `path` (relative to `dir`) into a detached tree.
pub fn open_tree_clone(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.is_empty());
    rustix::mount::open_tree(dir, path, flags).map_err(from_rustix)
}

/// Attaches the detached tree `tree` on the object that `target` refers to.
pub fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(tree, c"", target, c"", flags).map_err(from_rustix)
}

/// Changes attributes of the mount that `fd` refers to.
pub fn mount_setattr(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: `attr` has the size that is passed and outlives the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            flags,
            ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    })?;
    Ok(())
}

/// Gives a detached mount the ids of a user namespace's maps. Linux 5.12.
pub fn map_ids(tree: BorrowedFd<'_>, users: BorrowedFd<'_>, recursive: bool) -> Result<()> {
    let attr = MountAttr {
        attr_set: attr::IDMAP,
        userns_fd: users.as_raw_fd() as u64,
        ..MountAttr::default()
    };
    mount_setattr(tree, recursive, &attr)
}

/// What [`mount_setattr`] does, for kernels that lack it (before 5.12): on an attached mount, and on that one alone. Ids
/// cannot be mapped there, nor attributes changed recursively: `ENOSYS`.
pub fn remount(fd: BorrowedFd<'_>, recursive: bool, attr: &MountAttr) -> Result<()> {
    let path = FdPath::new(fd);
    if attr.propagation != 0 {
        let recursion = if recursive { libc::MS_REC } else { 0 };
        mount(
            None,
            path.as_c_str(),
            None,
            attr.propagation | recursion,
            None,
        )?;
    }
    if attr.attr_set == 0 && attr.attr_clr == 0 {
        return Ok(());
    }
    if recursive || attr.attr_set & attr::IDMAP != 0 {
        return Err(Errno::ENOSYS);
    }
    let now = nix::sys::statvfs::fstatvfs(fd)?.flags().bits();
    let mut flags = libc::MS_REMOUNT | libc::MS_BIND;
    for (attr_bit, st, ms) in [
        (attr::RDONLY, libc::ST_RDONLY, libc::MS_RDONLY),
        (attr::NOSUID, libc::ST_NOSUID, libc::MS_NOSUID),
        (attr::NODEV, libc::ST_NODEV, libc::MS_NODEV),
        (attr::NOEXEC, libc::ST_NOEXEC, libc::MS_NOEXEC),
        (attr::NODIRATIME, libc::ST_NODIRATIME, libc::MS_NODIRATIME),
    ] {
        let kept = now & st != 0 && attr.attr_clr & attr_bit == 0;
        if kept || attr.attr_set & attr_bit != 0 {
            flags |= ms;
        }
    }
    // Access times are one field of three values.
    flags |= if attr.attr_clr & attr::ATIME == 0 {
        match (now & libc::ST_NOATIME != 0, now & libc::ST_RELATIME != 0) {
            (true, _) => libc::MS_NOATIME,
            (_, true) => libc::MS_RELATIME,
            _ => libc::MS_STRICTATIME,
        }
    } else {
        match attr.attr_set & attr::ATIME {
            attr::NOATIME => libc::MS_NOATIME,
            attr::STRICTATIME => libc::MS_STRICTATIME,
            _ => libc::MS_RELATIME,
        }
    };
    mount(None, path.as_c_str(), None, flags, None)
}

/// `/proc/self/fd/N`, for the calls that take paths only.
struct FdPath([u8; 32]);

impl FdPath {
    fn new(fd: BorrowedFd<'_>) -> Self {
        let mut path = [0; 32];
        let prefix = b"/proc/self/fd/";
        let (head, tail) = path.split_at_mut(prefix.len());
        head.copy_from_slice(prefix);
        let mut digits = [0u8; 10];
        let mut n = fd.as_raw_fd().unsigned_abs();
        let mut count = 0;
        for digit in &mut digits {
            *digit = b'0' + (n % 10) as u8;
            n /= 10;
            count += 1;
            if n == 0 {
                break;
            }
        }
        for (to, from) in tail.iter_mut().zip(digits.iter().take(count).rev()) {
            *to = *from;
        }
        Self(path)
    }

    fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or(c"")
    }
}

/// Opens a file system context.
pub fn fsopen(fstype: &CStr) -> Result<OwnedFd> {
    rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC).map_err(from_rustix)
}

/// Sets `key`, to `value` or as a flag.
pub fn fsconfig_set(ctx: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    match value {
        Some(value) => rustix::mount::fsconfig_set_string(ctx, key, value),
        None => rustix::mount::fsconfig_set_flag(ctx, key),
    }
    .map_err(from_rustix)
}

/// Creates the superblock and returns a detached mount of it with `attrs`.
pub fn fsmount(ctx: BorrowedFd<'_>, attrs: u64) -> Result<OwnedFd> {
    rustix::mount::fsconfig_create(ctx).map_err(from_rustix)?;
    let attrs = MountAttrFlags::from_bits_retain(attrs as u32);
    rustix::mount::fsmount(ctx, FsMountFlags::FSMOUNT_CLOEXEC, attrs).map_err(from_rustix)
}

/// The classic `mount(2)`, with a null `data` where there is none: an empty string costs the kernel a page.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    nix::mount::mount(
        source,
        target,
        fstype,
        MsFlags::from_bits_retain(flags),
        data,
    )
}

/// `pivot_root(".", ".")`: the working directory becomes the root, with the old root stacked on top of it.
pub fn pivot_here() -> Result<()> {
    nix::unistd::pivot_root(c".", c".")
}

/// Detaches the mount at `path`.
pub fn umount_detach(path: &CStr) -> Result<()> {
    nix::mount::umount2(path, MntFlags::MNT_DETACH)
}

/// Whether it is only its mount that keeps a file from being executed: `statvfs(3)`, `ST_NOEXEC`.
pub fn is_no_exec(path: &CStr) -> bool {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let mounted = statvfs(path).is_ok_and(|fs| fs.flags().contains(FsFlags::ST_NOEXEC));
    mounted && nix::sys::stat::stat(path).is_ok_and(|file| file.st_mode & 0o111 != 0)
}
