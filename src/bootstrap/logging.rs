//! Log lines for containerd, in logfmt: a server's go into the fifo `log` of its bundle, those of `delete` to standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

use crate::names;
use crate::show::{Pairs, log_value};

struct Logger {
    /// Opened for reading too: a line must neither fail nor block while containerd is away. What does not fit into the
    /// fifo then is dropped.
    file: Option<File>,
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Sets the logger up, and sends panics its way.
pub(super) fn init(debug: bool) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("log")
        .ok();
    set(
        file,
        if debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        },
    );
    std::panic::set_hook(Box::new(|info| log::error!("panic: {info}")));
}

/// Warnings go to standard error, which containerd logs.
pub(super) fn to_stderr() {
    let file = std::io::stderr().as_fd().try_clone_to_owned();
    set(file.ok().map(File::from), LevelFilter::Warn);
}

fn set(file: Option<File>, level: LevelFilter) {
    if log::set_logger(LOGGER.get_or_init(|| Logger { file })).is_ok() {
        log::set_max_level(level);
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cofferdam") || metadata.level() <= Level::Warn
    }

    /// One `write` a line, so that lines of several shims never mix.
    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let Some(mut file) = self.file.as_ref() else {
            return;
        };
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warning",
            Level::Info => "info",
            Level::Debug | Level::Trace => "debug",
        };
        let mut line = format!(
            "time=\"{}\" level={level} runtime=cofferdam",
            crate::sys::time::rfc3339(SystemTime::now())
        );
        let pairs = record.key_values();
        pairs.visit(&mut Pairs(&mut line)).ok();
        let id = pairs.get("id".into()).map(|id| id.to_string());
        if let Some(names) = id.and_then(|id| names::registered(&id)) {
            let named = [
                ("k8s_namespace", names.namespace),
                ("pod", names.pod),
                ("container", names.container),
            ];
            for (key, name) in named {
                if let Some(name) = name {
                    line.push_str(&format!(" {key}={}", log_value(&name)));
                }
            }
        }
        let message = record.args().to_string();
        line.push_str(&format!(" msg={message:?}\n"));
        file.write_all(line.as_bytes()).ok();
    }

    fn flush(&self) {}
}
