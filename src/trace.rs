//! A trace of what the shim does, for people: `COFFERDAM_TRACE=FILE` in containerd's environment appends an event for each phase,
//! with microseconds, from the execution of the shim to the execution of the user's program. The format is Chrome's "Trace
//! Event Format" (a JSON array, whose end may be missing), which <https://ui.perfetto.dev> and `chrome://tracing` open.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::OnceLock;

use nix::time::{ClockId, clock_gettime};

const VARIABLE: &str = "COFFERDAM_TRACE";

static FILE: OnceLock<Option<File>> = OnceLock::new();

fn file() -> Option<&'static File> {
    FILE.get_or_init(|| {
        let path = std::env::var_os(VARIABLE).filter(|p| !p.is_empty())?;
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.ok()?;
        if file.metadata().is_ok_and(|m| m.len() == 0) {
            (&file).write_all(b"[\n").ok();
        }
        Some(file)
    })
    .as_ref()
}

/// Whether somebody wants one.
pub fn is_on() -> bool {
    file().is_some()
}

/// Nanoseconds of the machine's monotonic clock, the same in all processes.
pub fn now() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

fn nanoseconds(clock: ClockId) -> u64 {
    clock_gettime(clock).map_or(0, |t| {
        t.tv_sec().cast_unsigned() * 1_000_000_000 + t.tv_nsec().cast_unsigned()
    })
}

/// The phase before our first instruction: from the fork by whoever started this process, by way of `execve(2)` and the loading of
/// the program, to here. It is as long as this process has run and has waited for a processor.
pub fn beginning(name: &'static str) {
    if !is_on() {
        return;
    }
    // Its second number; the first is brought up to date now and then only.
    let account = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let waited = account.split_whitespace().nth(1);
    let waited = waited.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    // The clock last: whatever was spent lies before it.
    let ran = nanoseconds(ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let now = now();
    event(
        name,
        own_pid(),
        thread(),
        now.saturating_sub(ran + waited),
        now,
    );
}

/// A phase, which ends when this is dropped.
#[derive(Debug)]
pub struct Span {
    name: &'static str,
    began: u64,
}

/// Begins a phase.
pub fn span(name: &'static str) -> Option<Span> {
    is_on().then(|| Span { name, began: now() })
}

impl Drop for Span {
    fn drop(&mut self) {
        event(self.name, own_pid(), thread(), self.began, now());
    }
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

fn thread() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// A phase of a process, from one time to another.
pub fn event(name: &str, pid: i32, thread: i32, from: u64, to: u64) {
    let Some(mut file) = file() else { return };
    let micro = |ns: u64| ns as f64 / 1000.0;
    let event = serde_json::json!({
        "name": name, "ph": "X", "cat": "cofferdam", "pid": pid, "tid": thread,
        "ts": micro(from), "dur": micro(to.saturating_sub(from)),
    });
    // One write: other processes append, too.
    file.write_all(format!("{event},\n").as_bytes()).ok();
}
