//! The command line: its commands, their arguments, and what `--help` says of them. Those of an OCI runtime take every flag of
//! runc 1.3 and crun 1.29; what is not done is refused by name.

#![allow(clippy::doc_markdown, reason = "documentation is the text of --help")]

mod bundles;
mod global;
mod pods;
mod process;
mod update;
mod values;

use std::ffi::OsString;
use std::fmt::Write;

use clap::parser::ValueSource;
use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::learn;

pub(super) use bundles::{BundleCommand, Format};
pub(super) use global::{CgroupManager, Global, LogFormat, LogLevel, Rootless};
pub(super) use pods::{CheckArgs, PodCommand, ProfileCommand};
pub(super) use process::{CreateArgs, ExecArgs, RunArgs};
pub(super) use update::UpdateArgs;
pub(super) use values::{LogTarget, duration};

/// Shows and checks the pods that containerd runs with Cofferdam, and runs containers from OCI bundles, as runc does.
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

/// The commands, by what they are about.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one in a run")]
pub(super) enum Command {
    #[command(flatten)]
    Pod(PodCommand),
    #[command(flatten)]
    Bundle(BundleCommand),
    #[command(flatten)]
    Own(OwnCommand),
}

/// About this program.
#[derive(Debug, Subcommand)]
pub(super) enum OwnCommand {
    /// Print the completions of a shell, to be read by it
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the manual pages
    #[command(hide = true)]
    Man {
        /// Directory to write them into
        directory: std::path::PathBuf,
    },
    /// Print the version
    Version,
}

/// The commands that a group has.
fn group<T: Subcommand>() -> Vec<clap::Command> {
    let all = T::augment_subcommands(clap::Command::new(""));
    all.get_subcommands().cloned().collect()
}

/// The command line, as it is parsed and described.
pub(super) fn command() -> clap::Command {
    let mut command = Cli::command();
    let options: Vec<_> = command.get_arguments().cloned().collect();
    let options = options.into_iter().filter(clap::Arg::is_global_set);
    let options: Vec<_> = options.map(|option| option.hide(true)).collect();
    // Those of an OCI runtime are not shown where they mean nothing. Of two with one id the command's own is taken.
    for other in group::<PodCommand>().iter().chain(&group::<OwnCommand>()) {
        command = command.mut_subcommand(other.get_name(), |subcommand| {
            let is_own = |option: &&clap::Arg| {
                let mut own = subcommand.get_arguments();
                !own.any(|o| o.get_id() == option.get_id())
            };
            let hidden: Vec<_> = options.iter().filter(is_own).cloned().collect();
            subcommand.args(hidden)
        });
    }
    let listed = |commands: &[clap::Command]| {
        let mut text = String::new();
        for command in commands.iter().filter(|c| !c.is_hide_set()) {
            let about = command.get_about().map(ToString::to_string);
            let about = about.unwrap_or_default();
            let first = about.split(". ").next().unwrap_or_default();
            writeln!(text, "  {:<11} {first}", command.get_name()).ok();
        }
        text
    };
    let template = format!(
        "{{about-with-newline}}\n{{usage-heading}} {{usage}}\n\n\
         Pods of containerd (Kubernetes, Docker, ctr), and this node:\n{}\n\
         Containers of OCI bundles, as runc has them:\n{}\n\
         This program:\n{}  help        Print this, or the help of a command\n\n\
         Options; all but the first and the last are for containers of OCI bundles:\n{{options}}\n",
        listed(&group::<PodCommand>()),
        listed(&group::<BundleCommand>()),
        listed(&group::<OwnCommand>()),
    );
    command.help_template(template)
}

/// Options of an OCI runtime that mean nothing to commands for pods, which must not seem to be heeded.
const FOR_BUNDLES: [&str; 5] = [
    "root",
    "profile",
    "cgroup_manager",
    "systemd_cgroup",
    "rootless",
];

/// Reads the command line.
pub(super) fn parse(args: &[OsString]) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(args)?;
    let cli = Cli::from_arg_matches(&matches).map_err(|e| e.format(&mut command))?;
    if let (Some(Command::Pod(_) | Command::Own(_)), Some((name, _))) =
        (&cli.command, matches.subcommand())
    {
        let takes = |id: &str| {
            let subcommand = command.find_subcommand(name);
            subcommand.is_some_and(|c| {
                c.get_arguments()
                    .any(|a| a.get_id() == id && !a.is_hide_set())
            })
        };
        let given = |id: &&&str| matches.value_source(id) == Some(ValueSource::CommandLine);
        if let Some(id) = FOR_BUNDLES.iter().filter(|id| !takes(id)).find(given) {
            let option = id.replace('_', "-");
            return Err(command.error(
                clap::error::ErrorKind::ArgumentConflict,
                format!(
                    "--{option} is for containers of OCI bundles; {name} has nothing to do with them"
                ),
            ));
        }
    }
    Ok(cli)
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
    let command = command();
    let mut inside = &command;
    let mut positionals = 0;
    let mut ended = false;
    let mut is_value = false;
    let is_flag = |inside: &clap::Command, name: &str| {
        let mut all = command.get_arguments().chain(inside.get_arguments());
        all.any(|arg| arg.get_long() == Some(name) && !arg.get_action().takes_values())
    };
    // An option whose value is the next word.
    let takes_next = |inside: &clap::Command, text: &str| {
        let named = |arg: &clap::Arg| {
            if let Some(long) = text.strip_prefix("--") {
                return arg.get_long() == Some(long);
            }
            let mut letters = text.chars().skip(1);
            letters.next() == arg.get_short() && letters.next().is_none()
        };
        let mut all = command.get_arguments().chain(inside.get_arguments());
        all.any(|arg| named(arg) && arg.get_action().takes_values())
    };
    let plain = args.into_iter().enumerate().filter_map(|(i, arg)| {
        let Some(text) = arg.to_str().filter(|_| i > 0 && !ended && positionals < 2) else {
            return Some(arg);
        };
        if std::mem::take(&mut is_value) {
            return Some(arg);
        }
        ended = text == "--";
        if let Some((name, value)) = text.strip_prefix("--").and_then(|f| f.split_once('=')) {
            return match value {
                "true" if is_flag(inside, name) => Some(format!("--{name}").into()),
                "false" if is_flag(inside, name) => None,
                _ => Some(arg),
            };
        }
        if text.len() > 1 && text.starts_with('-') {
            is_value = takes_next(inside, text);
        } else {
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
            Self::Bundle(
                BundleCommand::Create(_)
                    | BundleCommand::Run(_)
                    | BundleCommand::Exec(_)
                    | BundleCommand::Start { .. }
                    | BundleCommand::Delete { .. }
            )
        )
    }

    /// The exit status of an error: as runc's for the commands of an OCI runtime; 2 for those that answer a question, whose answer may
    /// be 1.
    pub(super) fn failed(&self) -> i32 {
        match self {
            // The program's own statuses are 0 to 254.
            Self::Bundle(BundleCommand::Exec(_)) => 255,
            Self::Bundle(_) | Self::Own(_) => 1,
            Self::Pod(_) => 2,
        }
    }

    /// Whether the answer is to be a document of JSON, also where it is an error.
    pub(super) fn is_json(&self) -> bool {
        let Self::Pod(command) = self else {
            return false;
        };
        match command {
            PodCommand::Explain { json, .. }
            | PodCommand::Profile(
                ProfileCommand::List { json }
                | ProfileCommand::Show { json, .. }
                | ProfileCommand::Diff { json, .. }
                | ProfileCommand::Validate { json, .. },
            )
            | PodCommand::Learn(
                learn::LearnCommand::Show { json, .. } | learn::LearnCommand::List { json },
            ) => *json,
            PodCommand::Check(args) => args.json,
            PodCommand::Top(args) => args.json,
            PodCommand::Profile(ProfileCommand::New { .. }) | PodCommand::Learn(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        command().debug_assert();
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
            parse(&with_plain_flags(args)).unwrap();
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
                "c --root /r run --bundle /b -f c --pid-file /p --detach=true id",
                "c --root /r run --bundle /b -f c --pid-file /p --detach id",
            ),
            (
                "c --log=true kill --all=true x",
                "c --log=true kill --all x",
            ),
        ] {
            assert_eq!(plain(line), expected);
        }
    }
}
