//! Namespaces that are entered on the way, and writes into `/proc` that belong to them.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;

use super::super::wire::Message;
use super::talk::hand;
use super::{Failure, Outcome, at};
use crate::sys::mount::{self as m, CWD};
use crate::sys::{creds, process};

const TIME_NAMESPACE: i32 = 0x80; // CLONE_NEWTIME, Linux 5.6

/// A time namespace for the next process, with the clocks' offsets.
pub(super) fn new_time_namespace(offsets: &[u8]) -> Outcome<()> {
    process::unshare(TIME_NAMESPACE).map_err(at("unshare"))?;
    if offsets.is_empty() {
        return Ok(());
    }
    write_proc(c"/proc/self/timens_offsets", offsets)
}

/// The root of the user namespace, with no group of the node's.
pub(super) fn become_root() -> Outcome<()> {
    creds::setgroups(&[]).map_err(at("setgroups"))?;
    creds::setresgid(0).map_err(at("setresgid"))?;
    creds::setresuid(0).map_err(at("setresuid"))
}

/// Goes on as a sibling: the parent's child, as we are. Our own end follows at once.
pub(super) fn continue_as_sibling(control: BorrowedFd<'_>, namespaces: u64) -> Outcome<()> {
    // SAFETY: this is a fork of a child that has one thread, and what follows is the same careful code.
    #[allow(unsafe_code)]
    match unsafe { process::clone3_sibling(namespaces) }.map_err(at("clone3"))? {
        // Told by the new process itself, or what it says next could be heard first.
        process::Cloned::Child => {
            let own = process::pidfd_open(process::own_pid()).map_err(at("pidfd_open"))?;
            hand(control, Message::Sibling, own.as_fd())
        }
        process::Cloned::Parent => process::exit_now(0),
    }
}

pub(super) fn write_proc(path: &CStr, value: &[u8]) -> Outcome<()> {
    let file = m::openat(CWD, path, libc::O_WRONLY, 0).map_err(at("open"))?;
    if m::fs_magic(file.as_fd()).map_err(at("fstatfs"))? != m::magic::PROC {
        return Err(Failure("the file is not on a procfs", Errno::EPERM));
    }
    process::write_all(file.as_fd(), value).map_err(at("write"))
}
