//! Being told that memory ran out, without inotify: hosts have 128 instances of it for everybody.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::sys;

/// A descriptor to poll. On v2 it is `memory.events` itself, which signals a change as a priority event; on v1 it is an
/// eventfd registered for `memory.oom_control`, which becomes readable.
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    v2: bool,
}

impl OomWatch {
    pub(super) fn new(dir: &Path, v2: bool) -> io::Result<Self> {
        if v2 {
            let fd = fs::File::open(dir.join("memory.events"))?;
            // The first read arms the notification.
            sys::process::read(fd.as_fd(), &mut [0; 512])?;
            return Ok(Self { fd: fd.into(), v2 });
        }
        let event = sys::process::eventfd()?;
        let control = fs::File::open(dir.join("memory.oom_control"))?;
        fs::write(
            dir.join("cgroup.event_control"),
            format!("{} {}", event.as_raw_fd(), control.as_raw_fd()),
        )?;
        Ok(Self { fd: event, v2 })
    }

    /// Whether to wait for a priority event instead of readability.
    pub fn is_priority(&self) -> bool {
        self.v2
    }

    /// Takes the notification, so that the next one can come.
    pub fn clear(&self) {
        use nix::sys::uio::pread;
        if self.v2 {
            pread(self.fd.as_fd(), &mut [0; 512], 0).ok();
        } else {
            sys::process::read(self.fd.as_fd(), &mut [0; 8]).ok();
        }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for OomWatch {
    fn as_raw_fd(&self) -> std::os::fd::RawFd {
        self.fd.as_raw_fd()
    }
}
