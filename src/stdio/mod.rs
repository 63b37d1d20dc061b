//! Standard streams: from the addresses that containerd names (fifos, files, logger programs) to descriptors of the
//! container's process, and what the shim holds or does meanwhile.
//!
//! A fifo, file or logger pipe is the process's own descriptor wherever that is exact; only where a descendant may hold a
//! stream open after its process (execs, pods that share a pid namespace), and for terminals, is there a [`relay`].

mod fifo;
mod logger;
mod open;
mod relay;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

pub use crate::oci::streams::Error;
use crate::oci::streams::{Result, StdioUris};
use crate::sys;
use fifo::Fifo;
use logger::Logger;
pub use logger::wait_for_all as wait_for_loggers;
use relay::Phase;

/// How long a deletion waits for a reader that is slow to take what is left.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// How long an exit waits for a reader that takes nothing.
const STALLED: Duration = Duration::from_millis(100);
/// How long it waits for one that is slow.
const SETTLE_WITHIN: Duration = Duration::from_secs(2);

/// Who the streams are for.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Container id, passed to loggers.
    pub id: &'a str,
    /// containerd namespace, passed to loggers.
    pub namespace: &'a str,
    /// User and group that the streams belong to, so that they can be opened again as /dev/stdout.
    pub user: (u32, u32),
}

/// Where a relay's bytes go.
enum Sink {
    Fifo(Arc<Fifo>),
    File(OwnedFd),
}

/// An output on its way to a fifo's reader.
struct Flow {
    fifo: Arc<Fifo>,
    /// Our end of the process's pipe, where a relay is between it and the fifo.
    source: Option<OwnedFd>,
    /// The relay of a terminal, which ends when nobody has the terminal open any more.
    terminal: Option<AbortHandle>,
}

impl Flow {
    /// Bytes that the reader has not taken yet.
    fn left(&self) -> usize {
        let in_pipe = |s: &OwnedFd| sys::process::bytes_waiting(s.as_fd()).unwrap_or(0);
        let in_terminal = self.terminal.as_ref().is_some_and(|t| !t.is_finished());
        self.fifo.waiting() + self.source.as_ref().map_or(0, in_pipe) + usize::from(in_terminal)
    }
}

/// A relay that starts when its process does.
enum Pending {
    Pipe {
        source: OwnedFd,
        fifo: Arc<Fifo>,
    },
    /// The terminal's master comes from the executor.
    Terminal {
        sink: Option<Sink>,
    },
}

/// The shim's side of one process's streams.
#[derive(Default)]
pub struct Streams {
    /// Our write end of the stdin fifo: while it is open the process sees no end of input. `CloseIO` closes it.
    stdin: Option<OwnedFd>,
    /// `CloseIO` was called, perhaps before there was anything to close.
    stdin_closed: bool,
    /// Our read end of the stdin fifo, for a terminal.
    terminal_input: Option<OwnedFd>,
    direct: Vec<Arc<Fifo>>,
    flows: Vec<Flow>,
    pending: Vec<Pending>,
    loggers: Vec<Logger>,
    phase: Option<watch::Sender<Phase>>,
    tasks: Vec<JoinHandle<()>>,
    master: Option<Arc<tokio::io::unix::AsyncFd<OwnedFd>>>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("direct", &self.direct.len())
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

impl Streams {
    /// Starts the relays, on the runtime that this runs in. `master` is the terminal's, if there is one.
    pub fn run(&mut self, master: Option<OwnedFd>) -> io::Result<()> {
        let (phase, _) = watch::channel(Phase::Running);
        self.master = master.map(relay::non_blocking).transpose()?.map(Arc::new);
        if let (Some(master), Some(input)) = (&self.master, self.terminal_input.take()) {
            let input = relay::non_blocking(input)?;
            let relay = relay::terminal_input(input, master.clone(), phase.subscribe());
            self.tasks.push(tokio::spawn(relay));
        }
        for pending in self.pending.drain(..) {
            match (pending, &self.master) {
                (Pending::Pipe { source, fifo }, _) => {
                    let source = relay::non_blocking(source)?;
                    self.tasks
                        .push(tokio::spawn(relay::pipe(source, fifo, phase.subscribe())));
                }
                (Pending::Terminal { sink }, Some(master)) => {
                    let fifo = if let Some(Sink::Fifo(fifo)) = &sink {
                        Some(fifo.clone())
                    } else {
                        None
                    };
                    let relay = relay::terminal_output(master.clone(), sink, phase.subscribe());
                    let task = tokio::spawn(relay);
                    let terminal = Some(task.abort_handle());
                    self.flows.extend(fifo.map(|fifo| Flow {
                        fifo,
                        source: None,
                        terminal,
                    }));
                    self.tasks.push(task);
                }
                (Pending::Terminal { .. }, None) => {}
            }
        }
        self.phase = Some(phase);
        Ok(())
    }

    /// Closes our write end of the input: the process sees its end once the client has closed its own.
    pub fn close_stdin(&mut self) {
        self.stdin = None;
        self.stdin_closed = true;
    }

    /// Takes the streams of an exec that is being started. Its client may have closed the input since they were opened.
    pub fn adopt(&mut self, mut opened: Self) {
        if self.stdin_closed {
            opened.close_stdin();
        }
        *self = opened;
    }

    /// The terminal's master, to resize it.
    pub fn master(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        self.master.as_ref().map(|m| m.get_ref().as_fd())
    }

    /// The process is gone: let readers see the end, once they have read what is there.
    pub fn process_exited(&mut self) {
        self.stdin = None;
        let Some(phase) = &self.phase else { return };
        for fifo in self.direct.drain(..) {
            // What nobody has read yet (containerd may be restarting) would be lost with the last descriptor.
            if fifo.waiting() > 0 {
                self.tasks
                    .push(tokio::spawn(relay::linger(fifo, phase.subscribe())));
            }
        }
        phase.send_replace(Phase::Exited);
    }

    /// Waits until readers have taken what the process wrote. To be awaited between a process's end and its announcement:
    /// clients stop reading when they hear of it. A reader that is away, or a descendant that goes on writing, delays it for
    /// a short time only.
    pub fn settle(&mut self) -> impl Future<Output = ()> + Send + 'static {
        let flows = std::mem::take(&mut self.flows);
        async move {
            let begun = Instant::now();
            let (mut before, mut moved) = (0, begun);
            loop {
                let left: usize = flows.iter().map(Flow::left).sum();
                if left == 0 || moved.elapsed() > STALLED || begun.elapsed() > SETTLE_WITHIN {
                    return;
                }
                if left != before {
                    (before, moved) = (left, Instant::now());
                }
                sleep(Duration::from_millis(1)).await;
            }
        }
    }

    /// Ends everything, giving readers a short time for the rest.
    pub fn close(&mut self) -> impl Future<Output = ()> + Send + 'static {
        self.stdin = None;
        self.terminal_input = None;
        self.direct.clear();
        self.pending.clear();
        if let Some(phase) = &self.phase {
            phase.send_replace(Phase::Closing);
        }
        let tasks = std::mem::take(&mut self.tasks);
        let master = self.master.take();
        let loggers = std::mem::take(&mut self.loggers);
        async move {
            for mut task in tasks {
                if tokio::time::timeout(CLOSE_WITHIN, &mut task).await.is_err() {
                    task.abort();
                }
            }
            drop(master);
            loggers.into_iter().for_each(Logger::stop);
        }
    }
}
