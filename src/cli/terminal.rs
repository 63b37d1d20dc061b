//! Terminals and signals of a process that a person (or another program) waits for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{OutputFlags, SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use super::{Error, Result, print_raw};
use crate::sys::{process, socket, tty};

/// Where the master of a container's terminal goes.
pub(super) enum Console {
    /// To whoever listens on this socket, as in runc's `--console-socket`.
    Send(PathBuf),
    /// It stays here.
    Keep,
}

impl Console {
    pub(crate) fn new(path: Option<&Path>, terminal: bool, must_send: bool) -> Result<Self> {
        match (path, terminal) {
            (Some(path), true) => Ok(Self::Send(path.to_owned())),
            (Some(_), false) => Err(Error::Other(
                "cannot use console socket if runc will not detach or allocate tty"
                    .replace("runc", "cofferdam"),
            )),
            (None, true) if must_send => Err(Error::Other(
                "process.terminal is set, so --console-socket is needed".into(),
            )),
            (None, _) => Ok(Self::Keep),
        }
    }

    /// Sends the master away, or gives it back.
    pub(crate) fn take(&self, master: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
        match (self, master) {
            (Self::Send(path), Some(master)) => {
                // Nobody who listens and does not accept is waited for.
                let stream = socket::connect_at_once(path)
                    .map_err(|e| Error::Io(format!("connect to {}", path.display()), e.into()))?;
                // With the byte that has to come along; runc's receivers expect a name and ignore it.
                socket::send_fd(stream.as_fd(), b"master", master.as_fd())
                    .map_err(|e| Error::Other(format!("send the terminal: {}", e.desc())))?;
                Ok(None)
            }
            (_, master) => Ok(master),
        }
    }
}

/// The size of our own terminal.
pub(super) fn own_size() -> Option<(u16, u16)> {
    tty::size(io::stdin().as_fd()).ok()
}

/// Our own terminal, passing on every byte as it is typed; as it was again when this goes.
pub(super) struct Raw(Termios);

impl Raw {
    /// None where standard input is no terminal.
    pub(crate) fn new() -> Option<Self> {
        let before = tcgetattr(io::stdin()).ok()?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        // Ends of lines are still this terminal's matter.
        raw.output_flags.insert(OutputFlags::OPOST);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0).ok();
    }
}

/// Signals to this command, held back until there is a process to pass them on to.
pub(super) struct Signals(SignalFd);

impl Signals {
    pub(crate) fn hold() -> Result<Self> {
        let mut signals = SigSet::all();
        for synchronous in [
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGFPE,
            Signal::SIGILL,
            Signal::SIGABRT,
            Signal::SIGCHLD,
        ] {
            signals.remove(synchronous);
        }
        let held = sigprocmask(SigmaskHow::SIG_BLOCK, Some(&signals), None).and_then(|()| {
            SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        });
        held.map(Self)
            .map_err(|e| Error::Other(format!("receive signals: {}", e.desc())))
    }

    /// The next one; `None` if there is none now.
    pub(crate) fn next(&self) -> Option<i32> {
        let signal = self.0.read_signal().ok()??;
        i32::try_from(signal.ssi_signo).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The terminal's other screen, without a cursor. Dropped, what was there before is shown again.
pub(super) struct Screen(());

impl Screen {
    pub(crate) fn enter() -> Self {
        print_raw("\x1b[?1049h\x1b[?25l");
        Self(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        print_raw("\x1b[?25h\x1b[?1049l");
    }
}

/// Waits for a child's end, passing signals on to it and, with a terminal, bytes in both directions. Returns its status.
pub(super) fn attend(pidfd: &OwnedFd, master: Option<OwnedFd>, signals: &Signals) -> Result<i32> {
    let signals = &signals.0;
    let _raw = master.as_ref().and_then(|_| Raw::new());
    let mut input_open = master.is_some();
    loop {
        let stdin = io::stdin();
        let mut fds = vec![
            PollFd::new(pidfd.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(master) = &master {
            fds.push(PollFd::new(master.as_fd(), PollFlags::POLLIN));
            if input_open {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(Error::Other(format!("wait: {}", e.desc()))),
        }
        let ready: Vec<bool> = fds.iter().map(|f| f.any().unwrap_or(false)).collect();
        drop(fds);
        if ready.get(1) == Some(&true) {
            while let Ok(Some(signal)) = signals.read_signal() {
                pass_on(signal.ssi_signo.cast_signed(), pidfd, master.as_ref());
            }
        }
        if let Some(master) = &master {
            if ready.get(2) == Some(&true) {
                copy(master.as_fd(), io::stdout().as_fd());
            }
            if ready.get(3) == Some(&true) {
                input_open = copy(stdin.as_fd(), master.as_fd());
            }
        }
        if ready.first() == Some(&true)
            && let Ok(Some(status)) = process::try_wait_pidfd(pidfd.as_fd())
        {
            if let Some(master) = &master {
                while poll(
                    &mut [PollFd::new(master.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::ZERO,
                )
                .is_ok_and(|n| n > 0)
                    && copy(master.as_fd(), io::stdout().as_fd())
                {}
            }
            return Ok(status.code().cast_signed());
        }
    }
}

fn pass_on(signal: i32, pidfd: &OwnedFd, master: Option<&OwnedFd>) {
    match (signal, master) {
        (libc::SIGWINCH, Some(master)) => {
            if let Some((columns, rows)) = own_size() {
                tty::set_size(master.as_fd(), columns, rows).ok();
            }
        }
        (libc::SIGURG | libc::SIGPIPE | libc::SIGTTOU | libc::SIGTTIN, _) => {}
        _ => {
            process::pidfd_send_signal(pidfd.as_fd(), signal).ok();
        }
    }
}

/// Copies what is there. False at the end.
fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buffer = [0u8; 4096];
    match process::read(from, &mut buffer) {
        Ok(0) | Err(_) => false,
        Ok(n) => process::write_all(to, buffer.get(..n).unwrap_or_default()).is_ok(),
    }
}
