//! Looking into a process by stopping it for a moment: `ptrace(2)`.

use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::bpf::Insn;
use super::{Result, check};
use nix::errno::Errno;

// linux/ptrace.h
const SECCOMP_GET_FILTER: libc::c_uint = 0x420c;
/// How long it may take to stop. One that waits for a disk does not.
const WITHIN: Duration = Duration::from_secs(1);
/// Instructions of a filter, `BPF_MAXINSNS`.
const MOST: usize = 4096;

const NOTHING: Insn = Insn {
    code: 0,
    jt: 0,
    jf: 0,
    k: 0,
};

/// A process that is traced, and goes on when this is dropped.
struct Traced(Pid);

impl Drop for Traced {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).ok();
    }
}

/// The seccomp filters of a process, the newest first: `PTRACE_SECCOMP_GET_FILTER`, Linux 4.4. Its first thread is stopped meanwhile: a call
/// in which it waits may fail with `EINTR`, as with every stop (`signal(7)`).
///
/// # Errors
/// It is traced by somebody else, or tracing is forbidden (Yama); the kernel is built without `CONFIG_CHECKPOINT_RESTORE`; it did not stop.
pub fn seccomp_filters(pid: i32) -> Result<Vec<Vec<Insn>>> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::empty())?;
    let traced = Traced(pid);
    ptrace::interrupt(pid)?;
    let end = Instant::now() + WITHIN;
    loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
            WaitStatus::StillAlive if Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(1));
            }
            WaitStatus::StillAlive => return Err(Errno::ETIMEDOUT),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return Err(Errno::ESRCH),
            _ => break,
        }
    }
    let mut all = Vec::new();
    loop {
        let mut insns = vec![NOTHING; MOST];
        let (number, buffer) = (all.len(), insns.as_mut_ptr());
        // SAFETY: the buffer has room for the longest filter that the kernel takes.
        let read =
            check(unsafe { libc::ptrace(SECCOMP_GET_FILTER, traced.0.as_raw(), number, buffer) });
        match read {
            Ok(n) => insns.truncate(n as usize),
            // No more of them.
            Err(Errno::ENOENT | Errno::EINVAL) => return Ok(all),
            Err(e) => return Err(e),
        }
        all.push(insns);
    }
}
