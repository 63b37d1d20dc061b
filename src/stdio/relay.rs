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
use tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use tokio::sync::watch;
use tokio::task::consume_budget;
use tokio::time::{sleep, timeout};

use super::Sink;
use super::fifo::Fifo;
use crate::sys::process;

/// After its process, a source that stays silent for this long is left.
const QUIET: Duration = Duration::from_millis(500);
/// How long a relay waits before it looks again, where no event tells it when.
const STUCK: Duration = Duration::from_millis(50);
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
    crate::sys::reactor::register(fd, Interest::READABLE | Interest::WRITABLE)
}

/// Waits until a read from the source would not block. False if it is time to leave it.
async fn wait_readable(source: &AsyncFd<OwnedFd>, phases: &mut Phases) -> bool {
    let patience = |phase| match phase {
        Phase::Running => None,
        Phase::Exited => Some(QUIET),
        Phase::Closing => Some(Duration::ZERO),
    };
    wait(source, Interest::READABLE, phases, patience).await
}

/// Waits until a write to the sink would not block. False if the process is deleted and its reader has had its time.
async fn wait_writable(sink: &AsyncFd<OwnedFd>, phases: &mut Phases) -> bool {
    let patience = |phase| (phase == Phase::Closing).then_some(Duration::from_secs(1));
    wait(sink, Interest::WRITABLE, phases, patience).await
}

/// Waits until an operation of this kind would not block; in each phase of the process as long as `patience` says, or without a
/// limit. False if that time is over.
async fn wait(
    fd: &AsyncFd<OwnedFd>,
    kind: Interest,
    phases: &mut Phases,
    patience: impl Fn(Phase) -> Option<Duration>,
) -> bool {
    loop {
        // Others have their turn, whatever the event loop remembers of this descriptor.
        consume_budget().await;
        let patience = patience(*phases.borrow_and_update());
        let over = async {
            match patience {
                None => std::future::pending().await,
                Some(Duration::ZERO) => {}
                Some(time) => sleep(time).await,
            }
        };
        tokio::select! {
            biased;
            ready = fd.ready(kind) => match ready {
                Ok(ready) => match look(ready, kind) {
                    Readiness::True => return true,
                    Readiness::Forgotten => {}
                    Readiness::Stuck => sleep(STUCK).await,
                },
                Err(_) => return false,
            },
            changed = phases.changed() => if changed.is_err() { return false },
            () = over => return false,
        }
    }
}

/// What becomes of a readiness that the event loop remembers.
enum Readiness {
    /// It is true.
    True,
    /// It was not, and is forgotten.
    Forgotten,
    /// It was not, and the event loop does not forget it: the other side was closed once. A terminal's is opened again.
    Stuck,
}

/// Looks whether a readiness is true. The guard is older than the look, so an event that comes in between is never forgotten.
fn look(mut ready: AsyncFdReadyGuard<'_, OwnedFd>, kind: Interest) -> Readiness {
    if is_ready(ready.get_inner(), kind) {
        ready.retain_ready();
        return Readiness::True;
    }
    let closed = ready.ready().is_read_closed() || ready.ready().is_write_closed();
    ready.clear_ready();
    if closed {
        Readiness::Stuck
    } else {
        Readiness::Forgotten
    }
}

/// Whether an operation of this kind would not block now.
fn is_ready(fd: &OwnedFd, kind: Interest) -> bool {
    let events = if kind.is_readable() {
        PollFlags::POLLIN
    } else {
        PollFlags::POLLOUT
    };
    let mut fds = [PollFd::new(fd.as_fd(), events)];
    nix::poll::poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0)
}

/// A process's pipe into its fifo.
pub(super) async fn pipe(source: AsyncFd<OwnedFd>, fifo: Arc<Fifo>, mut phases: Phases) {
    let Ok(sink) = fifo.non_blocking_writer().and_then(non_blocking) else {
        return;
    };
    loop {
        // Others have their turn, however fast this source is.
        consume_budget().await;
        match process::splice(source.as_fd(), sink.as_fd(), CHUNK) {
            Ok(0) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            // One of the two: see which, or the wrong one would be waited for, for ever.
            Err(Errno::EAGAIN) => {
                let goes_on = if is_ready(source.get_ref(), Interest::READABLE) {
                    wait_writable(&sink, &mut phases).await
                } else {
                    wait_readable(&source, &mut phases).await
                };
                if !goes_on {
                    break;
                }
            }
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
            Ok(0) => break,
            Ok(n) => n,
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            // Nobody has the other side open now. Somebody may open it again as long as the process is there.
            Err(Errno::EIO) if *phases.borrow() == Phase::Running => {
                if let Ok(Err(_)) = timeout(STUCK, phases.changed()).await {
                    break; // nobody will say any more that the process has ended
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
            Err(Errno::EAGAIN | Errno::EINTR) => continue,
            Err(_) => break,
        };
        let mut rest = buffer.get(..n).unwrap_or_default();
        while !rest.is_empty() {
            match nix::unistd::write(master.get_ref(), rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(Errno::EAGAIN) => {
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

#[cfg(test)]
mod tests;
