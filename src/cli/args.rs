//! The command line: its commands, their arguments, and what `--help` says of them.

use std::path::PathBuf;

use super::{learn, top};
use clap::{Args, Parser, Subcommand, ValueEnum};

/// Runs containers from OCI bundles, and shows what the shim `containerd-shim-cofferdam-v1` can do.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version)]
pub(super) struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub(super) struct Global {
    /// Where the state of containers is kept
    #[arg(long, global = true, default_value = "/run/cofferdam/oci")]
    pub root: PathBuf,
    /// Also write errors to this file
    #[arg(long, global = true)]
    pub log: Option<PathBuf>,
    /// How to write them
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub log_format: LogFormat,
    /// Accepted for compatibility: there is nothing more to say
    #[arg(long, global = true)]
    pub debug: bool,
    /// Let systemd make the cgroups: linux.cgroupsPath must be slice:prefix:name, or missing
    #[arg(long, global = true)]
    pub systemd_cgroup: bool,
    /// Accepted for compatibility: Cofferdam needs root
    #[arg(long, global = true, value_name = "true|false|auto")]
    pub rootless: Option<String>,
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
    /// Check profiles for mistakes
    Validate {
        /// Names, or files
        #[arg(required = true)]
        profiles: Vec<String>,
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
    Run {
        #[command(flatten)]
        create: CreateArgs,
        /// Do not wait
        #[arg(short, long)]
        detach: bool,
        /// Do not delete the container at its end
        #[arg(long)]
        keep: bool,
    },
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
    },
    /// Remove what a container leaves
    Delete {
        /// Container id
        id: String,
        /// Kill it first; an unknown container is no error
        #[arg(short, long)]
        force: bool,
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
        /// Seconds between counters
        #[arg(long, default_value = "5", value_parser = seconds)]
        interval: u64,
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
        /// Id of a pod or of a container, or the beginning of one
        id: String,
        /// As JSON
        #[arg(long)]
        json: bool,
        /// Every mount and path, also those that are as they were asked for
        #[arg(short, long)]
        verbose: bool,
    },
    /// What a live pod uses of the kernel, and the smallest profile that covers it
    #[command(subcommand)]
    Learn(learn::LearnCommand),
    /// The pods of this node, live: class, isolation, containers, memory, processes, CPU, denied calls, age
    Top {
        /// Print everything once, as JSON
        #[arg(long)]
        json: bool,
        /// What to sort by
        #[arg(short, long, value_enum, default_value = "pod")]
        sort: top::Sort,
    },
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

#[derive(Debug, thiserror::Error)]
#[error("expected a number of seconds above 0")]
pub(super) struct NotSeconds;

pub(super) fn seconds(text: &str) -> Result<u64, NotSeconds> {
    text.trim_end_matches('s')
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or(NotSeconds)
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// Container id
    pub id: String,
    /// Directory of config.json (default: the current one)
    #[arg(short, long)]
    pub bundle: Option<PathBuf>,
    /// Where to write the init's pid
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// A socket to send the master of the container's terminal to
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// How many descriptors after the standard three to pass on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// Move the root instead of pivoting to it; for a root on a RAM disk
    #[arg(long)]
    pub no_pivot: bool,
    /// Do not join a session keyring of the container's own
    #[arg(long)]
    pub no_new_keyring: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExecArgs {
    /// Container id
    pub id: String,
    /// A file with the process, as in config.json
    #[arg(short, long)]
    pub process: Option<PathBuf>,
    /// Where to write the process's pid
    #[arg(long)]
    pub pid_file: Option<PathBuf>,
    /// A socket to send the master of the terminal to
    #[arg(long)]
    pub console_socket: Option<PathBuf>,
    /// Do not wait
    #[arg(short, long)]
    pub detach: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Working directory
    #[arg(long)]
    pub cwd: Option<PathBuf>,
    /// A variable of the environment, KEY=VALUE
    #[arg(short, long)]
    pub env: Vec<String>,
    /// User and group: UID, or UID:GID
    #[arg(short, long)]
    pub user: Option<String>,
    /// One more group id
    #[arg(short = 'g', long)]
    pub additional_gids: Vec<u32>,
    /// One more capability
    #[arg(short, long)]
    pub cap: Vec<String>,
    /// Forbid new privileges
    #[arg(long)]
    pub no_new_privs: bool,
    /// An `AppArmor` profile
    #[arg(long)]
    pub apparmor: Option<String>,
    /// How many descriptors after the standard three to pass on
    #[arg(long, default_value_t = 0)]
    pub preserve_fds: u32,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    /// Container id
    pub id: String,
    /// A file with linux.resources, or - for standard input
    #[arg(short, long)]
    pub resources: Option<PathBuf>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory: Option<i64>,
    /// Bytes, memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    pub memory_swap: Option<i64>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    pub memory_reservation: Option<i64>,
    /// Relative weight
    #[arg(long, alias = "cpu-share")]
    pub cpu_shares: Option<u64>,
    /// Microseconds
    #[arg(long)]
    pub cpu_period: Option<u64>,
    /// Microseconds in a period
    #[arg(long, allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// A list of processors
    #[arg(long)]
    pub cpuset_cpus: Option<String>,
    /// A list of memory nodes
    #[arg(long)]
    pub cpuset_mems: Option<String>,
    /// Number of processes
    #[arg(long, allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Relative weight
    #[arg(long)]
    pub blkio_weight: Option<u16>,
}

impl Command {
    /// The exit status of an error. Where 1 is an answer of the command, it is another.
    pub(super) fn failed(&self) -> i32 {
        match self {
            Self::Explain { .. } | Self::Profile(ProfileCommand::Diff { .. }) => 2,
            _ => 1,
        }
    }
}
