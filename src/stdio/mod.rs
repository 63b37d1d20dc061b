//! Standard streams: from the addresses that containerd names (fifos, files, logger programs) to descriptors of the
//! container's process, and what the shim holds or does meanwhile.
//!
//! A fifo, file or logger pipe is the process's own descriptor wherever that is exact; only where a descendant may hold a
//! stream open after its process (execs, pods that share a pid namespace), and for terminals, is there a [`relay`].

mod fifo;
mod logger;
mod relay;

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::{Instant, sleep};

use crate::isolation::Judged;
use crate::{executor, sys};
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

/// What went wrong with a stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be used.
    #[error("{stream} {address:?}: {reason}")]
    Address {
        /// `stdin`, `stdout` or `stderr`.
        stream: &'static str,
        /// As containerd gave it.
        address: String,
        /// What is wrong.
        reason: String,
    },
}

type Result<T> = std::result::Result<T, Error>;

/// The addresses of a process's streams, as in containerd's requests; empty means none.
#[derive(Debug, Clone, Default)]
pub struct StdioUris {
    /// A fifo.
    pub stdin: String,
    /// A fifo, `fifo://`, `file://`, `binary://` or `binary-v2://` address.
    pub stdout: String,
    /// The same; unused with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
    /// Whether they may lead to nothing but fifos and loggers. A profile sets it: a file is any file of the node's.
    pub no_files: bool,
}

impl StdioUris {
    /// The programs among them, with the stream that each is for.
    pub fn loggers(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let both = [("stdout", &self.stdout), ("stderr", &self.stderr)];
        both.into_iter().filter_map(|(stream, address)| {
            let (scheme, rest) = parts(address);
            matches!(scheme, "binary" | "binary-v2").then(|| (stream, path_of(rest)))
        })
    }
}

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

/// Scheme and rest of an address; a plain path is a fifo's.
fn parts(address: &str) -> (&str, &str) {
    address.split_once("://").unwrap_or(("fifo", address))
}

/// The path in the rest of an address.
fn path_of(rest: &str) -> PathBuf {
    PathBuf::from(rest.split('?').next().unwrap_or(rest))
}

/// What streams lead to.
#[cfg(any(test, fuzzing, feature = "sabotage"))]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// A program of the node's is started.
    Program(PathBuf),
    /// A fifo is opened.
    Fifo(PathBuf),
    /// Any file is opened, or made.
    File(PathBuf),
}

/// For tests: what opening them does to the node.
///
/// # Errors
/// As for opening them.
#[cfg(any(test, fuzzing, feature = "sabotage"))]
pub fn effects(a: &Judged<StdioUris>) -> Result<Vec<Effect>> {
    let mut out = Vec::new();
    for (stream, address) in [
        ("stdin", &a.stdin),
        ("stdout", &a.stdout),
        ("stderr", &a.stderr),
    ] {
        out.extend(match target(stream, address, a.no_files)? {
            Target::None => None,
            Target::Fifo(path) => Some(Effect::Fifo(path)),
            Target::File(path) => Some(Effect::File(path)),
            // A logger is no input: opening refuses it.
            Target::Binary { .. } if stream == "stdin" => None,
            Target::Binary { uri, .. } => Some(Effect::Program(path_of(&uri))),
        });
    }
    Ok(out)
}

enum Target {
    None,
    Fifo(PathBuf),
    File(PathBuf),
    Binary { uri: String, needs_byte: bool },
}

fn target(stream: &'static str, address: &str, no_files: bool) -> Result<Target> {
    let bad = |reason: String| Error::Address {
        stream,
        address: address.to_owned(),
        reason,
    };
    if address.is_empty() {
        return Ok(Target::None);
    }
    let file = |path| {
        if no_files {
            Err(bad(
                "is not a fifo, and the profile allows no files here: use a fifo, or a logger that pod.loggers of the profile has"
                    .into(),
            ))
        } else {
            Ok(Target::File(path))
        }
    };
    let (scheme, rest) = parts(address);
    let path = || {
        let path = path_of(rest);
        if path.is_absolute() {
            Ok(path)
        } else {
            Err(bad("the path must be absolute".into()))
        }
    };
    match scheme {
        "fifo" => {
            let path = path()?;
            match fs::metadata(&path) {
                Ok(m) if m.file_type().is_fifo() => Ok(Target::Fifo(path)),
                Ok(m) if m.is_file() => file(path),
                Ok(_) => Err(bad("is neither a fifo nor a file".into())),
                Err(e) => Err(bad(e.to_string())),
            }
        }
        "file" => file(path()?),
        "binary" | "binary-v2" => {
            path()?;
            Ok(Target::Binary {
                uri: rest.to_owned(),
                needs_byte: scheme == "binary-v2",
            })
        }
        other => Err(bad(format!(
            "the scheme {other:?} is not supported; use a fifo, file:// or binary://"
        ))),
    }
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

/// Nothing, to be read or written: a device of our own, never the node's file.
fn null(write: bool) -> Result<OwnedFd> {
    let flags = if write {
        libc::O_WRONLY
    } else {
        libc::O_RDONLY
    };
    sys::null::open(flags).map_err(|e| Error::Address {
        stream: "stdio",
        address: "/dev/null".into(),
        reason: e.desc().to_owned(),
    })
}

/// Appends to the file, making it and its directory.
fn open_file(path: &Path) -> io::Result<OwnedFd> {
    if let Some(dir) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dir)?;
    }
    Ok(fs::OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o644)
        .open(path)?
        .into())
}

impl Streams {
    /// Opens everything. `direct` says that no descendant can outlive the process, so that it may have containerd's
    /// fifos themselves. May block on a logger's start: call it off the event loop.
    pub fn open(
        a: &Judged<StdioUris>,
        owner: &Owner<'_>,
        direct: bool,
        size: Option<(u16, u16)>,
    ) -> Result<(executor::Stdio, Self)> {
        let mut this = Self::default();
        if a.terminal {
            this.open_terminal(a, owner)?;
            return Ok((executor::Stdio::Terminal { size }, this));
        }
        let stdin = match this.open_stdin(&a.stdin, a.no_files)? {
            Some(fd) => fd,
            None => null(false)?,
        };
        let (stdout, stderr) = this.open_outputs(a, owner, direct)?;
        Ok((executor::Stdio::Files([stdin, stdout, stderr]), this))
    }

    /// Both outputs. Where they have one address, they share what it leads to: a file, a fifo or a logger.
    fn open_outputs(
        &mut self,
        a: &StdioUris,
        owner: &Owner<'_>,
        direct: bool,
    ) -> Result<(OwnedFd, OwnedFd)> {
        let shared = a.stdout == a.stderr;
        if let Target::Binary { uri, needs_byte } = target("stdout", &a.stdout, a.no_files)? {
            let (out, err) = self.start_logger("stdout", &a.stdout, &uri, needs_byte, owner)?;
            let err = if shared {
                err
            } else {
                self.open_output("stderr", a, owner, direct)?
            };
            return Ok((out, err));
        }
        let out = self.open_output("stdout", a, owner, direct)?;
        let err = if shared {
            out.try_clone()
                .map_err(|e| bad_address("stderr", &a.stderr, e))?
        } else {
            self.open_output("stderr", a, owner, direct)?
        };
        Ok((out, err))
    }

    /// The process's end of one output.
    fn open_output(
        &mut self,
        stream: &'static str,
        a: &StdioUris,
        owner: &Owner<'_>,
        direct: bool,
    ) -> Result<OwnedFd> {
        let (address, no_files) = match stream {
            "stdout" => (a.stdout.as_str(), a.no_files),
            _ => (a.stderr.as_str(), a.no_files),
        };
        let bad = |e: io::Error| bad_address(stream, address, e);
        match target(stream, address, no_files)? {
            Target::None => null(true),
            Target::File(path) => open_file(&path).map_err(bad),
            Target::Binary { uri, needs_byte } => {
                let (out, err) = self.start_logger(stream, address, &uri, needs_byte, owner)?;
                Ok(if stream == "stdout" { out } else { err })
            }
            Target::Fifo(path) => {
                let fifo = Arc::new(Fifo::open(&path).map_err(bad)?);
                let (fd, source) = if direct {
                    self.direct.push(fifo.clone());
                    (fifo.writer().map_err(bad)?, None)
                } else {
                    let (reader, writer) = pipe().map_err(bad)?;
                    let source = reader.try_clone().map_err(bad)?;
                    self.pending.push(Pending::Pipe {
                        source: reader,
                        fifo: fifo.clone(),
                    });
                    (writer, Some(source))
                };
                self.flows.push(Flow {
                    fifo,
                    source,
                    terminal: None,
                });
                // For who reopens /dev/stdout; a host whose LSM forbids it loses only that.
                sys::fchown(fd.as_fd(), owner.user.0, owner.user.1).ok();
                Ok(fd)
            }
        }
    }

    fn start_logger(
        &mut self,
        stream: &'static str,
        address: &str,
        uri: &str,
        needs_byte: bool,
        owner: &Owner<'_>,
    ) -> Result<(OwnedFd, OwnedFd)> {
        let (logger, out, err) = Logger::start(uri, needs_byte, owner)
            .map_err(|reason| bad_address(stream, address, reason))?;
        self.loggers.push(logger);
        Ok((out, err))
    }

    fn open_stdin(&mut self, address: &str, no_files: bool) -> Result<Option<OwnedFd>> {
        let bad = |e: io::Error| bad_address("stdin", address, e);
        match target("stdin", address, no_files)? {
            Target::None => Ok(None),
            Target::Fifo(path) => {
                let (reader, writer) = fifo::open_input(&path).map_err(bad)?;
                self.stdin = Some(writer);
                Ok(Some(reader))
            }
            Target::File(path) => Ok(Some(fs::File::open(path).map_err(bad)?.into())),
            Target::Binary { .. } => {
                Err(bad_address("stdin", address, "a logger cannot be an input"))
            }
        }
    }

    fn open_terminal(&mut self, a: &StdioUris, owner: &Owner<'_>) -> Result<()> {
        let bad = |e: io::Error| bad_address("stdout", &a.stdout, e);
        let sink = match target("stdout", &a.stdout, a.no_files)? {
            Target::None => None,
            Target::Fifo(path) => Some(Sink::Fifo(Arc::new(Fifo::open(&path).map_err(bad)?))),
            Target::File(path) => Some(Sink::File(open_file(&path).map_err(bad)?)),
            Target::Binary { uri, needs_byte } => {
                let (out, _) = self.start_logger("stdout", &a.stdout, &uri, needs_byte, owner)?;
                Some(Sink::File(out))
            }
        };
        self.pending.push(Pending::Terminal { sink });
        self.terminal_input = self.open_stdin(&a.stdin, a.no_files)?;
        Ok(())
    }

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

fn bad_address(stream: &'static str, address: &str, reason: impl ToString) -> Error {
    Error::Address {
        stream,
        address: address.to_owned(),
        reason: reason.to_string(),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}
