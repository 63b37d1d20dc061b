//! Arguments of the commands that start a process: `create`, `run`, `exec`.

use std::path::PathBuf;

use clap::Args;

#[derive(Debug, Args)]
pub(in super::super) struct CreateArgs {
    /// Container id
    pub id: String,
    /// Directory of config.json (default: the current one)
    #[arg(short, long, value_name = "DIR")]
    pub bundle: Option<PathBuf>,
    /// The file to read instead of config.json
    #[arg(short = 'f', long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where to write the init's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// A socket to send the master of the container's terminal to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// A socket to send a pidfd of the container's init to
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// How many descriptors after the standard three, and those of LISTEN_FDS, to pass on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// Move the root instead of pivoting to it; for a root on a RAM disk
    #[arg(long)]
    pub no_pivot: bool,
    /// Do not join a session keyring of the container's own
    #[arg(long)]
    pub no_new_keyring: bool,
    /// Accepted for compatibility: there is no subreaper
    #[arg(long, hide = true)]
    pub no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(in super::super) struct RunArgs {
    #[command(flatten)]
    pub create: CreateArgs,
    /// Do not wait
    #[arg(short, long)]
    pub detach: bool,
    /// Do not delete the container at its end
    #[arg(long)]
    pub keep: bool,
}

#[derive(Debug, Args)]
pub(in super::super) struct ExecArgs {
    /// Container id
    pub id: String,
    /// A file with the process, as in config.json
    #[arg(short, long, value_name = "FILE")]
    pub process: Option<PathBuf>,
    /// Where to write the process's pid
    #[arg(long, value_name = "FILE")]
    pub pid_file: Option<PathBuf>,
    /// A socket to send the master of the terminal to
    #[arg(long, value_name = "SOCKET")]
    pub console_socket: Option<PathBuf>,
    /// A socket to send a pidfd of the process to
    #[arg(long, value_name = "SOCKET")]
    pub pidfd_socket: Option<PathBuf>,
    /// Do not wait
    #[arg(short, long)]
    pub detach: bool,
    /// With a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Working directory
    #[arg(long, value_name = "DIR")]
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
    /// An AppArmor profile
    #[arg(long, value_name = "NAME")]
    pub apparmor: Option<String>,
    /// An SELinux label
    #[arg(long, value_name = "LABEL")]
    pub process_label: Option<String>,
    /// A group below the container's own to run in: PATH, or on cgroup v1 CONTROLLERS:PATH, with commas between controllers; several times
    #[arg(long, value_name = "GROUP")]
    pub cgroup: Vec<String>,
    /// Also in a paused container: the process goes on when it is resumed
    #[arg(long)]
    pub ignore_paused: bool,
    /// How many descriptors after the standard three to pass on
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub preserve_fds: u32,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}
