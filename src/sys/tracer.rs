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
    seize(pid)?.filters()
}

fn seize(pid: i32) -> Result<Traced> {
    let pid = Pid::from_raw(pid);
    ptrace::seize(pid, ptrace::Options::empty())?;
    Ok(Traced(pid))
}

impl Traced {
    fn filters(&self) -> Result<Vec<Vec<Insn>>> {
        let pid = self.0;
        ptrace::interrupt(pid)?;
        self.wait_for_stop()?;
        let mut all = Vec::new();
        loop {
            let mut insns = vec![NOTHING; MOST];
            let (number, buffer) = (all.len(), insns.as_mut_ptr());
            // SAFETY: the buffer has room for the longest filter that the kernel takes.
            let read =
                check(unsafe { libc::ptrace(SECCOMP_GET_FILTER, pid.as_raw(), number, buffer) });
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
    fn wait_for_stop(&self) -> Result<()> {
        let pid = self.0.as_raw();
        let end = Instant::now() + WITHIN;
        loop {
            let mut status = 0;
            // SAFETY: the status is writable.
            let waited =
                unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG | libc::__WALL) };
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::Signal;
    use std::process::Command;

    /// Nothing is left where a test fails.
    struct Sleeper(std::process::Child);

    impl Sleeper {
        fn new(seconds: &str) -> Self {
            Self(Command::new("sleep").arg(seconds).spawn().unwrap())
        }

        fn pid(&self) -> i32 {
            self.0.id().cast_signed()
        }
    }

    impl Drop for Sleeper {
        fn drop(&mut self) {
            self.0.kill().ok();
            self.0.wait().ok();
        }
    }

    /// A signal that comes before the stop makes a stop of its own, in which it would be lost.
    #[test]
    fn no_signal_is_lost() {
        let mut child = Sleeper::new("1000");
        let pid = child.pid();
        match seize(pid) {
            Ok(traced) => {
                nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM).unwrap();
                std::thread::sleep(Duration::from_millis(50));
                assert_eq!(
                    traced.filters().err(),
                    Some(Errno::ESRCH),
                    "it ends by the signal"
                );
            }
            Err(e) => {
                eprintln!("not tried: tracing is forbidden: {e}");
                child.0.kill().unwrap();
            }
        }
        // Who waited for the stop may have taken its end.
        let end = Instant::now() + Duration::from_secs(5);
        while !matches!(child.0.try_wait(), Ok(Some(_)) | Err(_)) {
            assert!(Instant::now() < end, "the signal was lost");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn a_process_goes_on_after_it_was_looked_at() {
        let mut child = Sleeper::new("0.2");
        let read = seccomp_filters(child.pid());
        assert!(matches!(read, Ok(_) | Err(Errno::EPERM)), "{read:?}");
        assert!(child.0.wait().unwrap().success());
    }
}
