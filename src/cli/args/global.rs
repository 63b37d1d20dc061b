//! Options of all commands of an OCI runtime, before the command or behind it.

#![allow(clippy::doc_markdown, reason = "documentation is the text of --help")]

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::LogTarget;
use crate::sys::creds;

/// The heading of these options.
const OF_ALL: &str = "Options of all commands for bundles";

#[derive(Debug, Args)]
pub(in crate::cli) struct Global {
    /// Where the state of containers is kept [default: /run/cofferdam/oci; for a user other than root $XDG_RUNTIME_DIR/cofferdam/oci]
    #[arg(long, help_heading = OF_ALL, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where messages are written beside standard error: a file, `file:PATH`, `journald:ID` or `syslog:ID`
    #[arg(long, help_heading = OF_ALL, global = true, value_name = "FILE")]
    pub log: Option<LogTarget>,
    /// The format of messages in the file of --log; without --log, on standard error
    #[arg(long, help_heading = OF_ALL, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// The least important messages that are written
    #[arg(long, help_heading = OF_ALL, global = true, value_enum, default_value = "warning")]
    pub log_level: LogLevel,
    /// The same as --log-level debug
    #[arg(long, help_heading = OF_ALL, global = true)]
    pub debug: bool,
    /// Who makes the cgroups: this command, systemd by its D-Bus (linux.cgroupsPath must be slice:prefix:name, or missing), or nobody
    #[arg(long, help_heading = OF_ALL, global = true, value_enum, default_value = "cgroupfs")]
    pub cgroup_manager: CgroupManager,
    /// The same as --cgroup-manager systemd
    #[arg(long, help_heading = OF_ALL, global = true)]
    pub systemd_cgroup: bool,
    /// What to do if a container's cgroups cannot be made: run it without them and warn (true), fail (false), or decide by the
    /// user (auto: true for a user other than root)
    // Before the command only: `spec` has a flag of this name.
    #[arg(long, help_heading = OF_ALL, value_enum, default_value = "auto")]
    pub rootless: Rootless,
    /// The isolation profile of a container that is created, by its name. Without it the command's own name has one: a link
    /// `cofferdam-hardened` has the profile `hardened`
    #[arg(long, help_heading = OF_ALL, global = true, value_name = "NAME")]
    pub profile: Option<String>,
}

impl Global {
    /// Where the state of containers is kept.
    pub(in crate::cli) fn state_directory(&self) -> PathBuf {
        // As runc has it: root of a user namespace is an ordinary user, unless it says that it is root.
        let is_root = || {
            let named_root = || std::env::var_os("USER").is_some_and(|user| user == "root");
            nix::unistd::geteuid().is_root() && (!creds::is_in_user_namespace() || named_root())
        };
        let runtime = || {
            let directory = std::env::var_os("XDG_RUNTIME_DIR");
            directory.filter(|dir| !dir.is_empty() && !is_root())
        };
        let default = || match runtime() {
            Some(runtime) => PathBuf::from(runtime).join("cofferdam/oci"),
            None => "/run/cofferdam/oci".into(),
        };
        self.root.clone().unwrap_or_else(default)
    }

    /// Who makes cgroups.
    pub(in crate::cli) fn cgroups(&self) -> CgroupManager {
        if self.systemd_cgroup {
            CgroupManager::Systemd
        } else {
            self.cgroup_manager
        }
    }
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum CgroupManager {
    // This command.
    Cgroupfs,
    // systemd, by its D-Bus: linux.cgroupsPath must be slice:prefix:name, or missing.
    Systemd,
    // Nobody: the container stays in the groups of its caller, without limits.
    Disabled,
}

/// What to do if a container's cgroups cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Rootless {
    // Run it without them, and warn.
    #[value(alias = "yes", alias = "1", alias = "t")]
    True,
    // Fail.
    #[value(alias = "no", alias = "0", alias = "f")]
    False,
    // True for a user other than root, else false.
    Auto,
}

/// From which level on messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogLevel {
    Error,
    #[value(alias = "warn")]
    Warning,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum LogFormat {
    Text,
    Json,
}
