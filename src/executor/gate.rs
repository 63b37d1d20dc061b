//! Where an init waits between Create and Start.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::talk::{NotifyHandler, SeccompAgent, Suspects, explain, hand_over, receive};
use super::times::trace_steps;
use super::wire::{self, Message};
use super::{Error, Result, hooks};
use crate::sys::memory::SharedTimes;
use crate::sys::{process, socket};
use crate::trace;

/// How long an init may take from its gate to its program, if it runs no hooks.
const START_WITHIN: Duration = Duration::from_secs(120);

/// What is left to do for an init: open the gate.
#[derive(Debug)]
pub struct Gate {
    pub(super) control: OwnedFd,
    pub(super) times: Option<Arc<SharedTimes>>,
    pub(super) watcher: Option<NotifyHandler>,
    pub(super) behind: AfterGate,
}

/// What is behind a gate, to explain a failure there.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct AfterGate {
    pub(super) program: String,
    /// Descriptions of the steps, with the number of the first.
    pub(super) steps: Vec<String>,
    pub(super) first: usize,
    /// Who gets the notifications of the seccomp filter.
    pub(super) seccomp_agent: Option<SeccompAgent>,
    /// What may keep it from executing its program.
    #[serde(default)]
    pub(super) suspects: Suspects,
    /// Whether there are startContainer hooks, which have time-outs of their own.
    #[serde(default)]
    pub(super) has_hooks: bool,
}

/// A place where a gate can be opened by another process than the one that made the container: a socket at `path`, of at
/// most 107 bytes.
pub fn listen_at_gate(path: &Path) -> Result<OwnedFd> {
    socket::listen(path).map_err(Error::system(format!("listen on {}", path.display())))
}

impl Gate {
    /// Goes to a gate that another process left: see [`listen_at_gate`].
    pub fn connect(path: &Path, behind: AfterGate) -> Result<Self> {
        let control = socket::connect(path).map_err(Error::system("reach the container's init"))?;
        Ok(Self {
            control,
            times: None,
            watcher: None,
            behind,
        })
    }

    fn trace(&self, pid: i32) {
        let AfterGate { steps, first, .. } = &self.behind;
        trace_steps(self.times.as_ref(), pid, *first, steps.iter().cloned());
        if let Some(times) = &self.times {
            let done = times.get(first + steps.len());
            trace::event("execve", pid, pid, done, trace::now());
        }
    }

    /// What a step behind the gate does.
    fn step(&self, number: u16) -> Option<&str> {
        let index = usize::from(number).checked_sub(self.behind.first)?;
        self.behind.steps.get(index).map(String::as_str)
    }

    /// What is behind it.
    pub fn behind(&self) -> &AfterGate {
        &self.behind
    }

    /// Lets the init execute the user's program. Returns when it does, or with the reason why it cannot; then the init
    /// ends, with status 1.
    pub fn open(self, pid: i32, pidfd: &OwnedFd) -> Result<()> {
        process::write_all(self.control.as_fd(), &[wire::GO_ON])
            .map_err(Error::system("open the container's gate"))?;
        let deadline = (!self.behind.has_hooks).then(|| Instant::now() + START_WITHIN);
        let kill = |_: &Error| {
            process::pidfd_send_signal(pidfd.as_fd(), libc::SIGKILL).ok();
        };
        let mut buffer = [0; wire::LONGEST];
        while let Some((message, _)) =
            receive(&self.control, deadline, &mut buffer).inspect_err(kill)?
        {
            match message {
                Message::Failed { step, op, number } => {
                    let what = self.step(step);
                    let AfterGate {
                        program, suspects, ..
                    } = &self.behind;
                    return Err(explain(program, what, op, number, *suspects));
                }
                Message::HookFailed { step, status, said } => {
                    let what = self.step(step).unwrap_or("startContainer hook");
                    return Err(hooks::explain(what, status, said));
                }
                Message::Listener(number) => {
                    let told = (self.watcher.as_ref(), self.behind.seccomp_agent.as_ref());
                    hand_over(&self.control, pid, pidfd.as_fd(), number, told).inspect_err(kill)?;
                }
                Message::Terminal | Message::Sibling(_) | Message::Asks(_) => {}
            }
        }
        self.trace(pid);
        Ok(())
    }
}
