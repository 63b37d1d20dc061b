//! Paths below the container's root: every step is resolved inside of it, by the kernel.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;

use super::{Failure, Outcome, at};
use crate::sys::mount::{self as m, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS};

/// The kernel's limit of links on one path, `path_resolution(7)`.
const MAX_LINKS: usize = 40;
/// Longest path that we build in the child.
const PATH_MAX: usize = 4096;

pub(super) fn open_in(root: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<OwnedFd, Errno> {
    m::openat2(
        root.as_fd(),
        path,
        flags,
        0,
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS,
    )
}

/// A path under construction, NUL-terminated at all times.
pub(super) struct PathBuffer {
    bytes: [u8; PATH_MAX],
    len: usize,
}

impl PathBuffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: [0; PATH_MAX],
            len: 0,
        }
    }

    pub(crate) fn push(&mut self, part: &[u8]) -> Outcome<()> {
        let to = self
            .bytes
            .get_mut(self.len..self.len + part.len())
            .ok_or(Failure("build path", Errno::ENAMETOOLONG))?;
        to.copy_from_slice(part);
        self.len += part.len();
        if self.len >= PATH_MAX {
            return Err(Failure("build path", Errno::ENAMETOOLONG));
        }
        Ok(())
    }

    fn truncate(&mut self, len: usize) {
        if let Some(tail) = self.bytes.get_mut(len..) {
            tail.fill(0);
        }
        self.len = len;
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"")
    }
}

/// Opens the directory `path` below `root`, making what is missing. Every step is resolved inside the root by the kernel.
/// A dangling link of the image is followed by hand, as if its target existed, still inside the root.
pub(super) fn make_directories(root: BorrowedFd<'_>, path: &CStr) -> Outcome<OwnedFd> {
    let mut pending = PathBuffer::new();
    pending.push(path.to_bytes())?;
    let mut links = 0;
    'restart: loop {
        let mut so_far = PathBuffer::new();
        let mut dir =
            open_in(root, c".", libc::O_PATH | libc::O_DIRECTORY).map_err(at("openat2"))?;
        let mut from = 0;
        while from < pending.len {
            let rest = pending.bytes.get(from..pending.len).unwrap_or_default();
            let end = rest.iter().position(|b| *b == b'/').unwrap_or(rest.len());
            let name = rest.get(..end).unwrap_or_default();
            from += end + 1;
            if name.is_empty() || name == b"." {
                continue;
            }
            let parent_len = so_far.len;
            so_far.push(b"/")?;
            so_far.push(name)?;
            match open_in(root, so_far.as_c_str(), libc::O_PATH | libc::O_DIRECTORY) {
                Ok(next) => dir = next,
                Err(Errno::ENOENT) => {
                    let mut single = PathBuffer::new();
                    single.push(name)?;
                    match m::mkdirat(dir.as_fd(), single.as_c_str(), 0o755) {
                        Ok(()) => {
                            dir =
                                open_in(root, so_far.as_c_str(), libc::O_PATH | libc::O_DIRECTORY)
                                    .map_err(at("openat2"))?;
                        }
                        Err(Errno::EEXIST) => {
                            // A link to nowhere: put its target in the name's place and begin again.
                            links += 1;
                            if links > MAX_LINKS {
                                return Err(Failure("resolve links", Errno::ELOOP));
                            }
                            let mut target = [0u8; PATH_MAX];
                            let n = m::readlinkat(dir.as_fd(), single.as_c_str(), &mut target)
                                .map_err(at("readlink"))?;
                            let target = target.get(..n).unwrap_or_default();
                            let mut again = PathBuffer::new();
                            if target.first() != Some(&b'/') {
                                so_far.truncate(parent_len);
                                again.push(so_far.as_c_str().to_bytes())?;
                                again.push(b"/")?;
                            }
                            again.push(target)?;
                            again.push(b"/")?;
                            again.push(
                                pending
                                    .bytes
                                    .get(from.min(pending.len)..pending.len)
                                    .unwrap_or_default(),
                            )?;
                            pending = again;
                            continue 'restart;
                        }
                        Err(e) => return Err(Failure("mkdir", e)),
                    }
                }
                Err(e) => return Err(Failure("openat2", e)),
            }
        }
        return Ok(dir);
    }
}

/// The directory that holds `path`, made if need be, and the last component.
pub(super) fn parent_of<'p>(root: BorrowedFd<'_>, path: &'p CStr) -> Outcome<(OwnedFd, &'p CStr)> {
    let bytes = path.to_bytes_with_nul();
    let Some(slash) = bytes.iter().rposition(|b| *b == b'/') else {
        return Ok((
            open_in(root, c".", libc::O_PATH | libc::O_DIRECTORY).map_err(at("openat2"))?,
            path,
        ));
    };
    let mut parent = PathBuffer::new();
    parent.push(bytes.get(..slash).unwrap_or_default())?;
    let name = CStr::from_bytes_until_nul(bytes.get(slash + 1..).unwrap_or(b"\0")).unwrap_or(c"");
    Ok((make_directories(root, parent.as_c_str())?, name))
}

/// Opens a mount's target below the root, making it (a directory, or an empty file) if it is missing.
pub(super) fn open_target(
    root: BorrowedFd<'_>,
    path: &CStr,
    directory: bool,
    no_symlinks: bool,
) -> Outcome<OwnedFd> {
    let rules =
        RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS | if no_symlinks { RESOLVE_NO_SYMLINKS } else { 0 };
    match m::openat2(root.as_fd(), path, libc::O_PATH, 0, rules) {
        Ok(fd) => return Ok(fd),
        Err(Errno::ENOENT) => {}
        Err(Errno::ELOOP) if no_symlinks => {
            return Err(Failure(
                "it must be mounted on ordinary directory, not on a link of the image",
                Errno::ELOOP,
            ));
        }
        Err(e) => return Err(Failure("openat2", e)),
    }
    if directory {
        return make_directories(root, path);
    }
    make_file(root, path)?;
    m::openat2(root.as_fd(), path, libc::O_PATH, 0, rules).map_err(at("openat2"))
}

/// Makes an empty file, at the end of the links that are there: an image's may lead to what it lacks.
fn make_file(root: BorrowedFd<'_>, path: &CStr) -> Outcome<()> {
    let mut pending = PathBuffer::new();
    pending.push(path.to_bytes())?;
    for _ in 0..MAX_LINKS {
        let (parent, name) = parent_of(root, pending.as_c_str())?;
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
        match m::openat2(parent.as_fd(), name, flags, 0o644, RESOLVE_NO_SYMLINKS) {
            Ok(_) => return Ok(()),
            Err(Errno::EEXIST) => {}
            Err(e) => return Err(Failure("create file", e)),
        }
        let mut target = [0u8; PATH_MAX];
        let target = match m::readlinkat(parent.as_fd(), name, &mut target) {
            Ok(n) => target.get(..n).unwrap_or_default(),
            // Something else is there by now.
            Err(_) => return Ok(()),
        };
        let bytes = pending.as_c_str().to_bytes();
        let slash = bytes.iter().rposition(|b| *b == b'/').map_or(0, |s| s + 1);
        pending.truncate(if target.first() == Some(&b'/') {
            0
        } else {
            slash
        });
        pending.push(target)?;
    }
    Err(Failure("resolve links", Errno::ELOOP))
}
