//! `cofferdam`, the OCI runtime command line over the executor: OCI runtime.md "Operations", with runc's flags where
//! people and tools rely on them.

mod args;
mod check;
mod create;
mod delete;
mod elsewhere;
mod exec;
mod explain;
mod isolation;
mod json;
mod learn;
mod lifecycle;
mod messages;
mod new_profile;
mod profile;
mod report;
mod signal;
mod spec;
mod store;
mod style;
mod systemd;
mod terminal;
mod top;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::Path;

use args::{
    BundleCommand, CheckArgs, Command, Format, Global, OwnCommand, PodCommand, ProfileCommand,
};
use messages::{MESSAGES, Messages};

use crate::COMMIT;
use crate::executor;
use crate::sealed;
use crate::show::{shown_json, shown_lines};
use crate::sys::{creds, process};

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
    /// A shim's.
    #[error(transparent)]
    Control(#[from] crate::control::Error),
    /// A profile's.
    #[error(transparent)]
    Profile(#[from] crate::isolation::Error),
    /// Not what a container of a bundle can be called.
    #[error(
        "invalid container ID format: {0:?}: use 1 to 255 letters, digits and _ + - . (but not \".\" or \"..\")"
    )]
    InvalidId(String),
    /// There is no such container of a bundle.
    #[error("container {0:?} does not exist")]
    NoContainer(String),
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

/// The command's `main`. Returns the exit status.
pub fn run(args: impl IntoIterator<Item = OsString>) -> i32 {
    let args = args::with_plain_flags(args.into_iter().collect());
    let of_link = args
        .first()
        .and_then(|program| isolation::of_command(program));
    let cli = match args::parse(&args) {
        Ok(mut cli) => {
            cli.global.profile = cli.global.profile.or(of_link);
            cli
        }
        Err(e) => {
            e.print().ok();
            return e.exit_code();
        }
    };
    let messages = MESSAGES.get_or_init(|| Messages::new(&cli.global));
    if let Err(e) = messages.try_log() {
        messages.write(log::Level::Error, &e.to_string());
        return 1;
    }
    if log::set_logger(messages).is_ok() {
        log::set_max_level(messages.level());
    }
    let command = match &cli.command {
        _ if cli.version => &Command::Own(OwnCommand::Version),
        Some(command) => command,
        None => {
            args::command().print_help().ok();
            return 1;
        }
    };
    if command.meets_containers()
        && let Err(e) = protect(&args)
    {
        let text = format!("keep this program from being written by a container: {e}");
        messages.write(log::Level::Error, &text);
        return command.failed();
    }
    match dispatch(&cli.global, command) {
        Ok(status) => status,
        Err(e) => {
            let text = format!("{e}{}", elsewhere::hint(&e, &cli.global));
            messages.write(log::Level::Error, &text);
            if command.is_json() {
                json::print_error(&text, command.failed());
            }
            command.failed()
        }
    }
}

/// Keeps this program and its memory out of a container's reach.
fn protect(args: &[OsString]) -> std::io::Result<()> {
    sealed::execute_again(args)?;
    // It was executed from a descriptor, whose number is its name now.
    process::set_name(c"cofferdam")?;
    // Hooks have none of the caller's descriptors. The container's program has those that are passed on.
    process::cloexec_from(3)?;
    if creds::is_nodes_root() {
        process::set_not_dumpable()?;
    }
    Ok(())
}

/// What a command is refused with that is not there.
fn not_supported(command: &str) -> Error {
    Error::Other(format!(
        "{command} is not supported: Cofferdam cannot save and restore containers yet; use runc or crun for containers that must be saved"
    ))
}

fn dispatch(global: &Global, command: &Command) -> Result<i32> {
    match command {
        Command::Pod(command) => for_pods(command),
        Command::Bundle(command) => {
            let store = store::Store::new(&global.state_directory());
            for_bundles(&store, global, command)
        }
        Command::Own(command) => own(command),
    }
}

fn for_pods(command: &PodCommand) -> Result<i32> {
    match command {
        PodCommand::Top(args) => top::top(args),
        PodCommand::Explain {
            id,
            json,
            verbose,
            read_filters,
        } => explain::explain(id, *json, *verbose, *read_filters),
        PodCommand::Check(args) => check::check(args),
        PodCommand::Profile(command) => for_profiles(command),
        PodCommand::Learn(command) => learn::run(command).map(|()| 0),
    }
}

fn for_profiles(command: &ProfileCommand) -> Result<i32> {
    let done = |r: Result<()>| r.map(|()| 0);
    match command {
        ProfileCommand::List { json } => {
            profile::list(*json);
            Ok(0)
        }
        ProfileCommand::New {
            name,
            from,
            dry_run,
        } => done(new_profile::new(name, from, *dry_run)),
        ProfileCommand::Show { what, json } => done(profile::show(what, *json)),
        ProfileCommand::Diff {
            what: one,
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
        ProfileCommand::Validate { profiles, json } => profile::validate(profiles, *json),
    }
}

fn for_bundles(store: &store::Store, global: &Global, command: &BundleCommand) -> Result<i32> {
    let done = |r: Result<()>| r.map(|()| 0);
    match command {
        BundleCommand::Create(args) => done(create::create(store, args, global)),
        BundleCommand::Start { id } => done(lifecycle::start(store, id)),
        BundleCommand::Run(args) => create::run(store, args, global),
        BundleCommand::State { id } => done(report::state(store, id)),
        BundleCommand::Kill {
            id,
            signal,
            all,
            regex,
        } => done(each(store, id, *regex, |id| {
            lifecycle::kill(store, id, signal, *all)
        })),
        BundleCommand::Delete { id, force, regex } => done(each(store, id, *regex, |id| {
            delete::delete(store, id, *force)
        })),
        BundleCommand::Exec(args) => exec::exec(store, args),
        BundleCommand::Checkpoint { .. } => Err(not_supported("checkpoint")),
        BundleCommand::Restore { .. } => Err(not_supported("restore")),
        BundleCommand::Mounts { .. } => Err(Error::Other(
            "mounts is not supported: the mounts of a running container cannot be changed".into(),
        )),
        BundleCommand::Ps {
            id,
            format,
            ps_options,
        } => done(report::ps(store, id, *format, ps_options)),
        BundleCommand::Pause { id } => done(lifecycle::set_paused(store, id, true)),
        BundleCommand::Resume { id } => done(lifecycle::set_paused(store, id, false)),
        BundleCommand::Update(args) => done(update::update(store, args)),
        BundleCommand::Events {
            id,
            stats,
            interval,
        } => done(report::events(store, id, *stats, *interval)),
        BundleCommand::List { format, quiet } => {
            report::list(store, *format, *quiet);
            Ok(0)
        }
        BundleCommand::Spec {
            bundle,
            file,
            rootless,
        } => {
            let directory = bundle.as_deref().unwrap_or(Path::new("."));
            let name = file.as_deref().unwrap_or(Path::new("config.json"));
            done(spec::spec(&directory.join(name), *rootless))
        }
        BundleCommand::Features => {
            print_json(&format!("{:#}\n", crate::bootstrap::features()));
            Ok(0)
        }
    }
}

fn own(command: &OwnCommand) -> Result<i32> {
    match command {
        OwnCommand::Completion { shell } => {
            let mut text = Vec::new();
            clap_complete::generate(*shell, &mut args::command(), "cofferdam", &mut text);
            print_raw(&String::from_utf8_lossy(&text));
        }
        OwnCommand::Man { directory } => {
            std::fs::create_dir_all(directory)
                .and_then(|()| clap_mangen::generate_to(args::command(), directory))
                .map_err(Error::io(format!("write into {}", directory.display())))?;
        }
        OwnCommand::Version => {
            let commit = COMMIT.map_or_else(String::new, |c| format!("commit: {c}\n"));
            let number = env!("CARGO_PKG_VERSION");
            print(&format!(
                "cofferdam version {number}\n{commit}spec: 1.3.0\n"
            ));
        }
    }
    Ok(0)
}

/// Does something to one container, or to each whose id a regular expression matches. All are tried; the first error is returned.
fn each(
    store: &store::Store,
    id: &str,
    is_regex: bool,
    act: impl Fn(&str) -> Result<()>,
) -> Result<()> {
    if !is_regex {
        return act(id);
    }
    let regex = regex_lite::Regex::new(id)
        .map_err(|e| Error::Other(format!("{id:?} is not a regular expression: {e}")))?;
    let ids = store.ids();
    let results = ids.iter().filter(|id| regex.is_match(id)).map(|id| act(id));
    results.collect::<Vec<_>>().into_iter().collect()
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
