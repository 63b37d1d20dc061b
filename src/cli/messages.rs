//! Messages for people: on standard error, and where `--log` says.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::OnceLock;

use log::Level;

use super::args::{Global, LogFormat, LogLevel, LogTarget};
use super::{Error, Result};
use crate::show::{Pairs, shown_lines};

/// Where systemd's journal takes messages: systemd.io, "Native Journal Protocol".
const JOURNAL: &str = "/run/systemd/journal/socket";
/// Where syslog(3) sends them.
const SYSLOG: &str = "/dev/log";

/// Where messages go, which, and in which form.
pub(super) struct Messages {
    log: Option<LogTarget>,
    format: Option<LogFormat>,
    level: log::LevelFilter,
}

pub(super) static MESSAGES: OnceLock<Messages> = OnceLock::new();

/// As runc's log and the field's tools name it.
fn name(level: Level) -> &'static str {
    match level {
        Level::Error => "error",
        Level::Warn => "warning",
        Level::Info => "info",
        Level::Debug | Level::Trace => "debug",
    }
}

/// syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

impl Messages {
    pub(crate) fn new(global: &Global) -> Self {
        let level = match global.log_level {
            _ if global.debug => log::LevelFilter::Debug,
            LogLevel::Error => log::LevelFilter::Error,
            LogLevel::Warning => log::LevelFilter::Warn,
            LogLevel::Info => log::LevelFilter::Info,
            LogLevel::Debug => log::LevelFilter::Debug,
        };
        Self {
            log: global.log.clone(),
            format: global.log_format,
            level,
        }
    }

    pub(crate) fn level(&self) -> log::LevelFilter {
        self.level
    }

    /// Whether the log's file can be written.
    pub(crate) fn try_log(&self) -> Result<()> {
        let Some(LogTarget::File(path)) = &self.log else {
            return Ok(());
        };
        let opened = open(path).map(drop);
        opened.map_err(Error::io(format!("--log: open {}", path.display())))
    }

    /// Errors are always on standard error: who called reads them there. All else is where the log is, unless it cannot be written.
    pub(crate) fn write(&self, level: Level, text: &str) {
        let logged = self
            .log
            .as_ref()
            .is_some_and(|target| self.write_log(target, level, text).is_ok());
        if logged && level != Level::Error {
            return;
        }
        let line = match self.format.filter(|_| self.log.is_none()) {
            Some(format) => formatted(format, level, text),
            None => format!("cofferdam: {}: {}", name(level), shown_lines(text)),
        };
        writeln!(std::io::stderr(), "{line}").ok();
    }

    fn write_log(&self, target: &LogTarget, level: Level, text: &str) -> std::io::Result<()> {
        let send = |to: &str, message: String| {
            UnixDatagram::unbound().and_then(|socket| socket.send_to(message.as_bytes(), to))
        };
        let one_line = || shown_lines(text).replace('\n', " ");
        match target {
            LogTarget::File(path) => {
                let line = formatted(self.format.unwrap_or(LogFormat::Text), level, text);
                writeln!(open(path)?, "{line}")
            }
            LogTarget::Journald(id) => {
                let (id, text, priority) = (shown_lines(id), one_line(), priority(level));
                let fields =
                    format!("SYSLOG_IDENTIFIER={id}\nPRIORITY={priority}\nMESSAGE={text}\n");
                send(JOURNAL, fields).map(drop)
            }
            LogTarget::Syslog(id) => {
                // Facility 3 is that of daemons.
                let priority = 3 << 3 | priority(level);
                let (id, pid) = (shown_lines(id), std::process::id());
                let line = format!("<{priority}>{id}[{pid}]: {}", one_line());
                send(SYSLOG, line).map(drop)
            }
        }
    }
}

fn open(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

fn formatted(format: LogFormat, level: Level, text: &str) -> String {
    let time = crate::sys::time::rfc3339(std::time::SystemTime::now());
    let level = name(level);
    match format {
        LogFormat::Json => {
            serde_json::json!({ "level": level, "msg": text, "time": time }).to_string()
        }
        LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
    }
}

impl log::Log for Messages {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= self.level
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut text = record.args().to_string();
            record.key_values().visit(&mut Pairs(&mut text)).ok();
            self.write(record.level(), &text);
        }
    }

    fn flush(&self) {}
}
