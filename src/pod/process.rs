//! One process of a container: its init, or an exec.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::sync::watch;

use super::{Error, Result, lock};
use crate::executor::Gate;
use crate::isolation::Judged;
use crate::oci::StdioUris;
use crate::stdio::Streams;
use crate::sys;

/// How and when a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Exit code, or 128 plus the signal number.
    pub status: u32,
    /// When it was reaped.
    pub at: SystemTime,
}

impl Exit {
    /// Now, with this status.
    pub fn now(status: u32) -> Self {
        Self {
            status,
            at: SystemTime::now(),
        }
    }
}

/// What a client sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Set up, not started.
    Created,
    /// Its program runs.
    Running,
    /// It has ended.
    Stopped,
}

/// A process's life.
pub(super) enum State {
    /// An exec that was announced.
    Added(Box<Judged<oci_spec::runtime::Process>>),
    /// An init at its gate.
    Created {
        gate: Box<Gate>,
        pid: i32,
        pidfd: Arc<OwnedFd>,
    },
    /// An exec that is being started: it has no process yet.
    Starting,
    /// An init whose gate is being opened.
    Opening {
        pid: i32,
        pidfd: Arc<OwnedFd>,
    },
    Running {
        pid: i32,
        pidfd: Arc<OwnedFd>,
    },
    Stopped {
        pid: i32,
        exit: Exit,
    },
}

impl State {
    /// The answer to a Start in this state.
    pub(crate) fn cannot_start(self) -> (Self, Error) {
        let what = if matches!(self, Self::Stopped { .. }) {
            "stopped"
        } else {
            "running"
        };
        (
            self,
            Error::Unknown(format!("cannot start a {what} process")),
        )
    }
}

/// One process.
pub struct Process {
    /// Empty for an init.
    exec_id: String,
    addresses: Judged<StdioUris>,
    state: Mutex<State>,
    exit: watch::Sender<Option<Exit>>,
    streams: Mutex<Streams>,
    /// Start holds it until its event is in the queue, and the exit takes it before it queues its own event. So a
    /// client always sees Start first.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// Answer to `State`.
#[derive(Debug, Clone)]
pub struct StatusReport {
    /// Where it is in its life.
    pub status: Status,
    /// 0 before it has one.
    pub pid: i32,
    /// Once it has ended.
    pub exit: Option<Exit>,
    /// Its streams.
    pub addresses: Judged<StdioUris>,
}

impl Process {
    pub(super) fn new(
        exec_id: String,
        addresses: Judged<StdioUris>,
        state: State,
        streams: Streams,
    ) -> Arc<Self> {
        Arc::new(Self {
            exec_id,
            addresses,
            state: Mutex::new(state),
            exit: watch::channel(None).0,
            streams: Mutex::new(streams),
            turn: tokio::sync::Mutex::default(),
        })
    }

    pub(super) fn exec_id(&self) -> &str {
        &self.exec_id
    }

    pub(super) fn addresses(&self) -> &Judged<StdioUris> {
        &self.addresses
    }

    pub(super) fn streams(&self) -> std::sync::MutexGuard<'_, Streams> {
        lock(&self.streams)
    }

    /// The pid; 0 before there is one.
    pub fn pid(&self) -> i32 {
        match &*lock(&self.state) {
            State::Added(_) | State::Starting => 0,
            State::Created { pid, .. }
            | State::Opening { pid, .. }
            | State::Running { pid, .. }
            | State::Stopped { pid, .. } => *pid,
        }
    }

    pub(super) fn pidfd(&self) -> Option<Arc<OwnedFd>> {
        match &*lock(&self.state) {
            State::Created { pidfd, .. }
            | State::Opening { pidfd, .. }
            | State::Running { pidfd, .. } => Some(pidfd.clone()),
            State::Added(_) | State::Starting | State::Stopped { .. } => None,
        }
    }

    /// Everything that a client may ask for.
    pub fn report(&self) -> StatusReport {
        let (status, pid, exit) = match &*lock(&self.state) {
            State::Added(_) | State::Starting => (Status::Created, 0, None),
            State::Created { pid, .. } | State::Opening { pid, .. } => {
                (Status::Created, *pid, None)
            }
            State::Running { pid, .. } => (Status::Running, *pid, None),
            State::Stopped { pid, exit } => (Status::Stopped, *pid, Some(*exit)),
        };
        StatusReport {
            status,
            pid,
            exit,
            addresses: self.addresses.clone(),
        }
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    /// Waits for the end; any number of callers, also after it.
    pub async fn wait(&self) -> Exit {
        let mut exit = self.exit.subscribe();
        loop {
            if let Some(exit) = *exit.borrow_and_update() {
                return exit;
            }
            if exit.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Sends a signal through the pidfd, so that it can never reach a stranger.
    pub fn signal(&self, signal: i32) -> Result<()> {
        let Some(pidfd) = self.pidfd() else {
            return Err(match &*lock(&self.state) {
                State::Stopped { .. } => Error::NotFound("process already finished".into()),
                _ => Error::FailedPrecondition("process not created".into()),
            });
        };
        sys::process::pidfd_send_signal(pidfd.as_fd(), signal).map_err(|e| match e {
            nix::errno::Errno::ESRCH => Error::NotFound("process already finished".into()),
            nix::errno::Errno::EINVAL => {
                Error::InvalidArgument(format!("{signal} is not a signal"))
            }
            e => Error::Unknown(format!("send signal {signal}: {}", e.desc())),
        })
    }

    /// Replaces the state if `f` accepts the current one; otherwise it stays, and the error says why.
    pub(super) fn transition<T>(
        &self,
        f: impl FnOnce(State) -> std::result::Result<(State, T), (State, Error)>,
    ) -> Result<T> {
        let mut state = lock(&self.state);
        let (next, result) = match f(std::mem::replace(&mut *state, State::Starting)) {
            Ok((next, value)) => (next, Ok(value)),
            Err((same, e)) => (same, Err(e)),
        };
        *state = next;
        result
    }

    /// Takes what an exec is to run; from now on it is being started.
    pub(super) fn take_exec(&self) -> Result<Box<Judged<oci_spec::runtime::Process>>> {
        self.transition(|state| match state {
            State::Added(p) => Ok((State::Starting, p)),
            state => Err(state.cannot_start()),
        })
    }

    /// For a deletion: an exec that has ended, or was never started and now never will be.
    pub(super) fn end_of_use(&self) -> Result<()> {
        self.transition(|state| match state {
            State::Added(_) => {
                let exit = Exit::now(0);
                Ok((State::Stopped { pid: 0, exit }, ()))
            }
            State::Stopped { .. } => Ok((state, ())),
            State::Running { .. } => Err((
                state,
                Error::Unknown("cannot delete a running process".into()),
            )),
            State::Starting | State::Created { .. } | State::Opening { .. } => Err((
                state,
                Error::Unknown("cannot delete a process that is being started".into()),
            )),
        })
    }

    pub(super) fn set(&self, next: State) {
        *lock(&self.state) = next;
    }

    /// Lets readers have what the ended process wrote: see [`Streams::settle`].
    pub(super) async fn output_taken(&self) {
        let settling = {
            let mut streams = self.streams();
            streams.process_exited();
            streams.settle()
        };
        settling.await;
    }

    /// Marks the end, and wakes who waits for it.
    pub(super) fn finish(&self, exit: Exit) {
        let pid = self.pid();
        self.set(State::Stopped { pid, exit });
        self.exit.send_replace(Some(exit));
    }
}

impl Process {
    /// Sets the terminal's size, in characters. Nothing happens without a terminal, as with containerd's own shim.
    pub fn resize(&self, width: u16, height: u16) -> Result<()> {
        if !self.exec_id.is_empty() && self.report().status == Status::Stopped {
            return Err(Error::Unknown("cannot resize a stopped container".into()));
        }
        match self.streams().master() {
            Some(master) => sys::tty::set_size(master, width, height)
                .map_err(|e| Error::Unknown(format!("resize the terminal: {}", e.desc()))),
            None => Ok(()),
        }
    }

    /// The client writes no more: see `Streams::close_stdin`.
    pub fn close_stdin(&self) {
        self.streams().close_stdin();
    }
}
