//! The directories of groups: made, marked, listed and removed.

use std::ffi::CString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::io_error;
use super::{CONTAINER, Hierarchy, MADE_BY_US, Result};
use crate::sys;

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// Makes `dir` and what is missing above it. Returns whether the last one was new.
pub(super) fn make_group(h: &Hierarchy, dir: &Path, leaf: bool) -> Result<bool> {
    for _ in 0..16 {
        match fs::create_dir(dir) {
            Ok(()) => {
                let mark = if leaf { CONTAINER } else { MADE_BY_US };
                c_path(dir).map(|p| sys::setxattr(&p, mark, b"1"));
                return Ok(true);
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            // A sibling process may remove the parent between the two calls: go round again.
            Err(e) if e.kind() == ErrorKind::NotFound && dir != h.mount => {
                if let Some(parent) = dir.parent() {
                    make_group(h, parent, false)?;
                }
            }
            Err(e) => return Err(io_error("create cgroup", dir)(e)),
        }
    }
    Err(io_error("create cgroup", dir)(ErrorKind::NotFound.into()))
}

pub(super) fn has_mark(dir: &Path, mark: &std::ffi::CStr) -> bool {
    c_path(dir).is_some_and(|p| sys::has_xattr(&p, mark))
}

pub(super) fn child_groups(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if is_gone(&e) => return Ok(Vec::new()),
        entries => entries.map_err(io_error("read", dir))?,
    };
    let is_dir = |e: &fs::DirEntry| e.file_type().is_ok_and(|t| t.is_dir());
    let groups = entries.flatten().filter(is_dir);
    Ok(groups.map(|e| e.path()).collect())
}

/// Whether a group was removed: before its file was opened, or after.
pub(super) fn is_gone(e: &io::Error) -> bool {
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ENODEV)
}

pub(super) fn remove_tree(dir: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        match fs::remove_dir(dir) {
            Ok(()) => return Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
            Err(e)
                if e.raw_os_error() == Some(libc::EBUSY)
                    || e.kind() == ErrorKind::DirectoryNotEmpty =>
            {
                for child in child_groups(dir)? {
                    remove_tree(&child, deadline)?;
                }
                if Instant::now() >= deadline {
                    // One last try: the children may have been all that was in the way.
                    return fs::remove_dir(dir).map_err(io_error("remove cgroup", dir));
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(10));
            }
            Err(e) => return Err(io_error("remove cgroup", dir)(e)),
        }
    }
}
