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

/// Goes on as a sibling: the parent's child, as we are. The old process tells the parent, and ends; the new one waits for that, or what it
/// says next could be heard first. So the parent knows it even if it is stopped at once, by who is in its pid namespace already.
pub(super) fn continue_as_sibling(control: BorrowedFd<'_>, namespaces: u64) -> Outcome<()> {
    let (ended, held) = process::pipe().map_err(at("pipe"))?;
    // SAFETY: this is a fork of a child that has one thread, and what follows is the same careful code.
    #[allow(unsafe_code)]
    match unsafe { process::clone3_sibling(namespaces) }.map_err(at("clone3"))? {
        process::Cloned::Child => {
            drop(held);
            process::wait_for_end(ended.as_fd()).map_err(at("read"))
        }
        process::Cloned::Parent(pid, pidfd) => {
            if hand(control, Message::Sibling(pid), pidfd.as_fd()).is_err() {
                process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
                process::exit_now(1);
            }
            process::exit_now(0)
        }
    }
}

pub(super) fn write_proc(path: &CStr, value: &[u8]) -> Outcome<()> {
    let file = m::openat(CWD, path, libc::O_WRONLY, 0).map_err(at("open"))?;
    if m::fs_magic(file.as_fd()).map_err(at("fstatfs"))? != m::magic::PROC {
        return Err(Failure("the file is not on a procfs", Errno::EPERM));
    }
    process::write_all(file.as_fd(), value).map_err(at("write"))
}
