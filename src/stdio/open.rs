//! Opening streams: from addresses to the process's own descriptors, and what the shim keeps.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use super::fifo::{Fifo, pipe};
use super::logger::Logger;
use super::{Flow, Owner, Pending, Result, Sink, StdioUris, Streams};
use crate::isolation::Judged;
use crate::oci::streams::{Target, bad_address, target};
use crate::{executor, sys};

/// Nothing, to be read or written: a device of our own, never the node's file.
fn null(write: bool) -> Result<OwnedFd> {
    let flags = if write {
        libc::O_WRONLY
    } else {
        libc::O_RDONLY
    };
    sys::null::open(flags).map_err(|e| bad_address("stdio", "/dev/null", e.desc()))
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
            return Ok((executor::Stdio::Terminal { size, plain: false }, this));
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
                let (reader, writer) = super::fifo::open_input(&path).map_err(bad)?;
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
}
