//! Copies a directory's contents, in a process that may neither allocate nor take a lock.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid};

use super::mount::{fstat, mkdirat, mknodat, openat, readlinkat, symlinkat};
use super::{Result, check};

/// How deep directories may be nested: each level costs some kilobytes of the stack.
const MAX_DEPTH: u32 = 64;

/// Copies what is in the directory `from` into the directory `to`, with owners, modes and times; links are copied, not
/// followed, and directories deeper than 64 levels are `ELOOP`. Extended attributes are not copied.
pub fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let from = open_dir(from, c".")?;
    level(&from, to, 0)
}

/// Gives the open file or directory `to` the owner and the mode in `stat`.
pub fn own_as(to: BorrowedFd<'_>, stat: &libc::stat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    nix::unistd::fchown(to, Some(uid), Some(gid))?;
    // After the owner: that clears the set-id bits.
    nix::sys::stat::fchmod(to, Mode::from_bits_retain(stat.st_mode & 0o7777))?;
    Ok(())
}

fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd> {
    openat(
        dir,
        name,
        libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC,
        0,
    )
}

fn level(from: &OwnedFd, to: BorrowedFd<'_>, depth: u32) -> Result<()> {
    if depth >= MAX_DEPTH {
        return Err(Errno::ELOOP);
    }
    let mut buffer = [0u8; 2048];
    loop {
        // SAFETY: the buffer is writable for its length.
        let n = check(unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                from.as_raw_fd(),
                buffer.as_mut_ptr(),
                buffer.len(),
            )
        })?;
        let mut entries = buffer.get(..n as usize).unwrap_or_default();
        if entries.is_empty() {
            return Ok(());
        }
        // struct linux_dirent64, getdents64(2): ino, off, reclen at 16, type at 18, the name at 19.
        while let Some([low, high]) = entries.get(16..18) {
            let length = usize::from(u16::from_ne_bytes([*low, *high]));
            let name = entries.get(19..length).unwrap_or_default();
            let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::EINVAL)?;
            if name != c"." && name != c".." {
                entry(from, to, name, depth)?;
            }
            entries = entries.get(length..).unwrap_or_default();
        }
    }
}

fn entry(from: &OwnedFd, to: BorrowedFd<'_>, name: &CStr, depth: u32) -> Result<()> {
    let (source, target) = (from.as_fd(), to);
    let node = openat(
        source,
        name,
        libc::O_PATH | libc::O_NOFOLLOW | libc::O_CLOEXEC,
        0,
    )?;
    let stat = fstat(node.as_fd())?;
    drop(node);
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => {
            mkdirat(target, name, 0o700)?;
            let made = open_dir(target, name)?;
            level(&open_dir(source, name)?, made.as_fd(), depth + 1)?;
            own_as(made.as_fd(), &stat)?;
        }
        libc::S_IFREG => {
            let flags = libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
            let data = openat(source, name, flags, 0)?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_CLOEXEC;
            let made = openat(target, name, flags, 0o600)?;
            copy_data(&data, &made)?;
            own_as(made.as_fd(), &stat)?;
        }
        libc::S_IFLNK => {
            let mut buffer = [0u8; 4096];
            let n = readlinkat(source, name, &mut buffer[..4095])?;
            let link = buffer.get(..=n).unwrap_or_default();
            let link = CStr::from_bytes_until_nul(link).map_err(|_| Errno::EINVAL)?;
            symlinkat(link, target, name)?;
            own_link_as(target, name, &stat)?;
        }
        _ => {
            mknodat(target, name, stat.st_mode, stat.st_rdev)?;
            own_link_as(target, name, &stat)?;
            // It was just made, so it is no link.
            let mode = Mode::from_bits_retain(stat.st_mode & 0o7777);
            nix::sys::stat::fchmodat(target, name, mode, FchmodatFlags::FollowSymlink)?;
        }
    }
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    let no_follow = UtimensatFlags::NoFollowSymlink;
    nix::sys::stat::utimensat(target, name, &accessed, &modified, no_follow)?;
    Ok(())
}

fn own_link_as(dir: BorrowedFd<'_>, name: &CStr, stat: &libc::stat) -> Result<()> {
    super::mount::lchownat(dir, name, stat.st_uid, stat.st_gid)
}

fn copy_data(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    loop {
        let n = nix::sys::sendfile::sendfile(to, from, None, 1 << 30)?;
        if n == 0 {
            return Ok(());
        }
    }
}
