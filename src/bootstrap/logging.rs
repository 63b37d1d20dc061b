//! Log lines for containerd: logfmt into the fifo `log` of the bundle that the server was started for.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::OnceLock;
use std::time::SystemTime;

use log::{Level, LevelFilter, Log, Metadata, Record};

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
    if log::set_logger(LOGGER.get_or_init(|| Logger { file })).is_ok() {
        log::set_max_level(if debug {
            LevelFilter::Debug
        } else {
            LevelFilter::Info
        });
    }
    std::panic::set_hook(Box::new(|info| {
        log::error!("msg={:?}", format!("panic: {info}"))
    }));
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
        let text = record.args().to_string();
        // Our own lines are logfmt already; those of libraries are plain text.
        let text = if record.target().starts_with("cofferdam") {
            text
        } else {
            format!("msg={text:?}")
        };
        file.write_all(
            format!(
                "time=\"{}\" level={level} runtime=cofferdam {text}\n",
                rfc3339(SystemTime::now())
            )
            .as_bytes(),
        )
        .ok();
    }

    fn flush(&self) {}
}

/// Seconds since 1970 as a date, by the civil calendar.
fn rfc3339(at: SystemTime) -> String {
    let since = at
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let (days, seconds) = (since.as_secs() / 86400, since.as_secs() % 86400);
    // Days from 1 March of year 0, in eras of 400 years: H. Hinnant, "chrono-Compatible Low-Level Date Algorithms".
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (
        doy - (153 * mp + 2) / 5 + 1,
        if mp < 10 { mp + 3 } else { mp - 9 },
    );
    let year = yoe + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:06}Z",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_micros()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dates() {
        let at = |s| rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(at(0), "1970-01-01T00:00:00.000000Z");
        assert_eq!(at(951_782_400), "2000-02-29T00:00:00.000000Z");
        assert_eq!(at(1_795_478_399), "2026-11-23T23:59:59.000000Z");
    }
}
