//! Processes: `clone3(2)`, pidfds, `execve(2)`, namespaces, and what a child does to itself before it executes.

mod clone;
mod descriptors;
mod owned;
mod pidfd;
mod schedule;

use std::ffi::{CStr, OsStr};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::ptr;

use crate::sys::{Result, check, from_rustix};
pub use clone::*;
pub use descriptors::*;
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::stat::Mode;
pub use owned::*;
pub use pidfd::*;
pub use schedule::*;

/// The caller's pid in its own pid namespace, asked of the kernel.
pub fn own_pid() -> i32 {
    std::process::id() as i32
}

/// A pod's server in ps(1), and for `pgrep containerd-shim`: as runc's shim is called. It is executed from a descriptor, whose number would
/// be its name.
pub const SERVER_NAME: &CStr = c"containerd-shim";
/// A process of ours that becomes a container's, until it executes the container's program. Recordings know our own by it.
pub const CHILD_NAME: &CStr = c"cofferdam:init";

/// Names the calling thread: `PR_SET_NAME`.
pub fn set_name(name: &CStr) -> Result<()> {
    nix::sys::prctl::set_name(name)
}

/// `setns(2)` with a namespace descriptor or (Linux 5.8) a pidfd.
pub fn setns(fd: BorrowedFd<'_>, flags: i32) -> Result<()> {
    nix::sched::setns(fd, CloneFlags::from_bits_retain(flags))
}

/// `unshare(2)`.
pub fn unshare(flags: i32) -> Result<()> {
    nix::sched::unshare(CloneFlags::from_bits_retain(flags))
}

/// The kernel's `_NSIG`, on all machines but MIPS.
const SIGNALS: i32 = 64;

/// `struct sigaction` as the kernel has it, on x86-64 with a restorer; others take the part that they know.
#[repr(C)]
#[derive(Default)]
struct KernelAction {
    handler: usize,
    flags: u64,
    restorer: usize,
    mask: u64,
}

/// Empties the signal mask, and gives every signal its default action: SIGPIPE, which Rust ignores, and what our own caller had us
/// ignore.
pub fn reset_signals() {
    // SAFETY: a zeroed sigset_t is the empty set, and the calls only read their arguments.
    unsafe {
        let set = std::mem::zeroed::<libc::sigset_t>();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const set, ptr::null_mut());
        // Past the C library, which keeps two of them for itself and its callers from changing them.
        let default = KernelAction::default();
        for signal in 1..=SIGNALS {
            let none = ptr::null_mut::<KernelAction>();
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, none, 8);
        }
    }
}

/// Makes the signals that ask a process to end do so, with a shell's status, also where it is process 1 of a pid namespace: those are
/// spared a signal's default action (`pid_namespaces(7)`). Undone by [`reset_signals`].
pub fn end_when_asked() {
    extern "C" fn end(signal: libc::c_int) {
        // SAFETY: async-signal-safe.
        unsafe { libc::_exit(128 + signal) }
    }
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
        let handler: extern "C" fn(libc::c_int) = end;
        // SAFETY: the handler only makes a call that is async-signal-safe.
        unsafe { libc::signal(signal, handler as libc::sighandler_t) };
    }
}

/// `setsid(2)`.
pub fn setsid() -> Result<()> {
    nix::unistd::setsid().map(drop)
}

/// `chdir(2)`.
pub fn chdir(path: &CStr) -> Result<()> {
    nix::unistd::chdir(path)
}

/// `chroot(2)`.
pub fn chroot(path: &CStr) -> Result<()> {
    nix::unistd::chroot(path)
}

/// `fchdir(2)`.
pub fn fchdir(fd: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::fchdir(fd)
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
    nix::unistd::sethostname(OsStr::from_bytes(name))
}

/// `setdomainname(2)`.
pub fn setdomainname(name: &[u8]) -> Result<()> {
    rustix::system::setdomainname(name).map_err(from_rustix)
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
    nix::sys::stat::umask(Mode::from_bits_retain(mask));
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
    nix::sys::stat::stat(path).is_ok_and(|st| st.st_mode & libc::S_IFMT == libc::S_IFDIR)
}

/// Makes this process (and what it forks, until exec) unreadable through `/proc/PID` without `CAP_SYS_PTRACE`.
pub fn set_not_dumpable() -> Result<()> {
    nix::sys::prctl::set_dumpable(false)
}

/// Orphaned descendants become children of this process: `PR_SET_CHILD_SUBREAPER`.
pub fn set_child_subreaper() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Where a program of the node's runs that belongs into a container's namespaces.
#[derive(Debug)]
pub struct Entry {
    /// A process that is in them.
    pub pidfd: OwnedFd,
    /// Which are entered, `CLONE_NEW*`; not that of pids, which would take effect for children only.
    pub namespaces: i32,
    /// The node's root in that mount namespace: the program, its loader and its libraries are found there, whatever has been
    /// mounted over `/` since.
    pub root: OwnedFd,
    /// Where it starts.
    pub directory: OwnedFd,
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
        let mut flags = self.namespaces;
        if self.mapped {
            flags |= libc::CLONE_NEWUSER;
        }
        setns(self.pidfd.as_fd(), flags)?;
        fchdir(self.root.as_fd())?;
        chroot(c".")?;
        fchdir(self.directory.as_fd())?;
        if self.mapped {
            super::creds::setgroups(&[])?;
            super::creds::setresgid(0)?;
            super::creds::setresuid(0)?;
        }
        Ok(())
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
