//! `cofferdam`, the OCI runtime command line over the executor: OCI runtime.md "Operations", with runc's flags where
//! people and tools rely on them.

mod check;
mod exec;
mod explain;
mod learn;
mod lifecycle;
mod profile;
mod report;
mod store;
mod terminal;
mod top;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::OnceLock;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::executor;
use crate::inspect::containerd::Source;
use crate::show::{Pairs, shown_json, shown_lines};

/// What a command ends with, unless it succeeds.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The executor's.
    #[error(transparent)]
    Executor(#[from] executor::Error),
    /// The spec's.
    #[error(transparent)]
    Spec(#[from] crate::oci::Error),
    /// The control groups'.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::Error),
    /// Something that failed, and why.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |e| Self::Io(what, e)
    }
}

type Result<T> = std::result::Result<T, Error>;

/// Runs containers from OCI bundles, and shows what the shim `containerd-shim-cofferdam-v1` can do.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Where the state of containers is kept
    #[arg(long, global = true, default_value = "/run/cofferdam/oci")]
    root: PathBuf,
    /// Also write errors to this file
    #[arg(long, global = true)]
    log: Option<PathBuf>,
    /// How to write them
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Accepted for compatibility: there is nothing more to say
    #[arg(long, global = true)]
    debug: bool,
    /// Let systemd make the cgroups: linux.cgroupsPath must be slice:prefix:name, or missing
    #[arg(long, global = true)]
    systemd_cgroup: bool,
    /// Accepted for compatibility: Cofferdam needs root
    #[arg(long, global = true, value_name = "true|false|auto")]
    rootless: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Subcommand)]
enum ProfileCommand {
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
    /// Say what is wrong with profiles, if anything is
    Validate {
        /// Names, or files
        #[arg(required = true)]
        profiles: Vec<String>,
    },
}

#[derive(Debug, Subcommand)]
enum Command {
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
enum Format {
    Table,
    Json,
}

fn seconds(text: &str) -> std::result::Result<u64, String> {
    text.trim_end_matches('s')
        .parse()
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| "expected a number of seconds".into())
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// Container id
    id: String,
    /// Directory of config.json (default: the current one)
    #[arg(short, long)]
    bundle: Option<PathBuf>,
    /// Where to write the init's pid
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// A socket to send the master of the container's terminal to
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// How many descriptors after the standard three to pass on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// Move the root instead of pivoting to it; for a root on a RAM disk
    #[arg(long)]
    no_pivot: bool,
    /// Do not join a session keyring of the container's own
    #[arg(long)]
    no_new_keyring: bool,
}

#[derive(Debug, Args)]
struct ExecArgs {
    /// Container id
    id: String,
    /// A file with the process, as in config.json
    #[arg(short, long)]
    process: Option<PathBuf>,
    /// Where to write the process's pid
    #[arg(long)]
    pid_file: Option<PathBuf>,
    /// A socket to send the master of the terminal to
    #[arg(long)]
    console_socket: Option<PathBuf>,
    /// Do not wait
    #[arg(short, long)]
    detach: bool,
    /// With a terminal
    #[arg(short, long)]
    tty: bool,
    /// Working directory
    #[arg(long)]
    cwd: Option<PathBuf>,
    /// A variable of the environment, KEY=VALUE
    #[arg(short, long)]
    env: Vec<String>,
    /// User and group: UID, or UID:GID
    #[arg(short, long)]
    user: Option<String>,
    /// One more group id
    #[arg(short = 'g', long)]
    additional_gids: Vec<u32>,
    /// One more capability
    #[arg(short, long)]
    cap: Vec<String>,
    /// Forbid new privileges
    #[arg(long)]
    no_new_privs: bool,
    /// An `AppArmor` profile
    #[arg(long)]
    apparmor: Option<String>,
    /// How many descriptors after the standard three to pass on
    #[arg(long, default_value_t = 0)]
    preserve_fds: u32,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

#[derive(Debug, Args)]
struct UpdateArgs {
    /// Container id
    id: String,
    /// A file with linux.resources, or - for standard input
    #[arg(short, long)]
    resources: Option<PathBuf>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    memory: Option<i64>,
    /// Bytes, memory and swap together
    #[arg(long, allow_hyphen_values = true)]
    memory_swap: Option<i64>,
    /// Bytes
    #[arg(long, allow_hyphen_values = true)]
    memory_reservation: Option<i64>,
    /// Relative weight
    #[arg(long, alias = "cpu-share")]
    cpu_shares: Option<u64>,
    /// Microseconds
    #[arg(long)]
    cpu_period: Option<u64>,
    /// Microseconds in a period
    #[arg(long, allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// A list of processors
    #[arg(long)]
    cpuset_cpus: Option<String>,
    /// A list of memory nodes
    #[arg(long)]
    cpuset_mems: Option<String>,
    /// Number of processes
    #[arg(long, allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Relative weight
    #[arg(long)]
    blkio_weight: Option<u16>,
}

/// The command's `main`. Returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            e.print().ok();
            return e.exit_code();
        }
    };
    let messages = MESSAGES.get_or_init(|| Messages {
        log: cli.global.log.clone(),
        format: cli.global.log_format,
    });
    if log::set_logger(messages).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    match dispatch(&cli) {
        Ok(status) => status,
        Err(e) => {
            messages.write("error", &e.to_string());
            1
        }
    }
}

/// Messages for people: on standard error, and in the file of `--log`.
struct Messages {
    log: Option<PathBuf>,
    format: LogFormat,
}

static MESSAGES: OnceLock<Messages> = OnceLock::new();

impl Messages {
    fn write(&self, level: &str, text: &str) {
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

#[expect(clippy::too_many_lines, reason = "an arm for each command")]
fn dispatch(cli: &Cli) -> Result<i32> {
    let global = &cli.global;
    let store = store::Store::new(&global.root);
    let done = |r: Result<()>| r.map(|()| 0);
    match &cli.command {
        Command::Create(args) => lifecycle::create(&store, args, global.systemd_cgroup).map(|_| 0),
        Command::Start { id } => done(lifecycle::start(&store, id)),
        Command::Run {
            create,
            detach,
            keep,
        } => lifecycle::run(&store, create, global.systemd_cgroup, *detach, *keep),
        Command::State { id } => done(report::state(&store, id)),
        Command::Kill { id, signal, all } => done(lifecycle::kill(&store, id, signal, *all)),
        Command::Delete { id, force } => done(lifecycle::delete(&store, id, *force)),
        Command::Exec(args) => exec::exec(&store, args),
        Command::Ps {
            id,
            format,
            ps_options,
        } => done(report::ps(&store, id, *format, ps_options)),
        Command::Pause { id } => done(lifecycle::set_paused(&store, id, true)),
        Command::Resume { id } => done(lifecycle::set_paused(&store, id, false)),
        Command::Update(args) => done(lifecycle::update(&store, args)),
        Command::Events {
            id,
            stats,
            interval,
        } => done(report::events(&store, id, *stats, *interval)),
        Command::List { format, quiet } => {
            report::list(&store, *format, *quiet);
            Ok(0)
        }
        Command::Spec { bundle } => done(report::spec(bundle.as_deref())),
        Command::Check {
            profiles,
            json,
            verbose,
            containerd,
            config,
        } => {
            let source = Source {
                program: containerd.clone(),
                config: config.clone(),
            };
            Ok(check::check(profiles, &source, *json, *verbose))
        }
        Command::Explain { id, json, verbose } => explain::explain(id, *json, *verbose),
        Command::Learn(command) => done(learn::run(command)),
        Command::Top { json, sort } => top::top(*json, *sort),
        Command::Features => {
            print_json(&format!("{:#}\n", crate::bootstrap::features()));
            Ok(0)
        }
        Command::Profile(command) => match command {
            ProfileCommand::List => {
                profile::list();
                Ok(0)
            }
            ProfileCommand::Show { profile } => done(profile::show(profile)),
            ProfileCommand::Diff {
                profile: one,
                other,
                spec,
                container,
                json,
            } => {
                let with = match (other, spec, container) {
                    (Some(other), ..) => profile::With::Profile(other),
                    (_, Some(spec), _) => profile::With::Spec(spec.clone()),
                    (.., container) => {
                        profile::With::Container(container.as_deref().unwrap_or_default())
                    }
                };
                profile::diff(one, &with, *json)
            }
            ProfileCommand::Validate { profiles } => done(profile::validate(profiles)),
        },
        Command::Version => {
            print(&format!(
                "cofferdam version {}\nspec: 1.3.0\n",
                env!("CARGO_PKG_VERSION")
            ));
            Ok(0)
        }
    }
}

/// For people: lines of text in which nothing commands a terminal.
fn print(text: &str) {
    print_raw(&shown_lines(text));
}

/// For programs: JSON, which people may look at as well.
fn print_json(text: &str) {
    print_raw(&shown_json(text));
}

/// As it is: what commands a terminal on purpose.
fn print_raw(text: &str) {
    std::io::stdout().lock().write_all(text.as_bytes()).ok();
}
