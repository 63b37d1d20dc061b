//! The containerd that runs, and whether it has read its configuration since that was changed.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::files::Files;
use super::findings::{Findings, State};
use super::process;

/// What containerd reads if its arguments name no file.
const DEFAULT_CONFIG: &str = "/etc/containerd/config.toml";

/// Where to look.
#[derive(Debug, Clone)]
pub struct Source {
    /// The program.
    pub program: PathBuf,
    /// Its configuration file; containerd's own default where none is given.
    pub config: Option<PathBuf>,
    /// The root directory of another node, whose files are looked at instead; this one's processes say nothing of it then.
    pub root: Option<PathBuf>,
}

impl Source {
    /// Whether these are files of another node than the one whose processes are seen.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.root.is_some()
    }
}

/// The running daemon.
pub(super) struct Daemon {
    pub pid: i32,
    pub path: std::ffi::OsString,
    /// Seconds since 1970.
    pub started: SystemTime,
}

/// The process that runs this program with this configuration, where there is one.
pub(super) fn daemon(source: &Source) -> Option<Daemon> {
    if source.is_elsewhere() {
        return None;
    }
    let wanted = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|d| d.join(&source.program))
        .find(|f| f.is_file())?;
    let program = fs::metadata(wanted).map(|m| (m.dev(), m.ino())).ok()?;
    let config = main_file(source);
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot
        .lines()
        .find_map(|l| l.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()?;
    for pid in crate::procfs::pids() {
        let file = |name: &str| PathBuf::from(format!("/proc/{pid}/{name}"));
        // By what it executes, and not by the name of that.
        let executes = fs::metadata(file("exe")).map(|m| (m.dev(), m.ino()));
        if executes.ok() != Some(program)
            || !process::is_of_node(pid)
            || configuration_of(&fs::read(file("cmdline")).unwrap_or_default()) != config
        {
            continue;
        }
        let environment = fs::read(file("environ")).unwrap_or_default();
        let path = environment
            .split(|b| *b == 0)
            .find_map(|v| v.strip_prefix(b"PATH="))
            .unwrap_or_default();
        // Clock ticks are hundredths of a second: `sysconf(3)`, _SC_CLK_TCK.
        let ticks = crate::sys::process::start_time(pid)?;
        return Some(Daemon {
            pid,
            path: std::ffi::OsStr::from_bytes(path).to_owned(),
            started: UNIX_EPOCH + Duration::from_secs(boot + ticks / 100),
        });
    }
    None
}

/// The file that a daemon with these arguments reads.
fn configuration_of(cmdline: &[u8]) -> PathBuf {
    let args: Vec<String> = cmdline
        .split(|b| *b == 0)
        .map(|a| String::from_utf8_lossy(a).into_owned())
        .collect();
    let after = |flag: &str| {
        let at = args.iter().position(|a| a == flag)?;
        args.get(at + 1).cloned()
    };
    let joined = || {
        args.iter()
            .find_map(|a| a.strip_prefix("--config="))
            .map(str::to_owned)
    };
    let found = after("--config").or_else(|| after("-c")).or_else(joined);
    found.map_or_else(|| DEFAULT_CONFIG.into(), PathBuf::from)
}

/// Whether the daemon has read the configuration as it is now.
pub(super) fn restarted(
    source: &Source,
    files: Option<&Files>,
    daemon: &Daemon,
    out: &mut Findings,
) {
    let mut all = vec![main_file(source)];
    all.extend(files.into_iter().flat_map(Files::paths).map(Path::to_owned));
    all.dedup();
    let newer: Vec<String> = all
        .iter()
        .filter(|f| {
            let changed = fs::metadata(f).and_then(|m| m.modified());
            changed.is_ok_and(|c| c > daemon.started + Duration::from_secs(1))
        })
        .map(|f| f.display().to_string())
        .collect();
    if newer.is_empty() {
        out.say("daemon", State::Ok, "runs, with this configuration", "");
    } else {
        let found = format!("started before {} changed", newer.join(" "));
        out.say(
            "daemon",
            State::Degraded,
            found,
            "systemctl restart containerd",
        );
    }
}

/// The file that containerd begins with.
pub(super) fn main_file(source: &Source) -> PathBuf {
    let config = source.config.clone();
    config.unwrap_or_else(|| DEFAULT_CONFIG.into())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{DEFAULT_CONFIG, configuration_of};

    #[test]
    fn which_file_a_daemon_reads() {
        for (args, expected) in [
            ("containerd", DEFAULT_CONFIG),
            ("containerd\0--config\0/x.toml\0", "/x.toml"),
            ("containerd\0-c\0/y.toml\0--log-level\0info", "/y.toml"),
            ("containerd\0--config=/z.toml", "/z.toml"),
        ] {
            assert_eq!(configuration_of(args.as_bytes()), Path::new(expected));
        }
    }
}
