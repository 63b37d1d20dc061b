//! Answering for system calls of others: `seccomp_unotify(2)`.

use std::os::fd::{AsRawFd, BorrowedFd};

use super::{Result, check};

/// `struct seccomp_notif`: a call that waits for its answer.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Notification {
    /// Names it, for as long as it waits.
    pub id: u64,
    /// The calling thread, in our pid namespace; 0 where it cannot be seen there.
    pub pid: u32,
    flags: u32,
    /// The call's number.
    pub number: i32,
    /// `AUDIT_ARCH_*`
    pub arch: u32,
    /// The instruction after the call.
    pub instruction: u64,
    /// Its arguments.
    pub args: [u64; 6],
}

#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

// _IOWR('!', 0, struct seccomp_notif) and so on, linux/seccomp.h
const RECV: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const ID_VALID: libc::c_ulong = 0x4008_2102;

/// Takes the next call. `ENOENT` where its process was killed meanwhile.
pub fn receive(listener: BorrowedFd<'_>) -> Result<Notification> {
    let mut notification = Notification::default();
    // SAFETY: the kernel fills in a structure of this size, which must be zero before.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), RECV, &raw mut notification)
    }))?;
    Ok(notification)
}

/// Whether the call still waits: what was read of its process before is that process's.
pub fn is_waiting(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one number.
    unsafe { libc::ioctl(listener.as_raw_fd(), ID_VALID, &raw const id) == 0 }
}

fn respond(listener: BorrowedFd<'_>, response: &Response) -> Result<()> {
    // SAFETY: the kernel reads a structure of this size.
    check(libc::c_long::from(unsafe {
        libc::ioctl(listener.as_raw_fd(), SEND, std::ptr::from_ref(response))
    }))?;
    Ok(())
}

/// The call fails with this error number.
pub fn deny(listener: BorrowedFd<'_>, id: u64, errno: i32) -> Result<()> {
    let response = Response {
        id,
        value: 0,
        error: -errno,
        flags: 0,
    };
    respond(listener, &response)
}

/// The kernel executes the call: `SECCOMP_USER_NOTIF_FLAG_CONTINUE`, Linux 5.5. Never for a call that is to be denied: its
/// arguments in memory may be others by then.
pub fn let_through(listener: BorrowedFd<'_>, id: u64) -> Result<()> {
    const CONTINUE: u32 = 1;
    let response = Response {
        id,
        value: 0,
        error: 0,
        flags: CONTINUE,
    };
    respond(listener, &response)
}

/// What a listener has for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// A call waits.
    Call,
    /// Nothing, within the time.
    Nothing,
    /// Every process with the filter is gone.
    Gone,
}

/// Waits for a call, at most this many milliseconds.
pub fn wait(listener: BorrowedFd<'_>, milliseconds: i32) -> Readiness {
    let mut poll = libc::pollfd {
        fd: listener.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one structure, which the kernel fills in.
    let count = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
    if count > 0 && poll.revents & libc::POLLIN != 0 {
        Readiness::Call
    } else if count > 0 {
        Readiness::Gone
    } else {
        Readiness::Nothing
    }
}

/// Up to `buffer.len()` bytes of another process's memory: how many there were, which may be fewer. `process_vm_readv(2)`
pub fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> Result<usize> {
    let local = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // Not beyond the page: the next one need not be there.
    let in_page = 4096 - (address as usize & 4095);
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: buffer.len().min(in_page),
    };
    // Whole registers: the kernel takes these as long, and of a shorter argument the upper half is anything.
    let (one, no_flags): (libc::c_ulong, libc::c_ulong) = (1, 0);
    // SAFETY: `local` is writable for its length; the remote address is the kernel's to check.
    let count = check(unsafe {
        libc::syscall(
            libc::SYS_process_vm_readv,
            libc::c_long::from(pid),
            &raw const local,
            one,
            &raw const remote,
            one,
            no_flags,
        )
    })?;
    Ok(count as usize)
}
