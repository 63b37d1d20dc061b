//! containerd's fifos, held so that neither side's absence breaks the other.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::sys;

/// An output fifo. Our read end keeps the kernel's buffer alive, so that a writer never gets SIGPIPE, and nothing that was
/// written is lost, when containerd goes away and comes back.
#[derive(Debug)]
pub(super) struct Fifo {
    reader: OwnedFd,
}

/// Bytes that a fifo holds. With the kernel's 65,536 a container and its reader take turns on the processors for every one of
/// its writes: output is two to three times as fast with this. Memory is taken, from the container's, for what is not read.
const CAPACITY: libc::c_int = 256 * 1024;

impl Fifo {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let reader = open_reader(path)?;
        // A node may not allow it (/proc/sys/fs/pipe-max-size): then it is as large as it is.
        fcntl(&reader, FcntlArg::F_SETPIPE_SZ(CAPACITY)).ok();
        Ok(Self { reader })
    }

    /// A blocking write end. Opening does not block: we are a reader ourselves.
    pub(crate) fn writer(&self) -> io::Result<OwnedFd> {
        open_writer(&self.reader, 0)
    }

    /// A non-blocking write end.
    pub(crate) fn non_blocking_writer(&self) -> io::Result<OwnedFd> {
        open_writer(&self.reader, libc::O_NONBLOCK)
    }

    /// Bytes that nobody has read yet.
    pub(crate) fn waiting(&self) -> usize {
        sys::process::bytes_waiting(self.reader.as_fd()).unwrap_or(0)
    }
}

/// The process's end of an input fifo, and our write end that keeps it from seeing an end of input too early.
pub(super) fn open_input(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let reader = open_reader(path)?;
    let writer = open_writer(&reader, libc::O_NONBLOCK)?;
    fcntl(&reader, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok((reader, writer))
}

/// A read end, of a fifo and of nothing else: between a look at the path and this another file may have come there.
fn open_reader(path: &Path) -> io::Result<OwnedFd> {
    // Without O_NONBLOCK this would wait for a writer.
    let file = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(path)?;
    if !file.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("is not a fifo any more"));
    }
    // By /proc/PID/fd it would be any pipe between processes of the node.
    match sys::mount::fs_magic(file.as_fd()) {
        Ok(sys::mount::magic::PIPEFS) => Err(io::Error::other(
            "is a pipe without a name, of other processes",
        )),
        Ok(_) => Ok(file.into()),
        Err(e) => Err(e.into()),
    }
}

/// A write end of the fifo that was opened, whatever its path leads to by now.
fn open_writer(reader: &OwnedFd, flags: i32) -> io::Result<OwnedFd> {
    let file = fs::OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(format!("/proc/self/fd/{}", reader.as_raw_fd()))?;
    Ok(file.into())
}

/// A pipe.
pub(super) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}
