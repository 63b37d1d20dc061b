//! Logger programs, `binary://PATH?KEY=VALUE`: containerd's `docs/cri/…` and `core/runtime/v2/README.md` "binary". The
//! program finds the streams on descriptors 3 (stdout) and 4 (stderr), and says on 5 that it is ready.

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Owner, path_of, pipe};
use crate::sys::process;

/// A logger that has not said that it is ready by then never will.
const READY_WITHIN: Duration = Duration::from_secs(10);
/// After SIGTERM, as containerd's own shim has it.
const STOP_WITHIN: Duration = Duration::from_secs(12);

/// How many loggers were asked to finish and have not.
static FINISHING: Mutex<usize> = Mutex::new(0);
static FINISHED: Condvar = Condvar::new();

fn finishing() -> MutexGuard<'static, usize> {
    FINISHING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until every logger that was asked to finish has: to be called before the shim ends, or nobody makes them.
pub fn wait_for_all() {
    let all = FINISHED.wait_while(finishing(), |left| *left > 0);
    drop(all.unwrap_or_else(PoisonError::into_inner));
}

#[derive(Debug)]
pub(super) struct Logger {
    /// Taken by [`Logger::stop`]. Dropped before, it is killed and reaped.
    child: Option<Child>,
}

impl Drop for Logger {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }
}

impl Logger {
    /// Starts the program and waits until it is ready. Returns the write ends of the two streams.
    pub fn start(
        uri: &str,
        needs_byte: bool,
        owner: &Owner<'_>,
    ) -> Result<(Self, OwnedFd, OwnedFd), String> {
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
        let text = |e: std::io::Error| e.to_string();
        let (out_read, out_write) = pipe().map_err(text)?;
        let (err_read, err_write) = pipe().map_err(text)?;
        let (ready_read, ready_write) = pipe().map_err(text)?;
        process::pass_descriptors(&mut command, vec![out_read, err_read, ready_write], 3);
        let child = command.spawn().map_err(text)?;
        drop(command); // and with it our copies of the logger's ends
        let this = Self { child: Some(child) };
        wait_ready(&ready_read, needs_byte)?;
        Ok((this, out_write, err_write))
    }

    /// Lets the logger finish: it has seen the end of both streams. Asks, then forces, in the background.
    pub fn stop(mut self) {
        let Some(mut child) = self.child.take() else {
            return;
        };
        *finishing() += 1;
        std::thread::spawn(move || {
            let pid = child.id() as i32;
            let mut left = |deadline: Duration| {
                let end = Instant::now() + deadline;
                while Instant::now() < end {
                    if !matches!(child.try_wait(), Ok(None)) {
                        return false;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                true
            };
            if left(Duration::from_millis(500)) {
                process::kill(pid, libc::SIGTERM).ok();
                if left(STOP_WITHIN) {
                    process::kill(pid, libc::SIGKILL).ok();
                    left(Duration::from_secs(1));
                }
            }
            *finishing() -= 1;
            FINISHED.notify_all();
        });
    }
}

/// Ready is the close of descriptor 5; `binary-v2` wants a byte before that, so that a crash is no readiness.
fn wait_ready(fd: &OwnedFd, needs_byte: bool) -> Result<(), String> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout =
        PollTimeout::try_from(READY_WITHIN.as_millis() as i32).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
        Ok(0) => return Err(format!("the logger was not ready within {READY_WITHIN:?}")),
        Ok(_) => {}
        Err(e) => return Err(e.desc().to_owned()),
    }
    match process::read(fd.as_fd(), &mut [0; 1]) {
        Ok(0) if needs_byte => Err("the logger ended before it was ready".into()),
        Ok(_) => Ok(()),
        Err(e) => Err(e.desc().to_owned()),
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
