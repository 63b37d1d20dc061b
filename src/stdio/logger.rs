//! Logger programs, `binary://PATH?KEY=VALUE`: containerd's `docs/cri/…` and `core/runtime/v2/README.md` "binary". The
//! program finds the streams on descriptors 3 (stdout) and 4 (stderr), and says on 5 that it is ready.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use super::Owner;
use super::fifo::pipe;
use crate::oci::streams::path_of;
use crate::sys::process::{self, Child};

/// A logger that has not said that it is ready by then never will.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// After the end of its input. Then it is asked to stop.
const END_WITHIN: Duration = Duration::from_millis(500);
/// After SIGTERM, as containerd's own shim has it. Then it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// How many loggers were asked to finish and have not.
static FINISHING: Mutex<usize> = Mutex::new(0);
static FINISHED: Condvar = Condvar::new();

/// A logger that was asked to finish and has not.
struct Finishing(());

impl Finishing {
    fn begin() -> Self {
        *finishing() += 1;
        Self(())
    }
}

impl Drop for Finishing {
    fn drop(&mut self) {
        *finishing() -= 1;
        FINISHED.notify_all();
    }
}

fn finishing() -> MutexGuard<'static, usize> {
    FINISHING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until every logger that was asked to finish has: to be called before the shim ends, or nobody makes them.
pub fn wait_for_all() {
    let all = FINISHED.wait_while(finishing(), |left| *left > 0);
    drop(all.unwrap_or_else(PoisonError::into_inner));
}

/// Why there is no logger.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoggerError {
    /// It cannot be started, or waited for.
    #[error(transparent)]
    System(#[from] std::io::Error),
    /// It took too long.
    #[error("the logger was not ready within {READY_WITHIN:?}")]
    NotReady,
    /// It does not run any more.
    #[error("the logger ended before it was ready")]
    Ended,
}

/// A logger that runs. Dropped, it is killed and reaped.
#[derive(Debug)]
pub(super) struct Logger(Child);

impl Logger {
    /// Starts the program and waits until it is ready. Returns the write ends of the two streams.
    pub(crate) fn start(
        uri: &str,
        needs_byte: bool,
        owner: &Owner<'_>,
    ) -> Result<(Self, OwnedFd, OwnedFd), LoggerError> {
        let query = uri.split_once('?').map_or("", |(_, query)| query);
        let mut command = Command::new(path_of(uri));
        for (key, value) in query
            .split('&')
            .filter(|q| !q.is_empty())
            .map(|q| q.split_once('=').unwrap_or((q, "")))
        {
            command.arg(decode(key));
            if !value.is_empty() {
                command.arg(decode(value));
            }
        }
        command
            .env_clear()
            .env("CONTAINER_ID", owner.id)
            .env("CONTAINER_NAMESPACE", owner.namespace);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let (out_read, out_write) = pipe()?;
        let (err_read, err_write) = pipe()?;
        let (ready_read, ready_write) = pipe()?;
        process::pass_descriptors(&mut command, vec![out_read, err_read, ready_write], 3);
        let this = Self(process::spawn(&mut command)?);
        drop(command); // and with it our copies of the logger's ends
        wait_ready(&ready_read, needs_byte)?;
        Ok((this, out_write, err_write))
    }

    /// Lets the logger finish: it has seen the end of both streams. Asks, then forces, in the background.
    pub(crate) fn stop(self) {
        // Dropped after the logger.
        let finishing = Finishing::begin();
        let finish = move || {
            let _finishing = finishing;
            let Self(child) = self;
            if let Ok(None) = child.wait_within(END_WITHIN) {
                child.signal(libc::SIGTERM);
                child.wait_within(STOP_WITHIN).ok();
            }
        };
        if let Err(e) = std::thread::Builder::new().spawn(finish) {
            log::warn!(error:% = e; "a logger was killed: no thread to wait for its end");
        }
    }
}

/// Ready is the close of descriptor 5; `binary-v2` wants a byte before that, so that a crash is no readiness.
fn wait_ready(fd: &OwnedFd, needs_byte: bool) -> Result<(), LoggerError> {
    let system = |e: Errno| LoggerError::System(e.into());
    if !process::wait_readable(fd.as_fd(), Some(READY_WITHIN)).map_err(system)? {
        return Err(LoggerError::NotReady);
    }
    match process::read(fd.as_fd(), &mut [0; 1]).map_err(system)? {
        0 if needs_byte => Err(LoggerError::Ended),
        _ => Ok(()),
    }
}

/// Percent-decoding of a URI's query.
fn decode(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        match b {
            b'+' => out.push(b' '),
            b'%' => {
                let hex: Vec<u8> = bytes.by_ref().take(2).collect();
                let value = std::str::from_utf8(&hex).ok();
                if let Some(v) = value.and_then(|h| u8::from_str_radix(h, 16).ok()) {
                    out.push(v);
                } else {
                    out.push(b'%');
                    out.extend(hex);
                }
            }
            b => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #[test]
    fn queries_are_decoded() {
        assert_eq!(super::decode("a%20b+c%2Fd%zz"), "a b c/d%zz");
    }
}
