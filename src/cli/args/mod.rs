//! The command line: its commands, their arguments, and what `--help` says of them. Those of an OCI runtime take every flag of
//! runc 1.3 and crun 1.29; what is not done is refused by name.

#![allow(clippy::doc_markdown, reason = "documentation is the text of --help")]

mod process;
mod update;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::{learn, top};
use crate::sys::creds;
use clap::{ArgAction, Args, CommandFactory, Parser, Subcommand, ValueEnum};

pub(super) use process::{CreateArgs, ExecArgs, RunArgs};
pub(super) use update::UpdateArgs;
pub(super) use values::{LogTarget, duration};

/// Runs containers from OCI bundles, and shows what the shim `containerd-shim-cofferdam-v1` can do.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", disable_version_flag = true)]
pub(super) struct Cli {
    /// Print the version
    #[arg(short, long, short_alias = 'V', action = ArgAction::SetTrue)]
    pub version: bool,
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Option<Command>,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Where the state of containers is kept [default: /run/cofferdam/oci; for a user other than root $XDG_RUNTIME_DIR/cofferdam/oci]
    #[arg(long, global = true, value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Where messages are written beside standard error: a file, `file:PATH`, `journald:ID` or `syslog:ID`
    #[arg(long, global = true, value_name = "FILE")]
    pub log: Option<LogTarget>,
    /// How they are written there, and on standard error where there is no --log
    #[arg(long, global = true, value_enum)]
    pub log_format: Option<LogFormat>,
    /// What is written
    #[arg(long, global = true, value_enum, default_value = "warning")]
    pub log_level: LogLevel,
    /// The same as --log-level debug
    #[arg(long, global = true)]
    pub debug: bool,
    /// Who makes the cgroups
    #[arg(long, global = true, value_enum, default_value = "cgroupfs")]
    pub cgroup_manager: CgroupManager,
    /// The same as --cgroup-manager systemd
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// What to do if a container's cgroups cannot be made: run it without them and warn (true), fail (false), or decide by the
    /// user (auto: true for a user other than root)
    // Before the command only: `spec` has a flag of this name.
    #[arg(long, value_enum, default_value = "auto")]
    pub rootless: Rootless,
    /// The isolation profile of a container that is created, by its name. Without it the command's own name has one: a link
    /// `cofferdam-hardened` has the profile `hardened`
    #[arg(long, global = true, value_name = "NAME")]
    pub profile: Option<String>,
}

impl Global {
    /// Where the state of containers is kept.
    pub(super) fn state_directory(&self) -> PathBuf {
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
    pub(super) fn cgroups(&self) -> CgroupManager {
        if self.systemd_cgroup {
            CgroupManager::Systemd
        } else {
            self.cgroup_manager
        }
    }
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum CgroupManager {
    /// This command.
    Cgroupfs,
    /// systemd, by its D-Bus: linux.cgroupsPath must be slice:prefix:name, or missing.
    Systemd,
    /// Nobody: the container stays in the groups of its caller, without limits.
    Disabled,
}

/// What to do if a container's cgroups cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Rootless {
    /// Run it without them, and warn
    #[value(alias = "yes", alias = "1", alias = "t")]
    True,
    /// Fail
    #[value(alias = "no", alias = "0", alias = "f")]
    False,
    /// True for a user other than root, else false
    Auto,
}

/// From which level on messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogLevel {
    Error,
    #[value(alias = "warn")]
    Warning,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
pub(super) enum ProfileCommand {
    /// List the profiles of this node, and where each is from
    List,
    /// Begin a profile of your own: its file, with every key as a comment, and the shim's link; then the steps that remain
    New {
        /// Its name, which becomes a part of the shim's
        name: String,
        /// The profile that it begins with
        #[arg(long, value_name = "PROFILE", default_value = "hardened")]
        from: String,
        /// Print what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Print a profile with everything that it inherits and every default
    Show {
        /// Name, or file
        profile: String,
    },
    /// Differences between two profiles, or of a spec before and after one. Status 1 where there are any
    Diff {
        /// Name, or file
        profile: String,
        /// Name, or file, of another one
        #[arg(required_unless_present_any = ["spec", "container"])]
        other: Option<String>,
        /// A config.json, to be seen under the profile
        #[arg(long, conflicts_with = "other")]
        spec: Option<PathBuf>,
        /// The id of a live container, whose config.json is to be seen under the profile
        #[arg(long, conflicts_with_all = ["other", "spec"])]
        container: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Check profiles for mistakes. Status 1 where there are any
    Validate {
        /// Names, or files
        #[arg(required = true)]
        profiles: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Create a container, up to the point where its program is executed
    Create(CreateArgs),
    /// Execute the program of a created container
    Start {
        /// Container id
        id: String,
    },
    /// Create and start a container, wait for its end, and delete it
    Run(RunArgs),
    /// Print the state of a container, as JSON
    State {
        /// Container id
        id: String,
    },
    /// Send a signal to the init of a container
    Kill {
        /// Container id
        id: String,
        /// Name or number
        #[arg(default_value = "SIGTERM")]
        signal: String,
        /// Send it to every process of the container
        #[arg(short, long)]
        all: bool,
        /// The id is a regular expression: send it to every container whose id contains a match
        #[arg(short, long)]
        regex: bool,
    },
    /// Remove what a container leaves
    Delete {
        /// Container id
        id: String,
        /// Kill it first; an unknown container is no error
        #[arg(short, long)]
        force: bool,
        /// The id is a regular expression: remove every container whose id contains a match
        #[arg(short, long)]
        regex: bool,
    },
    /// Run a process in a container
    Exec(ExecArgs),
    /// List the processes of a container
    Ps {
        /// Container id
        id: String,
        /// As a table, or as a JSON list of pids
        #[arg(short, long, value_enum, default_value = "table")]
        format: Format,
        /// Options of ps(1), for the table
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        ps_options: Vec<String>,
    },
    /// Freeze a container
    Pause {
        /// Container id
        id: String,
    },
    /// Thaw a container
    #[command(alias = "unpause")]
    Resume {
        /// Container id
        id: String,
    },
    /// Change the resources of a container
    Update(UpdateArgs),
    /// Print a container's counters, and its OOM kills
    Events {
        /// Container id
        id: String,
        /// Print the counters once
        #[arg(long)]
        stats: bool,
        /// Time between counters, as in 5s, 500ms or 1m30s; a number is seconds
        #[arg(long, default_value = "5s", value_parser = duration)]
        interval: Duration,
    },
    /// List containers
    List {
        /// As a table or as JSON
        #[arg(short, long, value_enum, default_value = "table")]
        format: Format,
        /// Only ids
        #[arg(short, long)]
        quiet: bool,
    },
    /// Write a config.json to start from
    Spec {
        /// Directory to write it into
        #[arg(short, long)]
        bundle: Option<PathBuf>,
        /// File to write, in that directory [default: config.json]
        #[arg(short, long)]
        file: Option<PathBuf>,
        /// For a container of a user other than root
        #[arg(long)]
        rootless: bool,
    },
    /// Not supported: save a running container
    #[command(hide = true)]
    Checkpoint {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Not supported: start a container from a saved one
    #[command(hide = true)]
    Restore {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Not supported: change the mounts of a running container
    #[command(hide = true)]
    Mounts {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        rest: Vec<String>,
    },
    /// Isolation profiles
    #[command(subcommand)]
    Profile(ProfileCommand),
    /// Whether this node can enforce profiles, with remedies. Status 1 where something fails, 3 where something is degraded
    Check {
        /// Names of profiles; without any, those that containerd's handlers use
        profiles: Vec<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Also what is as it should be
        #[arg(short, long)]
        verbose: bool,
        /// containerd's program
        #[arg(long, default_value = "containerd")]
        containerd: PathBuf,
        /// Its configuration file, where it is not the default one
        #[arg(long)]
        config: Option<PathBuf>,
    },
    /// What is enforced on a live pod or container, next to what was promised and asked for. Status 1 where something is missing
    Explain {
        /// A pod or a container: NAMESPACE/POD, POD/CONTAINER, an id or the beginning of one
        #[arg(value_name = "POD")]
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Everything, also what is as the pod asked for it
        #[arg(short, long)]
        verbose: bool,
    },
    /// What a live pod uses of the kernel, and the smallest profile that covers it
    #[command(subcommand)]
    Learn(learn::LearnCommand),
    /// The pods of this node, live: class, isolation, containers, memory, processes, CPU, denied calls, age
    Top(top::TopArgs),
    /// Print what the executor supports, as OCI features JSON
    Features,
    /// Print the version
    Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Table,
    Json,
}

/// Flags as Go's programs take them: `--detach=true` is `--detach`, and `--detach=false` nothing. Up to the program of an exec, whose
/// arguments are its own.
pub(super) fn with_plain_flags(args: Vec<OsString>) -> Vec<OsString> {
    let has_value = |arg: &OsString| {
        let text = arg.as_encoded_bytes();
        text.ends_with(b"=true") || text.ends_with(b"=false")
    };
    if !args.iter().any(has_value) {
        return args;
    }
    let command = Cli::command();
    let mut inside = &command;
    let mut positionals = 0;
    let mut ended = false;
    let is_flag = |inside: &clap::Command, name: &str| {
        let mut all = command.get_arguments().chain(inside.get_arguments());
        all.any(|arg| arg.get_long() == Some(name) && !arg.get_action().takes_values())
    };
    let plain = args.into_iter().enumerate().filter_map(|(i, arg)| {
        let Some(text) = arg.to_str().filter(|_| i > 0 && !ended && positionals < 2) else {
            return Some(arg);
        };
        ended = text == "--";
        if let Some((name, value)) = text.strip_prefix("--").and_then(|f| f.split_once('=')) {
            return match value {
                "true" if is_flag(inside, name) => Some(format!("--{name}").into()),
                "false" if is_flag(inside, name) => None,
                _ => Some(arg),
            };
        }
        if !text.starts_with('-') {
            match inside.find_subcommand(text) {
                Some(found) => inside = found,
                None => positionals += usize::from(!std::ptr::eq(inside, &raw const command)),
            }
        }
        Some(arg)
    });
    plain.collect()
}

impl Command {
    /// Whether processes of a container, or hooks of one, begin as copies of this one.
    pub(super) fn meets_containers(&self) -> bool {
        matches!(
            self,
            Self::Create(_)
                | Self::Run(_)
                | Self::Exec(_)
                | Self::Start { .. }
                | Self::Delete { .. }
        )
    }

    /// The exit status of an error: as runc's for the commands of an OCI runtime; 2 for those that answer a question, whose answer may
    /// be 1.
    pub(super) fn failed(&self) -> i32 {
        match self {
            // The program's own statuses are 0 to 254.
            Self::Exec(_) => 255,
            Self::Explain { .. }
            | Self::Profile(_)
            | Self::Check { .. }
            | Self::Learn(_)
            | Self::Top(_) => 2,
            _ => 1,
        }
    }

    /// Whether the answer is to be a document of JSON, also where it is an error.
    pub(super) fn is_json(&self) -> bool {
        match self {
            Self::Explain { json, .. }
            | Self::Check { json, .. }
            | Self::Profile(
                ProfileCommand::Diff { json, .. } | ProfileCommand::Validate { json, .. },
            )
            | Self::Learn(learn::LearnCommand::Show { json, .. }) => *json,
            Self::Top(args) => args.json,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
        for line in [
            "cofferdam --rootless true spec --rootless",
            "cofferdam -v",
            "cofferdam --debug --log file:/a --log-format json --systemd-cgroup --root /r run -d --keep --no-subreaper -b /b -f /c id",
            "cofferdam --cgroup-manager disabled exec -t -e A=1 -g 5 -c CAP_KILL -u 1:2 --cgroup memory:/x --ignore-paused id sh -c x",
            "cofferdam update --memory 64M --cpu-share 5 --cpu-rt-period 5 --l3-cache-schema x --kernel-memory-tcp 1m id",
            "cofferdam events --interval 500ms id",
            "cofferdam kill --regex .* 9",
            "cofferdam checkpoint --image-path x id",
            "cofferdam unpause id",
            "cofferdam --debug=true run --detach=true --keep=false id",
            "cofferdam spec -b /b -f c",
        ] {
            let args = line.split(' ').map(OsString::from).collect();
            Cli::try_parse_from(with_plain_flags(args)).unwrap();
        }
    }

    #[test]
    fn flags_as_go_takes_them() {
        let plain = |line: &str| {
            let args = with_plain_flags(line.split(' ').map(OsString::from).collect());
            let args: Vec<_> = args.iter().map(|a| a.to_str().unwrap()).collect();
            args.join(" ")
        };
        for (line, expected) in [
            (
                "c --debug=true run --detach=true --keep=false x",
                "c --debug run --detach x",
            ),
            (
                "c exec --tty=true x ls --all=true",
                "c exec --tty x ls --all=true",
            ),
            ("c exec x -- p --tty=true", "c exec x -- p --tty=true"),
            (
                "c --log=true kill --all=true x",
                "c --log=true kill --all x",
            ),
        ] {
            assert_eq!(plain(line), expected);
        }
    }
}
