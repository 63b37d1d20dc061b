//! The directories of groups: made, marked, listed and removed.

use std::ffi::{CStr, CString};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::io_error;
use super::{Hierarchy, Result};
use crate::sys;

fn c_path(path: &Path) -> Option<CString> {
    CString::new(path.as_os_str().as_bytes()).ok()
}

/// What a directory is to us, kept in an extended attribute that only the node's root sees.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark<'a> {
    /// It was made on the way to a container's group. Whichever of our shims leaves last may remove it, and nobody ever removes the
    /// kubelet's.
    Above,
    /// The group of the container with this id.
    Container(&'a str),
}

impl Mark<'_> {
    const ABOVE: &'static CStr = c"trusted.cofferdam";
    const CONTAINER: &'static CStr = c"trusted.cofferdam.container";

    /// Best effort: who may not set it cleans up by the record alone.
    pub(crate) fn set(self, dir: &Path) {
        let (name, value) = match self {
            Self::Above => (Self::ABOVE, "1"),
            Self::Container(id) => (Self::CONTAINER, id),
        };
        c_path(dir).map(|p| sys::setxattr(&p, name, value.as_bytes()));
    }

    /// Whether we made it on the way to a container's group.
    pub(crate) fn is_above(dir: &Path) -> bool {
        c_path(dir).is_some_and(|p| sys::xattr(&p, Self::ABOVE).is_some())
    }

    /// Of which container it is the group.
    pub(crate) fn container(dir: &Path) -> Option<String> {
        let value = sys::xattr(&c_path(dir)?, Self::CONTAINER)?;
        Some(String::from_utf8_lossy(&value).into_owned())
    }
}

/// Makes `dir` and what is missing above it, with marks. Returns whether the last one was new.
pub(super) fn make_group(h: &Hierarchy, dir: &Path, mark: Mark<'_>) -> Result<bool> {
    for _ in 0..16 {
        match fs::create_dir(dir) {
            Ok(()) => {
                mark.set(dir);
                return Ok(true);
            }
            Err(e) if e.kind() == ErrorKind::AlreadyExists => return Ok(false),
            // A sibling process may remove the parent between the two calls: go round again.
            Err(e) if e.kind() == ErrorKind::NotFound && dir != h.mount => {
                if let Some(parent) = dir.parent() {
                    make_group(h, parent, Mark::Above)?;
                }
            }
            Err(e) => return Err(io_error("create cgroup", dir)(e)),
        }
    }
    Err(io_error("create cgroup", dir)(ErrorKind::NotFound.into()))
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
