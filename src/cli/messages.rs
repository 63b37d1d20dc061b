//! Messages for people: on standard error, and in the file of `--log`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use super::args::LogFormat;
use crate::show::{Pairs, shown_lines};

/// Where they go.
pub(super) struct Messages {
    pub log: Option<PathBuf>,
    pub format: LogFormat,
}

pub(super) static MESSAGES: OnceLock<Messages> = OnceLock::new();

impl Messages {
    pub(crate) fn write(&self, level: &str, text: &str) {
        let prefix = if level == "error" { "" } else { "warning: " };
        writeln!(
            std::io::stderr(),
            "cofferdam: {prefix}{}",
            shown_lines(text)
        )
        .ok();
        let Some(path) = &self.log else { return };
        let time = crate::sys::time::rfc3339(std::time::SystemTime::now());
        let line = match self.format {
            LogFormat::Json => {
                serde_json::json!({ "level": level, "msg": text, "time": time }).to_string()
            }
            LogFormat::Text => format!("time=\"{time}\" level={level} msg={text:?}"),
        };
        if let Ok(mut file) = OpenOptions::new().create(true).append(true).open(path) {
            writeln!(file, "{line}").ok();
        }
    }
}

impl log::Log for Messages {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let mut text = record.args().to_string();
            record.key_values().visit(&mut Pairs(&mut text)).ok();
            self.write("warning", &text);
        }
    }

    fn flush(&self) {}
}
