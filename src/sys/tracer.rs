//! Looking into a process by stopping it for a moment: `ptrace(2)`.

use std::time::{Duration, Instant};

use nix::sys::ptrace;
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
    stopped(&traced)?;
    let mut all = Vec::new();
    loop {
        let mut insns = vec![NOTHING; MOST];
        let (number, buffer) = (all.len(), insns.as_mut_ptr());
        // SAFETY: the buffer has room for the longest filter that the kernel takes.
        let read = check(unsafe { libc::ptrace(SECCOMP_GET_FILTER, pid.as_raw(), number, buffer) });
        match read {
            Ok(n) => insns.truncate(n as usize),
            // No more of them.
            Err(Errno::ENOENT | Errno::EINVAL) => return Ok(all),
            Err(e) => return Err(e),
        }
        all.push(insns);
    }
}

/// Waits for the stop that was asked for. A signal that comes before it is delivered: real-time ones, which glibc's own are among, too.
fn stopped(traced: &Traced) -> Result<()> {
    let pid = traced.0.as_raw();
    let end = Instant::now() + WITHIN;
    loop {
        let mut status = 0;
        // SAFETY: the status is writable.
        let waited = unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::__WALL) };
        match check(waited.into())? {
            0 if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            0 => return Err(Errno::ETIMEDOUT),
            _ if !libc::WIFSTOPPED(status) => return Err(Errno::ESRCH),
            _ if status >> 16 == libc::PTRACE_EVENT_STOP => return Ok(()),
            _ => {
                let signal = libc::WSTOPSIG(status);
                // SAFETY: no memory is passed.
                check(unsafe { libc::ptrace(libc::PTRACE_CONT, pid, 0, signal) })?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::process::Command;

    #[test]
    fn no_signal_is_lost() {
        for _ in 0..200 {
            let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
            let pid = child.id().cast_signed();
            let sender = std::thread::spawn(move || {
                nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            });
            match seccomp_filters(pid) {
                Ok(all) => assert!(all.is_empty()),
                Err(Errno::ESRCH | Errno::ECHILD) => {}
                // Tracing is forbidden here.
                Err(Errno::EPERM) => eprintln!("not tried: tracing is forbidden"),
                Err(e) => panic!("{e}"),
            }
            sender.join().unwrap();
            let end = Instant::now() + Duration::from_secs(5);
            // The tracer's own wait may have taken its end.
            while !matches!(child.try_wait(), Ok(Some(_)) | Err(_)) {
                assert!(Instant::now() < end, "a signal was lost");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
