//! startContainer hooks: programs of the container, before its own.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::super::hooks::LATE;
use super::super::script::{StartHook, UserProgram};
use super::super::wire::{LONGEST, Message};
use super::talk::say;
use super::{Context, Outcome, at};
use crate::sys::process::{self, Standard};

/// Runs a hook of the container to its end.
pub(super) fn start_hook(
    ctx: &Context<'_>,
    index: usize,
    hook: &StartHook,
    program: &UserProgram,
) -> Outcome<()> {
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
    let (output, theirs) = process::pipe().map_err(at("pipe"))?;
    // SAFETY: this process has one thread, and the child makes system calls only.
    #[allow(unsafe_code)]
    let pid = match unsafe { process::fork() }.map_err(at("clone"))? {
        process::Forked::Child => {
            // What it starts ends with it where it is late.
            process::lead_group().ok();
            let streams = [hook.state.as_fd(), hook.null.as_fd(), theirs.as_fd()];
            for (fd, stream) in streams.into_iter().zip(Standard::ALL) {
                if process::become_standard(fd, stream).is_err() {
                    process::exit_now(126);
                }
            }
            let env = hook.env.as_ref().unwrap_or(&program.env);
            process::execve(&hook.program, &hook.argv, env);
            process::exit_now(127)
        }
        process::Forked::Parent(pid) => pid,
    };
    drop(theirs);
    let mut said = Said {
        bytes: [0; LONGEST - 7],
        length: 0,
    };
    match wait_for_hook(pid, hook.timeout, &output, &mut said).map_err(at("wait4"))? {
        0 => Ok(()),
        status => {
            let step = u16::try_from(index).unwrap_or(u16::MAX);
            let said = said.bytes.get(..said.length).unwrap_or_default();
            say(ctx.control(), Message::HookFailed { step, status, said }).ok();
            process::exit_now(1)
        }
    }
}

/// The beginning of what a hook wrote to its standard error.
struct Said {
    bytes: [u8; LONGEST - 7],
    length: usize,
}

impl Said {
    /// Takes what is there, and keeps what there is room for. False at the end.
    fn take(&mut self, output: &OwnedFd) -> Result<bool, Errno> {
        let mut buffer = [0; 1024];
        let n = process::read(output.as_fd(), &mut buffer)?;
        let room = self.bytes.get_mut(self.length..).unwrap_or_default();
        let taken = buffer.get(..n).unwrap_or_default();
        for (to, from) in room.iter_mut().zip(taken) {
            *to = *from;
            self.length += 1;
        }
        Ok(n > 0)
    }
}

/// The wait status. A hook that is late is killed.
fn wait_for_hook(
    pid: i32,
    timeout: Option<Duration>,
    output: &OwnedFd,
    said: &mut Said,
) -> Result<i32, Errno> {
    let pidfd = process::pidfd_open(pid)?;
    let end = timeout.map(|timeout| Instant::now() + timeout);
    let mut open = true;
    loop {
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let other = if open { output.as_fd() } else { pidfd.as_fd() };
        match process::wait_any([pidfd.as_fd(), other], left)? {
            [_, true] if open && said.length < said.bytes.len() => open = said.take(output)?,
            [true, _] => return process::wait_child(pid),
            [false, true] => open = said.take(output)?,
            [false, false] => {
                process::kill_group(pid);
                process::wait_child(pid)?;
                return Ok(LATE);
            }
        }
    }
}
