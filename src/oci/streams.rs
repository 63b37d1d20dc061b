//! The addresses of a process's streams, and what each leads to.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

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

pub(crate) type Result<T> = std::result::Result<T, Error>;

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

/// Scheme and rest of an address; a plain path is a fifo's.
fn parts(address: &str) -> (&str, &str) {
    address.split_once("://").unwrap_or(("fifo", address))
}

/// The path in the rest of an address.
pub(crate) fn path_of(rest: &str) -> PathBuf {
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
pub fn effects(a: &StdioUris) -> Result<Vec<Effect>> {
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

pub(crate) enum Target {
    None,
    Fifo(PathBuf),
    File(PathBuf),
    Binary { uri: String, needs_byte: bool },
}

pub(crate) fn target(stream: &'static str, address: &str, no_files: bool) -> Result<Target> {
    let bad = |reason: String| bad_address(stream, address, reason);
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

pub(crate) fn bad_address(stream: &'static str, address: &str, reason: impl ToString) -> Error {
    Error::Address {
        stream,
        address: address.to_owned(),
        reason: reason.to_string(),
    }
}
