//! Making processes, and executing programs: `clone3(2)`, `execve(2)`.

use std::convert::Infallible;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use nix::errno::Errno;

use super::{Child, Making};
use crate::sys::{Result, check};

#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Which side of [`clone3_sibling`] this is.
pub enum Cloned {
    /// The caller, with the pid and a pidfd of the new process.
    Parent(i32, OwnedFd),
    /// The new process.
    Child,
}

/// `clone3(2)` as a fork: a copied address space and `SIGCHLD` at exit. The child runs `in_child` and nothing else of the caller's.
/// With `cgroup` the child is born in that cgroup v2 directory (`CLONE_INTO_CGROUP`, Linux 5.7).
///
/// # Safety
/// The caller may have threads, so `in_child` must stick to async-signal-safe code until it executes or exits: no allocation, no
/// lock, no panic. A lock that another thread holds at this moment stays held in the child for ever.
pub unsafe fn clone3(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    in_child: impl FnOnce() -> Infallible,
) -> Result<Child> {
    let making = Making::begin();
    let mut args = CloneArgs {
        flags: namespaces | 0x1_0000_0000, // CLONE_CLEAR_SIGHAND, Linux 5.5
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(cgroup) = cgroup {
        args.flags |= 0x2_0000_0000; // CLONE_INTO_CGROUP
        args.cgroup = cgroup.as_raw_fd() as u64;
    }
    // SAFETY: the caller's promise.
    if let Some((pid, pidfd)) = unsafe { clone_with(args) }? {
        return Ok(making.own(pid, pidfd));
    }
    super::set_name(super::CHILD_NAME).ok();
    #[expect(unreachable_code, reason = "the child does not come back")]
    match in_child() {}
}

/// The same for a sibling: the new process is a child of the caller's parent, with the caller's own exit signal.
///
/// # Safety
/// The caller has one thread.
pub unsafe fn clone3_sibling(namespaces: u64) -> Result<Cloned> {
    let args = CloneArgs {
        flags: namespaces | libc::CLONE_PARENT as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the caller's promise.
    let side = unsafe { clone_with(args) }?;
    Ok(side.map_or(Cloned::Child, |(pid, pidfd)| Cloned::Parent(pid, pidfd)))
}

/// The child's pid and pidfd; `None` in the child.
///
/// # Safety
/// As for [`clone3`], until the child executes or exits.
unsafe fn clone_with(mut args: CloneArgs) -> Result<Option<(i32, OwnedFd)>> {
    let mut pidfd: RawFd = -1;
    args.flags |= libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // SAFETY: `args` is a valid clone_args; without CLONE_VM the child gets its own copy of the stack.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(None);
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor there.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Some((pid as i32, pidfd)))
}

/// A process that does nothing, until it is dropped or its parent's thread ends.
#[derive(Debug)]
pub struct Sleeper(Child);

impl Sleeper {
    /// Makes it.
    pub fn new() -> Result<Self> {
        let sleep = || -> Infallible {
            loop {
                // SAFETY: plain numbers.
                unsafe {
                    libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            }
        };
        // SAFETY: the child makes system calls only.
        unsafe { clone3(0, None, sleep) }.map(Self)
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.0.pid()
    }
}

/// Ends the calling process at once, without running destructors or exit handlers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` never returns and accesses no memory of this process.
    unsafe { libc::_exit(status) }
}

/// `execve(2)` with prepared vectors. Returns only on failure.
pub fn execve(path: &CStr, argv: &CStrVec, envp: &CStrVec) -> Errno {
    // SAFETY: both vectors are null-terminated arrays of NUL-terminated strings, by construction of `CStrVec`.
    unsafe { libc::execve(path.as_ptr(), argv.ptrs.as_ptr(), envp.ptrs.as_ptr()) };
    Errno::last()
}

/// A null-terminated vector of C strings, ready for `execve(2)`.
pub struct CStrVec {
    strings: Vec<std::ffi::CString>,
    buffer: Option<Vec<u8>>,
    ptrs: Vec<*const libc::c_char>,
}

// SAFETY: the pointers refer to the heap buffers of `strings` and `buffer`, which stay where they are when the value moves.
unsafe impl Send for CStrVec {}

// SAFETY: as above; shared access only reads.
unsafe impl Sync for CStrVec {}

impl CStrVec {
    /// Takes ownership of the strings.
    pub fn new(strings: Vec<std::ffi::CString>) -> Self {
        let mut ptrs: Vec<_> = strings.iter().map(|s| s.as_ptr()).collect();
        ptrs.push(ptr::null());
        Self {
            strings,
            buffer: None,
            ptrs,
        }
    }

    /// The same with one more string at the end, to be filled in later through [`CStrVec::buffer_mut`]: `start`, with
    /// room for `room` more bytes.
    pub fn with_buffer(strings: Vec<std::ffi::CString>, start: &[u8], room: usize) -> Self {
        let mut this = Self::new(strings);
        let mut buffer = start.to_vec();
        buffer.resize(start.len() + room + 1, 0);
        this.ptrs.insert(this.strings.len(), buffer.as_ptr().cast());
        this.buffer = Some(buffer);
        this
    }

    /// The bytes of the last string; the final one always stays NUL.
    pub fn buffer_mut(&mut self) -> Option<&mut [u8]> {
        self.buffer
            .as_mut()
            .and_then(|b| b.split_last_mut())
            .map(|(_, rest)| rest)
    }

    /// The strings themselves, without the buffer.
    pub fn strings(&self) -> &[std::ffi::CString] {
        &self.strings
    }
}

/// How a forked process goes on.
pub enum Forked {
    /// In the new process.
    Child,
    /// In the old one, with the new one's pid.
    Parent(i32),
}

/// A plain fork by `clone(2)`, which filters allow that know no `clone3`.
///
/// # Safety
/// The child shares nothing, but locks that other threads hold stay locked: it may only make async-signal-safe calls.
pub unsafe fn fork() -> Result<Forked> {
    // SAFETY: no stack and no other pointers are passed: the child continues with a copy of this stack.
    match check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}
