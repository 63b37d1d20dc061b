//! Standard streams: from the addresses that containerd names (fifos, files, logger programs) to descriptors of the
//! container's process, and what the shim holds or does meanwhile.
//!
//! A fifo, file or logger pipe is the process's own descriptor wherever that is exact; only where a descendant may hold a
//! stream open after its process (execs, pods that share a pid namespace), and for terminals, is there a [`relay`].

mod fifo;
mod logger;
mod relay;

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::{executor, sys};
use fifo::Fifo;
use logger::Logger;
use relay::Phase;

/// How long a deletion waits for a reader that is slow to take what is left.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);

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
pub struct Addresses {
    /// A fifo.
    pub stdin: String,
    /// A fifo, `fifo://`, `file://`, `binary://` or `binary-v2://` address.
    pub stdout: String,
    /// The same; unused with a terminal.
    pub stderr: String,
    /// Whether the process gets a terminal.
    pub terminal: bool,
}

/// Who the streams are for.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Container id; loggers are told.
    pub id: &'a str,
    /// containerd namespace; loggers are told.
    pub namespace: &'a str,
    /// User and group that the streams belong to, so that they can be opened again as /dev/stdout.
    pub user: (u32, u32),
}

enum Target {
    None,
    Fifo(PathBuf),
    File(PathBuf),
    Binary { uri: String, needs_byte: bool },
}

fn target(stream: &'static str, address: &str) -> Result<Target> {
    let bad = |reason: String| Error::Address {
        stream,
        address: address.to_owned(),
        reason,
    };
    if address.is_empty() {
        return Ok(Target::None);
    }
    let (scheme, rest) = address.split_once("://").unwrap_or(("fifo", address));
    let path = || {
        let path = PathBuf::from(rest.split('?').next().unwrap_or(rest));
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
                Ok(m) if m.is_file() => Ok(Target::File(path)),
                Ok(_) => Err(bad("is neither a fifo nor a file".into())),
                Err(e) => Err(bad(e.to_string())),
            }
        }
        "file" => Ok(Target::File(path()?)),
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
    Fifo(Fifo),
    File(OwnedFd),
}

/// A relay that waits for its source.
struct Pending {
    /// `None` for a terminal, whose master comes from the executor.
    source: Option<OwnedFd>,
    sink: Option<Sink>,
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
    direct: Vec<Fifo>,
    pending: Vec<Pending>,
    logger: Option<Logger>,
    phase: Option<watch::Sender<Phase>>,
    tasks: Vec<JoinHandle<()>>,
    master: Option<std::sync::Arc<tokio::io::unix::AsyncFd<OwnedFd>>>,
}

impl std::fmt::Debug for Streams {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Streams")
            .field("direct", &self.direct.len())
            .field("tasks", &self.tasks.len())
            .finish_non_exhaustive()
    }
}

fn null(write: bool) -> Result<OwnedFd> {
    let file = fs::OpenOptions::new()
        .read(!write)
        .write(write)
        .open("/dev/null");
    file.map(Into::into).map_err(|e| Error::Address {
        stream: "stdio",
        address: "/dev/null".into(),
        reason: e.to_string(),
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
        a: &Addresses,
        owner: &Owner<'_>,
        direct: bool,
        size: Option<(u16, u16)>,
    ) -> Result<(executor::Stdio, Self)> {
        let mut this = Self::default();
        if a.terminal {
            this.open_terminal(a, owner)?;
            return Ok((executor::Stdio::Terminal { size }, this));
        }
        let stdin = this.open_stdin(&a.stdin)?;
        let (stdin, _) = match stdin {
            Some(fd) => (fd, ()),
            None => (null(false)?, ()),
        };
        // One logger serves both streams.
        let mut by_address: HashMap<&str, OwnedFd> = HashMap::new();
        let mut outputs = Vec::new();
        for (stream, address) in [("stdout", a.stdout.as_str()), ("stderr", a.stderr.as_str())] {
            let io = |e: io::Error| Error::Address {
                stream,
                address: address.to_owned(),
                reason: e.to_string(),
            };
            let fd =
                match by_address.get(address) {
                    Some(same) => same.try_clone().map_err(io)?,
                    None => match target(stream, address)? {
                        Target::None => null(true)?,
                        Target::File(path) => open_file(&path).map_err(io)?,
                        Target::Fifo(path) => {
                            let fifo = Fifo::open(&path).map_err(io)?;
                            let fd = if direct {
                                let fd = fifo.writer().map_err(io)?;
                                this.direct.push(fifo);
                                fd
                            } else {
                                let (reader, writer) = pipe().map_err(io)?;
                                this.pending.push(Pending {
                                    source: Some(reader),
                                    sink: Some(Sink::Fifo(fifo)),
                                });
                                writer
                            };
                            // For who reopens /dev/stdout; a host whose LSM forbids it loses only that.
                            sys::fchown(fd.as_fd(), owner.user.0, owner.user.1).ok();
                            fd
                        }
                        Target::Binary { uri, needs_byte } => {
                            let (logger, out, err) = Logger::start(&uri, needs_byte, owner)
                                .map_err(|reason| Error::Address {
                                    stream,
                                    address: address.to_owned(),
                                    reason,
                                })?;
                            this.logger = Some(logger);
                            if stream == "stdout" && a.stderr == a.stdout {
                                outputs = vec![out, err];
                                break;
                            }
                            if stream == "stdout" { out } else { err }
                        }
                    },
                };
            if stream == "stdout" && !address.is_empty() {
                by_address.insert(address, fd.try_clone().map_err(io)?);
            }
            outputs.push(fd);
        }
        drop(by_address);
        let mut outputs = outputs.into_iter();
        let (Some(stdout), Some(stderr)) = (outputs.next(), outputs.next()) else {
            return Err(no_outputs());
        };
        Ok((executor::Stdio::Files([stdin, stdout, stderr]), this))
    }

    fn open_stdin(&mut self, address: &str) -> Result<Option<OwnedFd>> {
        let bad = |reason: String| Error::Address {
            stream: "stdin",
            address: address.to_owned(),
            reason,
        };
        match target("stdin", address)? {
            Target::None => Ok(None),
            Target::Fifo(path) => {
                let (reader, writer) = fifo::open_input(&path).map_err(|e| bad(e.to_string()))?;
                self.stdin = Some(writer);
                Ok(Some(reader))
            }
            Target::File(path) => fs::File::open(path)
                .map(|f| Some(f.into()))
                .map_err(|e| bad(e.to_string())),
            Target::Binary { .. } => Err(bad("a logger cannot be an input".into())),
        }
    }

    fn open_terminal(&mut self, a: &Addresses, owner: &Owner<'_>) -> Result<()> {
        let bad = |e: io::Error| Error::Address {
            stream: "stdout",
            address: a.stdout.clone(),
            reason: e.to_string(),
        };
        let sink = match target("stdout", &a.stdout)? {
            Target::None => None,
            Target::Fifo(path) => Some(Sink::Fifo(Fifo::open(&path).map_err(bad)?)),
            Target::File(path) => Some(Sink::File(open_file(&path).map_err(bad)?)),
            Target::Binary { uri, needs_byte } => {
                let (logger, out, _err) =
                    Logger::start(&uri, needs_byte, owner).map_err(|reason| Error::Address {
                        stream: "stdout",
                        address: a.stdout.clone(),
                        reason,
                    })?;
                self.logger = Some(logger);
                Some(Sink::File(out))
            }
        };
        self.pending.push(Pending { source: None, sink });
        self.terminal_input = self.open_stdin(&a.stdin)?;
        Ok(())
    }

    /// Starts the relays. `master` is the terminal's, if there is one. Runs on the event loop.
    pub fn run(&mut self, master: Option<OwnedFd>) -> io::Result<()> {
        let (phase, _) = watch::channel(Phase::Running);
        if let Some(master) = master {
            let master = std::sync::Arc::new(relay::non_blocking(master)?);
            self.master = Some(master.clone());
            if let Some(input) = self.terminal_input.take() {
                let input = relay::non_blocking(input)?;
                self.tasks.push(tokio::spawn(relay::terminal_input(
                    input,
                    master.clone(),
                    phase.subscribe(),
                )));
            }
            for Pending { sink, .. } in self.pending.drain(..) {
                self.tasks.push(tokio::spawn(relay::terminal_output(
                    master.clone(),
                    sink,
                    phase.subscribe(),
                )));
            }
        }
        for Pending { source, sink } in self.pending.drain(..) {
            if let (Some(source), Some(Sink::Fifo(fifo))) = (source, sink) {
                self.tasks.push(tokio::spawn(relay::pipe(
                    relay::non_blocking(source)?,
                    fifo,
                    phase.subscribe(),
                )));
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
        let logger = self.logger.take();
        async move {
            for mut task in tasks {
                if tokio::time::timeout(CLOSE_WITHIN, &mut task).await.is_err() {
                    task.abort();
                }
            }
            drop(master);
            if let Some(logger) = logger {
                logger.stop();
            }
        }
    }
}

fn no_outputs() -> Error {
    Error::Address {
        stream: "stdout",
        address: String::new(),
        reason: "not opened".into(),
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}
