//! `cofferdam`, the OCI runtime command line over the executor: OCI runtime.md "Operations", with runc's flags where
//! people and tools rely on them.

mod args;
mod check;
mod exec;
mod explain;
mod learn;
mod lifecycle;
mod messages;
mod profile;
mod report;
mod signal;
mod store;
mod terminal;
mod top;

use std::ffi::OsString;
use std::io::Write;

use clap::Parser;

use args::{Cli, Command, CreateArgs, ExecArgs, Format, ProfileCommand, UpdateArgs};
use messages::{MESSAGES, Messages};

use crate::executor;
use crate::inspect::containerd::Source;
use crate::show::{shown_json, shown_lines};

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
            cli.command.failed()
        }
    }
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
