//! startContainer hooks: programs of the container, before its own.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::hooks::LATE;
use super::super::script::StartHook;
use super::super::wire;
use super::talk::report;
use super::{Context, Outcome, at};
use crate::sys::process::{self, Standard};

/// Runs a hook of the container to its end.
pub(super) fn start_hook(ctx: &Context<'_>, index: usize, hook: &StartHook) -> Outcome<()> {
    let mut digits = [b' '; 10];
    let mut left = process::own_pid().unsigned_abs();
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
        if left == 0 {
            break;
        }
    }
    let at_pid = hook.pid_at.saturating_sub(digits.len());
    process::write_at(hook.state.as_fd(), &digits, at_pid).map_err(at("pwrite"))?;
    // SAFETY: this process has one thread, and the child makes system calls only.
    #[allow(unsafe_code)]
    let pid = match unsafe { process::fork() }.map_err(at("clone"))? {
        process::Forked::Child => {
            let outputs = [hook.state.as_fd(), hook.null.as_fd(), hook.null.as_fd()];
            for (fd, stream) in outputs.into_iter().zip(Standard::ALL) {
                if process::become_standard(fd, stream).is_err() {
                    process::exit_now(126);
                }
            }
            process::execve(&hook.program, &hook.argv, &hook.env);
            process::exit_now(127)
        }
        process::Forked::Parent(pid) => pid,
    };
    match wait_for_hook(pid, hook.timeout).map_err(at("wait4"))? {
        0 => Ok(()),
        status => {
            report(ctx.control(), index, wire::HOOK, status);
            process::exit_now(1)
        }
    }
}

/// The wait status. A hook that is late is killed.
fn wait_for_hook(pid: i32, timeout: Option<Duration>) -> Result<i32, Errno> {
    let Some(timeout) = timeout else {
        return process::wait_child(pid);
    };
    let end = Instant::now() + timeout;
    let mut pause = Duration::from_micros(500);
    loop {
        if let Some(status) = process::try_wait_child(pid)? {
            return Ok(status);
        }
        if Instant::now() >= end {
            process::kill(pid, libc::SIGKILL).ok();
            process::wait_child(pid)?;
            return Ok(LATE);
        }
        process::pause_for(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}
