//! Values that are written as other tools write them.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// Where messages are written beside standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum LogTarget {
    File(PathBuf),
    /// systemd's journal, under this identifier.
    Journald(String),
    /// syslog(3), under this identifier.
    Syslog(String),
}

impl From<OsString> for LogTarget {
    fn from(text: OsString) -> Self {
        let Some(known) = text.to_str() else {
            return Self::File(text.into());
        };
        match known.split_once(':') {
            Some(("file", path)) => Self::File(path.into()),
            Some(("journald", id)) => Self::Journald(id.to_owned()),
            Some(("syslog", id)) => Self::Syslog(id.to_owned()),
            _ => Self::File(text.into()),
        }
    }
}

/// What is wrong with a value.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Wrong {
    #[error("expected a time above 0, such as 5s, 500ms or 1m30s")]
    Duration,
    #[error("expected a number of bytes, such as 67108864, 64M or 1G")]
    Size,
}

/// A time as Go writes it; a number alone is seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, Wrong> {
    let parsed = text
        .parse()
        .map(Duration::from_secs)
        .or_else(|_| humantime::parse_duration(text));
    parsed.ok().filter(|d| !d.is_zero()).ok_or(Wrong::Duration)
}

/// Bytes, with units of 1024 and its powers, as Docker's `--memory` has them; below 0 is no limit.
pub(super) fn size(text: &str) -> Result<i64, Wrong> {
    if let Ok(number) = text.parse() {
        return Ok(number);
    }
    let binary = parse_size::Config::new().with_binary();
    let bytes = binary.parse_size(text).map_err(|_| Wrong::Size)?;
    i64::try_from(bytes).map_err(|_| Wrong::Size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_go_writes_them() {
        for (text, millis) in [
            ("5", 5_000),
            ("5s", 5_000),
            ("500ms", 500),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
        ] {
            assert_eq!(
                duration(text).unwrap(),
                Duration::from_millis(millis),
                "{text}"
            );
        }
        for text in ["", "0", "0s", "-5s", "s", "five"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes_as_docker_writes_them() {
        for (text, bytes) in [
            ("64", 64),
            ("-1", -1),
            ("64k", 64 << 10),
            ("64M", 64 << 20),
            ("64MB", 64 << 20),
            ("64MiB", 64 << 20),
            ("1.5g", 3 << 29),
        ] {
            assert_eq!(size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "M", "64X", "-1M", "9999999999G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn targets_of_messages() {
        let target = |text: &str| LogTarget::from(OsString::from(text));
        assert_eq!(target("/a/b"), LogTarget::File("/a/b".into()));
        assert_eq!(target("file:/a/b"), LogTarget::File("/a/b".into()));
        assert_eq!(target("odd:name"), LogTarget::File("odd:name".into()));
        assert_eq!(target("journald:me"), LogTarget::Journald("me".into()));
        assert_eq!(target("syslog:me"), LogTarget::Syslog("me".into()));
    }
}
