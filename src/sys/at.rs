//! Files by a directory's descriptor: openat2(2), mknodat(2) and their kin. nix has them; here they take plain numbers, and paths that
//! are C strings already, so that nothing allocates.

use std::ffi::CStr;
use std::os::fd::{BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, OpenHow, ResolveFlag};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{Gid, Uid, UnlinkatFlags};

use super::{Result, from_rustix};

/// The working directory, for calls that take a directory.
pub const CWD: BorrowedFd<'static> = nix::fcntl::AT_FDCWD;

/// Resolve as if the directory were the root: `..` and absolute symlinks stay inside. Linux 5.6, `openat2(2)`.
pub const RESOLVE_IN_ROOT: u64 = libc::RESOLVE_IN_ROOT;

/// Refuse `/proc/PID/fd`-like links. Linux 5.6, `openat2(2)`.
pub const RESOLVE_NO_MAGICLINKS: u64 = libc::RESOLVE_NO_MAGICLINKS;

/// Refuse every symbolic link. Linux 5.6, `openat2(2)`.
pub const RESOLVE_NO_SYMLINKS: u64 = libc::RESOLVE_NO_SYMLINKS;

/// Opens `path` below `dir` under `resolve` rules. Retries while the kernel answers EAGAIN, which it does when a
/// rename races with the walk, for a bounded number of times, then fails closed.
pub fn openat2(
    dir: BorrowedFd<'_>,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::from_bits_retain(flags | libc::O_CLOEXEC))
        .mode(Mode::from_bits_retain(mode))
        .resolve(ResolveFlag::from_bits_retain(resolve));
    for _ in 0..128 {
        match nix::fcntl::openat2(dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            opened => return opened,
        }
    }
    Err(Errno::EAGAIN)
}

/// Opens without any resolution rules; for trusted host paths only.
pub fn openat(dir: BorrowedFd<'_>, path: &CStr, flags: i32, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::from_bits_retain(flags | libc::O_CLOEXEC);
    nix::fcntl::openat(dir, path, flags, Mode::from_bits_retain(mode))
}

/// The magic number of the file system that `fd` lives on, as in `statfs(2)`.
pub fn fs_magic(fd: BorrowedFd<'_>) -> Result<i64> {
    Ok(nix::sys::statfs::fstatfs(fd)?.filesystem_type().0)
}

/// `fstat(2)`; works on `O_PATH` descriptors.
pub fn fstat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    nix::sys::stat::fstat(fd)
}

/// `mkdirat(2)`.
pub fn mkdirat(dir: BorrowedFd<'_>, name: &CStr, mode: u32) -> Result<()> {
    nix::sys::stat::mkdirat(dir, name, Mode::from_bits_retain(mode))
}

/// `mknodat(2)`. `mode` has the type of the file too.
pub fn mknodat(dir: BorrowedFd<'_>, name: &CStr, mode: u32, dev: u64) -> Result<()> {
    let kind = SFlag::from_bits_retain(mode & libc::S_IFMT);
    let mode = Mode::from_bits_retain(mode & !libc::S_IFMT);
    nix::sys::stat::mknodat(dir, name, kind, mode, dev)
}

/// `symlinkat(2)`.
pub fn symlinkat(target: &CStr, dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    nix::unistd::symlinkat(target, dir, name)
}

/// `unlinkat(2)` of a non-directory.
pub fn unlinkat(dir: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    nix::unistd::unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)
}

/// `fchownat(2)` without following a final link.
pub fn lchownat(dir: BorrowedFd<'_>, name: &CStr, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    nix::unistd::fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)
}

/// `readlinkat(2)` into `buf`; returns the length.
pub fn readlinkat(dir: BorrowedFd<'_>, name: &CStr, buf: &mut [u8]) -> Result<usize> {
    rustix::fs::readlinkat_raw(dir, name, buf).map_err(from_rustix)
}

/// Device number from major and minor.
pub fn makedev(major: u32, minor: u32) -> u64 {
    libc::makedev(major, minor)
}
