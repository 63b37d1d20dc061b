//! Processes by descriptors: `pidfd_open(2)`, `waitid(2)`.

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::{fmt, ptr};

use nix::errno::Errno;

use crate::sys::{Result, check};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitStatus(ExitStatus);

impl WaitStatus {
    /// Exit code, or 128 plus the signal number.
    pub fn code(self) -> u32 {
        let code = self.0.code();
        code.unwrap_or_else(|| 128 + self.0.signal().unwrap_or(127)) as u32
    }

    /// Whether it ended by itself, with exit code 0.
    pub fn success(self) -> bool {
        self.0.success()
    }
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Reaps the process behind `pidfd`. `None` while it runs. Linux 5.4 `P_PIDFD`.
pub fn try_wait_pidfd(pidfd: BorrowedFd<'_>) -> Result<Option<WaitStatus>> {
    loop {
        let mut info = std::mem::MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is writable and large enough.
        let ret = unsafe {
            libc::waitid(
                libc::P_PIDFD,
                pidfd.as_raw_fd() as libc::id_t,
                info.as_mut_ptr(),
                libc::WEXITED | libc::WNOHANG,
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
                // The encoding of wait(2).
                let status = match info.si_code {
                    libc::CLD_EXITED => (status & 0xff) << 8,
                    libc::CLD_DUMPED => status | 0x80,
                    _ => status,
                };
                return Ok(Some(WaitStatus(ExitStatus::from_raw(status))));
            }
        }
    }
}

/// Reaps the child `pid` if it has ended.
pub(super) fn reap_if_dead(pid: i32) {
    let mut status = 0;
    // SAFETY: `status` is writable.
    unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) };
}

/// Opens a pidfd. Linux 5.3.
pub fn pidfd_open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// The pid of the process behind `pidfd`, in this process's pid namespace: `Pid:` of `proc_pid_fdinfo(5)`. It is known as long as the
/// process is not reaped.
pub fn pid_of(pidfd: BorrowedFd<'_>) -> Result<i32> {
    let text = crate::procfs::read(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd()));
    let text = text.map_err(|e| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pid:"));
    let pid = line.and_then(|pid| pid.trim().parse().ok());
    pid.filter(|pid| *pid > 0).ok_or(Errno::ESRCH)
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
    // SAFETY: plain numbers. nix has no real-time signals.
    check(libc::c_long::from(unsafe { libc::kill(pid, signal) }))?;
    Ok(())
}

/// Kills all processes of a group, whose first one is `leader`.
pub fn kill_group(leader: i32) {
    if leader > 1 {
        kill(-leader, libc::SIGKILL).ok();
    }
}

/// Makes the caller a group of its own, for [`kill_group`]: `setpgid(2)`.
pub fn lead_group() -> Result<()> {
    let own = nix::unistd::Pid::from_raw(0);
    nix::unistd::setpgid(own, own)
}

/// A copy of another process's descriptor: `pidfd_getfd(2)`, Linux 5.6.
pub fn pidfd_getfd(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: plain numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) })?;
    // SAFETY: the kernel has just returned this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Waits for the end of a child and reaps it. Its wait status, `wait4(2)`.
pub fn wait_child(pid: i32) -> Result<i32> {
    wait4(pid, 0).map(Option::unwrap_or_default)
}

/// Reaps a child. `None` while it runs; otherwise its wait status, `wait4(2)`.
pub fn try_wait_child(pid: i32) -> Result<Option<i32>> {
    wait4(pid, libc::WNOHANG)
}

fn wait4(pid: i32, flags: i32) -> Result<Option<i32>> {
    let mut status: libc::c_int = 0;
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
