//! Processes: `clone3(2)`, pidfds, `execve(2)`, namespaces, and what a child does to itself before it executes.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use super::{Result, check};
use nix::errno::Errno;

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

/// Which side of [`clone3`] this is.
pub enum Cloned {
    /// In the parent: the child's pid and a pidfd.
    Parent(i32, OwnedFd),
    /// In the child.
    Child,
}

/// `clone3(2)` as a fork: a copied address space, `SIGCHLD` at exit, and a pidfd.
/// With `cgroup` the child is born in that cgroup v2 directory (`CLONE_INTO_CGROUP`, Linux 5.7).
///
/// # Safety
/// The caller may have threads, so the child must stick to async-signal-safe code until it executes or exits:
/// no allocation, no lock, no panic.
pub unsafe fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned> {
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
    unsafe { clone_with(args) }
}

/// The same for a sibling: the new process is a child of the caller's parent, with the caller's own exit signal.
///
/// # Safety
/// As for [`clone3`].
pub unsafe fn clone3_sibling(namespaces: u64) -> Result<Cloned> {
    let args = CloneArgs {
        flags: namespaces | libc::CLONE_PARENT as u64,
        ..CloneArgs::default()
    };
    // SAFETY: the caller's promise.
    unsafe { clone_with(args) }
}

/// # Safety
/// As for [`clone3`].
unsafe fn clone_with(mut args: CloneArgs) -> Result<Cloned> {
    let mut pidfd: RawFd = -1;
    args.flags |= libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    // SAFETY: `args` is a valid clone_args; without CLONE_VM the child gets its own copy of the stack.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<CloneArgs>()) })?;
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    // SAFETY: CLONE_PIDFD stored a new descriptor there.
    Ok(Cloned::Parent(pid as i32, unsafe {
        OwnedFd::from_raw_fd(pidfd)
    }))
}

/// A process that does nothing, until it is dropped or its parent's thread ends.
#[derive(Debug)]
pub struct Sleeper {
    pid: i32,
    pidfd: OwnedFd,
}

impl Sleeper {
    /// Makes it.
    pub fn new() -> Result<Self> {
        // SAFETY: the child makes system calls only.
        match unsafe { clone3(0, None) }? {
            Cloned::Parent(pid, pidfd) => Ok(Self { pid, pidfd }),
            Cloned::Child => loop {
                // SAFETY: plain numbers.
                unsafe {
                    libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                    libc::syscall(libc::SYS_ppoll, 0, 0, 0, 0, 0);
                }
            },
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        pidfd_send_signal(self.pidfd.as_fd(), libc::SIGKILL).ok();
        // Somebody who waits for all children may have been quicker.
        wait_pidfd(self.pidfd.as_fd(), true).ok();
    }
}

/// Ends the calling process at once, without running destructors or exit handlers.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: `_exit` never returns and touches no memory of ours.
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

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitStatus {
    /// Exit code, or 128 plus the signal number.
    pub code: u32,
}

/// Reaps the process behind `pidfd`. `None` while it still runs and `block` is false. Linux 5.4 `P_PIDFD`.
pub fn wait_pidfd(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<WaitStatus>> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        let flags = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
        // SAFETY: `info` is writable and large enough.
        let ret = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                info.as_mut_ptr(),
                flags,
            )
        };
        match check(libc::c_long::from(ret)) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(_) => {
                // SAFETY: zeroed and then filled in by a successful waitid.
                let info = unsafe { info.assume_init() };
                // SAFETY: for WEXITED these union members are the ones that waitid sets.
                let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
                if pid == 0 {
                    return Ok(None);
                }
                let code = if info.si_code == libc::CLD_EXITED {
                    status as u32
                } else {
                    128 + status as u32
                };
                return Ok(Some(WaitStatus { code }));
            }
        }
    }
}

/// Reaps the child `pid` if it has ended; for orphans that were given to us.
pub fn reap_if_dead(pid: i32) -> bool {
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) == pid }
}

/// The caller's pid in its own pid namespace, asked of the kernel.
pub fn own_pid() -> i32 {
    // SAFETY: takes nothing and cannot fail.
    unsafe { libc::getpid() }
}

/// The name of this process's first thread, `/proc/PID/comm`.
pub fn name() -> String {
    let name = crate::procfs::read("/proc/self/comm").unwrap_or_default();
    name.trim_end_matches('\n').to_owned()
}

/// Opens a pidfd. Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends `signal` to the process behind `pidfd`. Linux 5.1.
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    // SAFETY: a null siginfo means the same as kill(2).
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<u8>(),
            0,
        )
    })?;
    Ok(())
}

/// `kill(2)`.
pub fn kill(pid: i32, signal: i32) -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe { libc::kill(pid, signal) }))?;
    Ok(())
}

/// A copy of another process's descriptor: `pidfd_getfd(2)`, Linux 5.6.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// `setns(2)` with a namespace descriptor or (Linux 5.8) a pidfd.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::setns(fd.as_raw_fd(), flags)
    }))?;
    Ok(())
}

/// `unshare(2)`.
pub fn unshare(flags: i32) -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe { libc::unshare(flags) }))?;
    Ok(())
}

/// Marks every descriptor from `first` upwards close-on-exec. Linux 5.11; walks the numbers on older kernels.
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: plain numbers.
    match check(unsafe {
        libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC)
    }) {
        Ok(_) => Ok(()),
        Err(Errno::ENOSYS | Errno::EINVAL) => {
            for fd in first..65536 {
                // SAFETY: fcntl on an unused number fails harmlessly.
                unsafe { libc::fcntl(fd as i32, libc::F_SETFD, libc::FD_CLOEXEC) };
            }
            Ok(())
        }
        Err(e) => Err(e),
    }
}

/// A standard stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standard {
    /// Descriptor 0.
    Input,
    /// Descriptor 1.
    Output,
    /// Descriptor 2.
    Error,
}

impl Standard {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Input, Self::Output, Self::Error];
}

/// `fd` becomes a standard stream of this process, and of the program that it executes: `dup3(2)` without close-on-exec. Nobody
/// owns the numbers 0 to 2, so nothing is taken away from anybody.
pub fn become_standard(fd: BorrowedFd<'_>, stream: Standard) -> Result<()> {
    let number = stream as RawFd;
    if fd.as_raw_fd() == number {
        // SAFETY: plain numbers.
        check(libc::c_long::from(unsafe {
            libc::fcntl(number, libc::F_SETFD, 0)
        }))?;
        return Ok(());
    }
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::dup3(fd.as_raw_fd(), number, 0)
    }))?;
    Ok(())
}

/// Empties the signal mask and gives SIGPIPE, which Rust ignores, its default action back.
pub fn reset_signals() {
    // SAFETY: a zeroed sigset_t is the empty set, and both calls only read their arguments.
    unsafe {
        let set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// `write(2)` of the whole buffer or an error.
pub fn write_all(fd: BorrowedFd<'_>, mut buf: &[u8]) -> Result<()> {
    while !buf.is_empty() {
        // SAFETY: `buf` is readable for its length.
        let written = unsafe { libc::write(fd.as_raw_fd(), buf.as_ptr().cast(), buf.len()) };
        match check(written as libc::c_long) {
            Ok(n) => buf = buf.get(n as usize..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// `read(2)`, retried on EINTR.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    loop {
        // SAFETY: `buf` is writable for its length.
        let got = unsafe { libc::read(fd.as_raw_fd(), buf.as_mut_ptr().cast(), buf.len()) };
        match check(got as libc::c_long) {
            Ok(n) => return Ok(n as usize),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// `setsid(2)`.
pub fn setsid() -> Result<()> {
    // SAFETY: no arguments.
    check(libc::c_long::from(unsafe { libc::setsid() }))?;
    Ok(())
}

/// `chdir(2)`.
pub fn chdir(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated.
    check(libc::c_long::from(unsafe { libc::chdir(path.as_ptr()) }))?;
    Ok(())
}

/// `chroot(2)`.
pub fn chroot(path: &CStr) -> Result<()> {
    // SAFETY: `path` is NUL-terminated.
    check(libc::c_long::from(unsafe { libc::chroot(path.as_ptr()) }))?;
    Ok(())
}

/// `fchdir(2)`.
pub fn fchdir(fd: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: plain number.
    check(libc::c_long::from(unsafe { libc::fchdir(fd.as_raw_fd()) }))?;
    Ok(())
}

/// Whether the working directory lies under the root: the kernel prefixes "(unreachable)" where it does not.
pub fn cwd_is_reachable() -> Result<bool> {
    let mut buf = [0u8; 4096];
    // SAFETY: `buf` is writable for its length.
    check(unsafe { libc::syscall(libc::SYS_getcwd, buf.as_mut_ptr(), buf.len()) })?;
    Ok(buf[0] == b'/')
}

/// `sethostname(2)`.
pub fn sethostname(name: &[u8]) -> Result<()> {
    // SAFETY: `name` is readable for its length.
    check(libc::c_long::from(unsafe {
        libc::sethostname(name.as_ptr().cast(), name.len())
    }))?;
    Ok(())
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &[u8]) -> Result<()> {
    // SAFETY: `name` is readable for its length.
    check(libc::c_long::from(unsafe {
        libc::setdomainname(name.as_ptr().cast(), name.len())
    }))?;
    Ok(())
}

/// `setrlimit(2)` on the caller, by the kernel's resource number.
pub fn setrlimit(resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 {
        rlim_cur: soft,
        rlim_max: hard,
    };
    // SAFETY: `limit` is readable; a null old limit is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_prlimit64,
            0,
            resource,
            &raw const limit,
            ptr::null::<u8>(),
        )
    })?;
    Ok(())
}

/// `umask(2)`.
pub fn umask(mask: u32) {
    // SAFETY: cannot fail.
    unsafe { libc::umask(mask) };
}

/// Whether the effective user may do `mode` to `path`. Linux 5.8 `faccessat2(2)`; plain `access(2)` before.
pub fn access(path: &CStr, mode: i32) -> Result<()> {
    // SAFETY: `path` is NUL-terminated.
    match check(unsafe {
        libc::syscall(
            libc::SYS_faccessat2,
            libc::AT_FDCWD,
            path.as_ptr(),
            mode,
            libc::AT_EACCESS,
        )
    }) {
        Err(Errno::ENOSYS) => {
            // SAFETY: as above.
            check(libc::c_long::from(unsafe {
                libc::access(path.as_ptr(), mode)
            }))?;
            Ok(())
        }
        r => r.map(|_| ()),
    }
}

/// Whether `path` is a directory.
pub fn is_dir(path: &CStr) -> bool {
    let mut st = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `path` is NUL-terminated and `st` is large enough; read only after success.
    unsafe {
        libc::stat(path.as_ptr(), st.as_mut_ptr()) == 0
            && st.assume_init().st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// Makes this process (and what it forks, until exec) unreadable through `/proc/PID` without `CAP_SYS_PTRACE`.
pub fn set_not_dumpable() -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0)
    }))?;
    Ok(())
}

/// Orphaned descendants become children of this process: `PR_SET_CHILD_SUBREAPER`.
pub fn set_child_subreaper() -> Result<()> {
    // SAFETY: plain numbers.
    check(libc::c_long::from(unsafe {
        libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    }))?;
    Ok(())
}

/// A close-on-exec eventfd.
pub fn eventfd() -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(libc::c_long::from(unsafe {
        libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK)
    }))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Takes over a descriptor that was inherited under a known number; `None` if there is none.
///
/// # Safety
/// Nobody else in this process may own the descriptor.
pub unsafe fn inherited_fd(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: F_GETFD on an unused number fails harmlessly.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return None;
    }
    // SAFETY: it is open, and the caller says that nobody else owns it.
    Some(unsafe { OwnedFd::from_raw_fd(number) })
}

/// The number of bytes that wait in a pipe or fifo: `FIONREAD`.
pub fn bytes_waiting(fd: BorrowedFd<'_>) -> Result<usize> {
    let mut n: libc::c_int = 0;
    // SAFETY: `n` is writable.
    check(libc::c_long::from(unsafe {
        libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut n)
    }))?;
    Ok(n as usize)
}

/// Moves up to `len` bytes from one pipe to another without copying them: `splice(2)`, non-blocking.
pub fn splice(from: BorrowedFd<'_>, to: BorrowedFd<'_>, len: usize) -> Result<usize> {
    // SAFETY: null offsets, as pipes require.
    let n = check(unsafe {
        libc::splice(
            from.as_raw_fd(),
            ptr::null_mut(),
            to.as_raw_fd(),
            ptr::null_mut(),
            len,
            libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE,
        )
    } as libc::c_long)?;
    Ok(n as usize)
}

/// Closes every descriptor from 3 upwards that is neither `control` nor in `keep`, which is sorted. Allocates nothing.
///
/// # Safety
/// The caller is a fresh child that uses no other descriptor, and never drops the owner of one.
pub unsafe fn close_all_but(control: RawFd, keep: &[RawFd]) {
    let mut first = 3;
    let mut control_left = true;
    let mut next = keep.iter().copied();
    let mut kept = next.next();
    loop {
        let fd = match (kept, control_left) {
            (Some(k), true) if control < k => {
                control_left = false;
                control
            }
            (Some(k), _) => {
                kept = next.next();
                k
            }
            (None, true) => {
                control_left = false;
                control
            }
            (None, false) => break,
        };
        close_range(first, fd - 1);
        first = fd + 1;
    }
    close_range(first, i32::MAX);
}

/// Closes the descriptors `first` to `last`, both included; nothing if the range is empty. Linux 5.9.
fn close_range(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    // SAFETY: the caller of `close_all_but` uses none of them.
    if unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } < 0 {
        for fd in first..last.min(65536) {
            // SAFETY: as above.
            unsafe { libc::close(fd) };
        }
    }
}

/// Where a program of the node's runs that belongs into a container's namespaces.
#[derive(Debug)]
pub struct Entry {
    /// A process that is in them. All are entered but that of pids, which would take effect for children only.
    pub pidfd: OwnedFd,
    /// The node's root in that mount namespace: the program, its loader and its libraries are found there, whatever has been
    /// mounted over `/` since.
    pub root: OwnedFd,
    /// Whether there is a user namespace; then the program runs as its root.
    pub mapped: bool,
}

impl Entry {
    /// Makes `command` enter before it executes.
    pub fn before_exec(self, command: &mut std::process::Command) {
        use std::os::unix::process::CommandExt;
        // SAFETY: the closure only makes system calls that are async-signal-safe, and allocates nothing.
        unsafe {
            command.pre_exec(move || {
                self.enter()
                    .map_err(|e| std::io::Error::from_raw_os_error(e as i32))
            });
        }
    }

    fn enter(&self) -> Result<()> {
        use std::os::fd::AsFd;
        let mut flags = libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP;
        if self.mapped {
            flags |= libc::CLONE_NEWUSER;
        }
        setns(self.pidfd.as_fd(), flags)?;
        fchdir(self.root.as_fd())?;
        chroot(c".")?;
        if self.mapped {
            super::creds::setgroups(&[])?;
            super::creds::setresgid(0)?;
            super::creds::setresuid(0)?;
        }
        Ok(())
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
    // SAFETY: no stack and no other pointers are passed: the child goes on with a copy of ours.
    match check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })? {
        0 => Ok(Forked::Child),
        pid => Ok(Forked::Parent(pid as i32)),
    }
}

/// The wait status of a child that has ended, `wait4(2)`. With `block`, waits for its end; otherwise `None` if it goes on.
pub fn wait_child(pid: i32, block: bool) -> Result<Option<i32>> {
    let mut status: libc::c_int = 0;
    let flags = if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: `status` is writable; no usage is asked for.
        let ret = check(unsafe {
            libc::syscall(
                libc::SYS_wait4,
                pid,
                &raw mut status,
                flags,
                ptr::null_mut::<u8>(),
            )
        });
        match ret {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(0) => return Ok(None),
            Ok(_) => return Ok(Some(status)),
        }
    }
}

/// Sleeps, `nanosleep(2)`; returns early where a signal comes.
pub fn pause_for(duration: std::time::Duration) {
    let time = libc::timespec {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_nsec: libc::c_long::from(duration.subsec_nanos()),
    };
    // SAFETY: `time` is readable; what is left is not asked for.
    unsafe { libc::nanosleep(&raw const time, ptr::null_mut()) };
}

/// Writes at an offset: `pwrite(2)`.
pub fn write_at(fd: BorrowedFd<'_>, bytes: &[u8], offset: usize) -> Result<()> {
    // SAFETY: `bytes` is readable for its length.
    check(unsafe {
        libc::pwrite(
            fd.as_raw_fd(),
            bytes.as_ptr().cast(),
            bytes.len(),
            offset as libc::off_t,
        ) as libc::c_long
    })?;
    Ok(())
}

/// Makes `fds` the descriptors `first`, `first + 1`, … of `command`. Our copies close with the command.
pub fn pass_descriptors(command: &mut std::process::Command, fds: Vec<OwnedFd>, first: RawFd) {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure only makes system calls that are async-signal-safe, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            let mut high: [RawFd; 8] = [-1; 8];
            for (fd, slot) in fds.iter().zip(high.iter_mut()) {
                // Out of the way first: a source may have the number of another one's target.
                *slot = libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64);
                if *slot < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for (slot, target) in high.iter().take(fds.len()).zip(first..) {
                // In the program to come nobody owns the number.
                if libc::dup3(*slot, target, 0) < 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
}

/// State letter and start time (clock ticks since boot) of a process: fields 3 and 22 of `/proc/PID/stat`, proc(5).
fn stat(pid: i32) -> Option<(char, u64)> {
    let stat = crate::procfs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name may contain anything, a closing parenthesis too; what follows the last one is numbers.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((
        fields.next()?.chars().next()?,
        fields.nth(18)?.parse().ok()?,
    ))
}

/// When a process was started, in clock ticks since boot: with the pid, who it is.
pub fn start_time(pid: i32) -> Option<u64> {
    stat(pid).map(|(_, time)| time)
}

/// Whether a process has ended and waits to be reaped.
pub fn is_zombie(pid: i32) -> bool {
    stat(pid).is_some_and(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// The user namespace that owns a namespace: `NS_GET_USERNS`, `ioctl_ns(2)`.
pub fn owner_of_namespace(ns: BorrowedFd<'_>) -> Result<OwnedFd> {
    const NS_GET_USERNS: libc::c_ulong = 0xb701;
    // SAFETY: the request takes no argument.
    let fd = check(libc::c_long::from(unsafe {
        libc::ioctl(ns.as_raw_fd(), NS_GET_USERNS)
    }))?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Whether any process is in a user namespace whose maps reach into `size` ids from `first` on, as we see them:
/// `/proc/PID/uid_map`, `user_namespaces(7)`.
pub fn any_maps_to(first: u32, size: u32) -> bool {
    let (first, end) = (u64::from(first), u64::from(first) + u64::from(size));
    let reaches = |line: &str| {
        let mut numbers = line.split_whitespace().skip(1).map(str::parse::<u64>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(start)), Some(Ok(count))) => {
                start < end && first < start.saturating_add(count)
            }
            _ => false,
        }
    };
    let everything = |text: &str| text.trim().ends_with(" 4294967295");
    // Of a process whose first thread has ended others may run on.
    let lives = |pid: &i32| {
        let threads = numbers_in(&format!("/proc/{pid}/task"));
        threads.into_iter().any(|tid| !is_zombie(tid))
    };
    numbers_in("/proc")
        .into_iter()
        .filter(|pid| {
            let map = crate::procfs::read(format!("/proc/{pid}/uid_map")).unwrap_or_default();
            // The node's own processes have every id.
            !everything(&map) && map.lines().any(reaches)
        })
        .any(|pid| lives(&pid))
}

/// The entries of a directory that are numbers: of `/proc`, the processes.
fn numbers_in(directory: &str) -> Vec<i32> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.file_name().to_str()?.parse().ok())
        .collect()
}

/// `struct sched_attr`, `sched_setattr(2)`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct SchedAttr {
    /// Filled in by [`sched_setattr`].
    pub size: u32,
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For `SCHED_OTHER` and `SCHED_BATCH`: -20 to 19.
    pub nice: i32,
    /// For `SCHED_FIFO` and `SCHED_RR`: 1 to 99.
    pub priority: u32,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub runtime: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub deadline: u64,
    /// For `SCHED_DEADLINE`, nanoseconds.
    pub period: u64,
}

/// `sched_setattr(2)` on the caller.
pub fn sched_setattr(attr: &SchedAttr) -> Result<()> {
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        ..*attr
    };
    // SAFETY: `attr` is readable for the size that it names.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) })?;
    Ok(())
}

/// `sched_setaffinity(2)` on the caller.
pub fn sched_setaffinity(mask: &[u64]) -> Result<()> {
    // SAFETY: `mask` is readable for the size that is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_sched_setaffinity,
            0,
            size_of_val(mask),
            mask.as_ptr(),
        )
    })?;
    Ok(())
}

/// `ioprio_set(2)` on the caller: class and priority as `linux/ioprio.h` packs them.
pub fn ioprio_set(value: i32) -> Result<()> {
    // SAFETY: plain numbers; 1 is IOPRIO_WHO_PROCESS.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, 1, 0, value) })?;
    Ok(())
}

/// `personality(2)`.
pub fn personality(domain: u64) -> Result<()> {
    // SAFETY: plain number.
    check(unsafe { libc::syscall(libc::SYS_personality, domain) })?;
    Ok(())
}

/// `set_mempolicy(2)`.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    let (ptr, bits) = if nodes.is_empty() {
        (ptr::null(), 0)
    } else {
        (nodes.as_ptr(), nodes.len() * 64 + 1)
    };
    // SAFETY: `ptr` is null, or readable for `bits` bits but the last, which the kernel does not look at.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, ptr, bits) })?;
    Ok(())
}
