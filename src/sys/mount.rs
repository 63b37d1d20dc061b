//! The mount system calls that work on descriptors: `openat2(2)`, `open_tree(2)`, `move_mount(2)`, `fsopen(2)`,
//! `fsconfig(2)`, `fsmount(2)`, `mount_setattr(2)`; and the classic `mount(2)` and `pivot_root(2)`.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{Result, check};
use nix::errno::Errno;

/// `AT_FDCWD` as a plain number, for calls that take either a descriptor or the working directory.
pub const CWD: RawFd = libc::AT_FDCWD;
/// Resolve as if the directory were the root: `..` and absolute symlinks stay inside. Linux 5.6, `openat2(2)`.
pub const RESOLVE_IN_ROOT: u64 = libc::RESOLVE_IN_ROOT;
/// Refuse `/proc/PID/fd`-like links. Linux 5.6, `openat2(2)`.
pub const RESOLVE_NO_MAGICLINKS: u64 = libc::RESOLVE_NO_MAGICLINKS;
/// Refuse every symbolic link. Linux 5.6, `openat2(2)`.
pub const RESOLVE_NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;

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
struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
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

/// Opens `path` below `dir` under `resolve` rules. Retries while the kernel answers EAGAIN, which it does when a
/// rename races with the walk, for a bounded number of times, then fails closed.
pub fn openat2(dir: RawFd, path: &CStr, flags: i32, mode: u32, resolve: u64) -> Result<OwnedFd> {
    let how = OpenHow {
        flags: (flags | libc::O_CLOEXEC) as u64,
        mode: u64::from(mode),
        resolve,
    };
    for _ in 0..128 {
        // SAFETY: `path` is NUL-terminated and `how` has the size that is passed; both outlive the call.
        let ret = unsafe {
            libc::syscall(
                libc::SYS_openat2,
                dir,
                path.as_ptr(),
                &raw const how,
                size_of::<OpenHow>(),
            )
        };
        match check(ret) {
            // SAFETY: the kernel has just returned this descriptor to us alone.
            Ok(fd) => return Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::EAGAIN)
}

/// The id of the mount that `fd` is on, as `mountinfo` has it, and whether `fd` is the mount's root: `statx(2)`, Linux 5.8.
pub fn mount_of(fd: BorrowedFd<'_>) -> Result<(u64, bool)> {
    const MNT_ID: u32 = 0x1000;
    const ATTR_MOUNT_ROOT: u64 = 0x2000;
    // SAFETY: all zeros are a valid `statx`.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path is a static empty string, and `stat` is writable.
    check(libc::c_long::from(unsafe {
        libc::statx(
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            MNT_ID,
            &raw mut stat,
        )
    }))?;
    Ok((stat.stx_mnt_id, stat.stx_attributes & ATTR_MOUNT_ROOT != 0))
}

/// Clones the mount at `path` (relative to `dir`) into a detached tree.
pub fn open_tree_clone(dir: RawFd, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let mut flags = 1 /* OPEN_TREE_CLONE */ | libc::O_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE;
    }
    if path.is_empty() {
        flags |= libc::AT_EMPTY_PATH;
    }
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, dir, path.as_ptr(), flags) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Attaches the detached tree `tree` on the object that `target` refers to.
pub fn move_mount(tree: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    const F_EMPTY_PATH: u32 = 0x4;
    const T_EMPTY_PATH: u32 = 0x40;
    // SAFETY: both paths are static empty strings; the descriptors are borrowed for the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_move_mount,
            tree.as_raw_fd(),
            c"".as_ptr(),
            target.as_raw_fd(),
            c"".as_ptr(),
            F_EMPTY_PATH | T_EMPTY_PATH,
        )
    })?;
    Ok(())
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
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `stat` is large enough for the answer.
    check(libc::c_long::from(unsafe {
        libc::fstatvfs(fd.as_raw_fd(), stat.as_mut_ptr())
    }))?;
    // SAFETY: filled in by the successful call above.
    let now = unsafe { stat.assume_init() }.f_flag;
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
    // SAFETY: `fstype` is NUL-terminated and outlives the call.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_fsopen,
            fstype.as_ptr(),
            1, /* FSOPEN_CLOEXEC */
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sets `key`, to `value` or as a flag.
pub fn fsconfig_set(ctx: BorrowedFd<'_>, key: &CStr, value: Option<&CStr>) -> Result<()> {
    let (cmd, value) = match value {
        Some(v) => (1 /* FSCONFIG_SET_STRING */, v.as_ptr()),
        None => (0 /* FSCONFIG_SET_FLAG */, ptr::null()),
    };
    // SAFETY: the strings are NUL-terminated (or null for a flag) and outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            ctx.as_raw_fd(),
            cmd,
            key.as_ptr(),
            value,
            0,
        )
    })?;
    Ok(())
}

/// Creates the superblock and returns a detached mount of it with `attrs`.
pub fn fsmount(ctx: BorrowedFd<'_>, attrs: u64) -> Result<OwnedFd> {
    // SAFETY: FSCONFIG_CMD_CREATE takes no pointers.
    check(unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            ctx.as_raw_fd(),
            6, /* CMD_CREATE */
            ptr::null::<u8>(),
            ptr::null::<u8>(),
            0,
        )
    })?;
    // SAFETY: plain numbers.
    let fd = check(unsafe {
        libc::syscall(
            libc::SYS_fsmount,
            ctx.as_raw_fd(),
            1, /* FSMOUNT_CLOEXEC */
            attrs,
        )
    })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The classic `mount(2)`, with a null `data` where there is none: an empty string costs the kernel a page.
pub fn mount(
    source: Option<&CStr>,
    target: &CStr,
    fstype: Option<&CStr>,
    flags: u64,
    data: Option<&CStr>,
) -> Result<()> {
    let opt = |s: Option<&CStr>| s.map_or(ptr::null(), CStr::as_ptr);
    // SAFETY: all pointers are null or NUL-terminated strings that outlive the call.
    check(libc::c_long::from(unsafe {
        libc::mount(
            opt(source),
            target.as_ptr(),
            opt(fstype),
            flags,
            opt(data).cast(),
        )
    }))?;
    Ok(())
}

/// `pivot_root(".", ".")`: the working directory becomes the root, with the old root stacked on top of it.
pub fn pivot_here() -> Result<()> {
    // SAFETY: static strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, c".".as_ptr(), c".".as_ptr()) })?;
    Ok(())
}

/// Detaches the mount at `path`.
pub fn umount_detach(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    check(libc::c_long::from(unsafe {
        libc::umount2(path.as_ptr(), libc::MNT_DETACH)
    }))?;
    Ok(())
}

/// The magic number of the file system that `fd` lives on, as in `statfs(2)`.
pub fn fs_magic(fd: BorrowedFd<'_>) -> Result<i64> {
    let mut st = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `st` is large enough for the kernel's answer.
    check(libc::c_long::from(unsafe {
        libc::fstatfs(fd.as_raw_fd(), st.as_mut_ptr())
    }))?;
    // SAFETY: filled in by the successful call above.
    Ok(unsafe { st.assume_init() }.f_type)
}

/// `fstat(2)`; works on `O_PATH` descriptors.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    let mut st = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `st` is large enough for the kernel's answer.
    check(libc::c_long::from(unsafe {
        libc::fstat(fd.as_raw_fd(), st.as_mut_ptr())
    }))?;
    // SAFETY: filled in by the successful call above.
    Ok(unsafe { st.assume_init() })
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: RawFd, name: &CStr, mode: u32) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(libc::c_long::from(unsafe {
        libc::mkdirat(dir, name.as_ptr(), mode)
    }))?;
    Ok(())
}

/// `mknodat(2)`.
pub fn mknodat(dir: RawFd, name: &CStr, mode: u32, dev: u64) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(libc::c_long::from(unsafe {
        libc::mknodat(dir, name.as_ptr(), mode, dev)
    }))?;
    Ok(())
}

/// `symlinkat(2)`.
pub fn symlinkat(target: &CStr, dir: RawFd, name: &CStr) -> Result<()> {
    // SAFETY: both strings are NUL-terminated and outlive the call.
    check(libc::c_long::from(unsafe {
        libc::symlinkat(target.as_ptr(), dir, name.as_ptr())
    }))?;
    Ok(())
}

/// `unlinkat(2)` of a non-directory.
pub fn unlinkat(dir: RawFd, name: &CStr) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(libc::c_long::from(unsafe {
        libc::unlinkat(dir, name.as_ptr(), 0)
    }))?;
    Ok(())
}

/// `fchownat(2)` without following a final link.
pub fn lchownat(dir: RawFd, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call.
    check(libc::c_long::from(unsafe {
        libc::fchownat(dir, name.as_ptr(), uid, gid, libc::AT_SYMLINK_NOFOLLOW)
    }))?;
    Ok(())
}

/// `readlinkat(2)` into `buf`; returns the length.
pub fn readlinkat(dir: RawFd, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    // SAFETY: `buf` is writable for its whole length.
    let n =
        check(
            unsafe { libc::readlinkat(dir, name.as_ptr(), buf.as_mut_ptr().cast(), buf.len()) }
                as libc::c_long,
        )?;
    Ok(n as usize)
}

/// Opens without any resolution rules; for trusted host paths only.
pub fn openat(dir: RawFd, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    // SAFETY: `path` is NUL-terminated and outlives the call.
    let fd = check(libc::c_long::from(unsafe {
        libc::openat(dir, path.as_ptr(), flags | libc::O_CLOEXEC, mode)
    }))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Device number from major and minor.
pub fn makedev(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}
