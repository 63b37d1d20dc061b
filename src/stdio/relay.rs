//! Relays on the event loop: pipe to fifo without copying (`splice(2)`), terminal to fifo and back.
//!
//! A relay ends at the end of its source; or, because a descendant may hold the source open for ever, a bounded time after
//! its process: when the process is gone and nothing has come for a while, or when the process is deleted.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::Sink;
use super::fifo::Fifo;
use crate::sys::process;

/// After its process, a source that stays silent for this long is left.
const QUIET: Duration = Duration::from_millis(500);
const CHUNK: usize = 64 * 1024;

/// How far the process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd)]
pub(super) enum Phase {
    Running,
    Exited,
    /// It is being deleted: take what is there and end.
    Closing,
}

type Phases = watch::Receiver<Phase>;

pub(super) fn non_blocking(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    crate::sys::watch::register(fd, Interest::READABLE | Interest::WRITABLE)
}

/// Waits until the source is readable. False when it is time to leave it.
async fn wait_readable(source: &AsyncFd<OwnedFd>, phases: &mut Phases) -> bool {
    loop {
        let phase = *phases.borrow_and_update();
        let quiet = async {
            match phase {
                Phase::Running => std::future::pending().await,
                Phase::Exited => sleep(QUIET).await,
                Phase::Closing => {}
            }
        };
        tokio::select! {
            biased;
            ready = source.readable() => {
                if let Ok(mut ready) = ready {
                    // Readiness may be stale; the caller's read tells, and clears it.
                    ready.retain_ready();
                    return true;
                }
                return false;
            }
            changed = phases.changed() => if changed.is_err() { return false },
            () = quiet => return false,
        }
    }
}

/// Waits until the sink takes more. False when the process is deleted and its reader has had its time.
async fn wait_writable(sink: &AsyncFd<OwnedFd>, phases: &mut Phases) -> bool {
    loop {
        let closing = *phases.borrow_and_update() == Phase::Closing;
        let patience = async {
            if closing {
                sleep(Duration::from_secs(1)).await
            } else {
                std::future::pending().await
            }
        };
        tokio::select! {
            biased;
            ready = sink.writable() => {
                if let Ok(mut ready) = ready {
                    ready.retain_ready();
                    return true;
                }
                return false;
            }
            changed = phases.changed() => if changed.is_err() { return false },
            () = patience => return false,
        }
    }
}

/// Whether an operation of this kind would not block now.
fn is_ready(fd: &AsyncFd<OwnedFd>, kind: PollFlags) -> bool {
    let mut fds = [PollFd::new(fd.get_ref().as_fd(), kind)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

async fn clear_readable(fd: &AsyncFd<OwnedFd>) {
    if let Ok(Ok(mut ready)) = timeout(Duration::ZERO, fd.readable()).await {
        ready.clear_ready();
    }
}

async fn clear_writable(fd: &AsyncFd<OwnedFd>) {
    if let Ok(Ok(mut ready)) = timeout(Duration::ZERO, fd.writable()).await {
        ready.clear_ready();
    }
}

/// A process's pipe into its fifo.
pub(super) async fn pipe(source: AsyncFd<OwnedFd>, fifo: Arc<Fifo>, mut phases: Phases) {
    let Ok(sink) = fifo.non_blocking_writer().and_then(non_blocking) else {
        return;
    };
    while wait_readable(&source, &mut phases).await {
        match process::splice(source.as_fd(), sink.as_fd(), CHUNK) {
            Ok(0) => break,
            Ok(_) => {}
            // One of the two: see which, or the wrong one would be waited for, for ever.
            Err(Errno::EAGAIN) if !is_ready(&source, PollFlags::POLLIN) => {
                clear_readable(&source).await;
                if *phases.borrow() == Phase::Closing {
                    break;
                }
            }
            Err(Errno::EAGAIN) if !is_ready(&sink, PollFlags::POLLOUT) => {
                clear_writable(&sink).await;
                if !wait_writable(&sink, &mut phases).await {
                    break;
                }
            }
            // Meanwhile both are ready.
            Err(Errno::EAGAIN) => {}
            Err(Errno::EINTR) => {}
            Err(_) => break,
        }
    }
    drop(source);
    drain(&fifo, phases).await;
}

/// Keeps a fifo whose writers are gone until its reader has taken everything. A pipe has no event for "empty".
pub(super) async fn linger(fifo: Arc<Fifo>, phases: Phases) {
    // A reader that comes back opens the fifo, which blocks while there is no writer.
    let Ok(writer) = fifo.non_blocking_writer() else {
        return;
    };
    drain(&fifo, phases).await;
    drop(writer);
}

async fn drain(fifo: &Fifo, mut phases: Phases) {
    let mut pause = Duration::from_millis(1);
    while fifo.waiting() > 0 {
        if *phases.borrow_and_update() == Phase::Closing {
            // The reader is still connected, or it never comes back; a deletion waits a moment only.
            timeout(Duration::from_secs(1), async {
                while fifo.waiting() > 0 {
                    sleep(Duration::from_millis(2)).await;
                }
            })
            .await
            .ok();
            return;
        }
        timeout(pause, phases.changed()).await.ok();
        pause = (pause * 2).min(Duration::from_secs(1));
    }
}

/// A terminal's output into its fifo, file or logger.
pub(super) async fn terminal_output(
    master: Arc<AsyncFd<OwnedFd>>,
    sink: Option<Sink>,
    mut phases: Phases,
) {
    let (fifo, fd) = match sink {
        Some(Sink::Fifo(fifo)) => match fifo.non_blocking_writer() {
            Ok(fd) => (Some(fifo), Some(fd)),
            Err(_) => return,
        },
        Some(Sink::File(fd)) => (None, Some(fd)),
        None => (None, None),
    };
    // A regular file cannot be polled, and never needs to be.
    let (polled, plain) = match (fifo.is_some(), fd) {
        (true, Some(fd)) => (non_blocking(fd).ok(), None),
        (_, fd) => (None, fd),
    };
    let mut buffer = [0u8; 4096];
    'relay: while wait_readable(&master, &mut phases).await {
        let n = match process::read(master.as_fd(), &mut buffer) {
            // EIO: the last process has closed the other side.
            Ok(0) | Err(Errno::EIO) => break,
            Ok(n) => n,
            Err(Errno::EAGAIN) => {
                clear_readable(&master).await;
                if *phases.borrow() == Phase::Closing {
                    break;
                }
                continue;
            }
            Err(_) => break,
        };
        let mut rest = buffer.get(..n).unwrap_or_default();
        if let Some(fd) = &plain {
            process::write_all(fd.as_fd(), rest).ok();
            continue;
        }
        let Some(sink) = &polled else { continue };
        while !rest.is_empty() {
            match nix::unistd::write(sink.get_ref(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EAGAIN) => {
                    clear_writable(sink).await;
                    if !wait_writable(sink, &mut phases).await {
                        break 'relay;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => break 'relay,
            }
        }
    }
    if let Some(fifo) = &fifo {
        drain(fifo, phases).await;
    }
}

/// The client's input into the terminal.
pub(super) async fn terminal_input(
    input: AsyncFd<OwnedFd>,
    master: Arc<AsyncFd<OwnedFd>>,
    mut phases: Phases,
) {
    let mut buffer = [0u8; 1024];
    while *phases.borrow() == Phase::Running && wait_readable(&input, &mut phases).await {
        let n = match process::read(input.as_fd(), &mut buffer) {
            Ok(0) => break,
            Ok(n) => n,
            Err(Errno::EAGAIN) => {
                clear_readable(&input).await;
                continue;
            }
            Err(_) => break,
        };
        let mut rest = buffer.get(..n).unwrap_or_default();
        while !rest.is_empty() {
            match nix::unistd::write(master.get_ref(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EAGAIN) => {
                    clear_writable(&master).await;
                    if !wait_writable(&master, &mut phases).await
                        || *phases.borrow() != Phase::Running
                    {
                        return;
                    }
                }
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }
}
