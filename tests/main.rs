//! The integration tests: every case runs against every containerd that is here. A case that cannot run is reported as
//! ignored, with the reason, never as passed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]

mod support;

mod attacks;
mod bad_input;
mod broken;
mod check;
mod cli;
mod common;
mod crash;
mod denials;
mod documents;
mod edges;
mod explain;
mod features;
mod floor;
mod isolation;
mod learn;
mod lifecycle;
mod oci;
mod pod;
mod process;
mod resources;
mod restart;
mod security;
mod start_protocol;
mod stdio;
mod streams;
mod stress;
mod systemd;
mod task_api;
mod top;
mod trace;
mod users;
mod worked;

use libtest_mimic::{Arguments, Failed, Trial};
use support::{Daemon, Release, Setup};

/// What a case runs against.
enum Kind {
    /// A daemon of each release.
    Daemon(Setup, fn(&mut Daemon)),
    /// Only our own binaries.
    Plain(Box<dyn FnOnce() + Send>),
}

/// One test.
pub struct Case {
    name: &'static str,
    kind: Kind,
    missing: Option<String>,
    /// The only release that can do it.
    only: Option<Release>,
    /// The isolation profile that containers are run under, unless they say otherwise.
    profile: Option<&'static str>,
}

/// Lists functions as cases: `ctr!(a, b)` with a bare daemon, `cri!(c)` with one that has the CRI plugin.
macro_rules! cases {
    ($($setup:ident: [$($function:ident),* $(,)?]),* $(,)?) => {
        /// The cases of this file.
        pub fn cases() -> Vec<$crate::Case> {
            vec![$($($crate::Case::$setup(
                concat!(module_path!(), "::", stringify!($function)),
                $function,
            ),)*)*]
        }
    };
}
pub(crate) use cases;

impl Case {
    pub fn ctr(name: &'static str, run: fn(&mut Daemon)) -> Self {
        Self {
            name,
            missing: None,
            only: None,
            profile: None,
            kind: Kind::Daemon(Setup::default(), run),
        }
    }

    pub fn cri(name: &'static str, run: fn(&mut Daemon)) -> Self {
        Self {
            name,
            missing: None,
            only: None,
            profile: None,
            kind: Kind::Daemon(
                Setup {
                    cri: true,
                    ..Setup::default()
                },
                run,
            ),
        }
    }

    pub fn plain(name: &'static str, run: impl FnOnce() + Send + 'static) -> Self {
        Self {
            name,
            missing: None,
            only: None,
            profile: None,
            kind: Kind::Plain(Box::new(run)),
        }
    }

    /// Older releases of containerd know nothing of it.
    #[must_use]
    pub fn only(self, release: Release) -> Self {
        Self {
            only: Some(release),
            ..self
        }
    }

    /// Containers are isolated by this profile.
    #[must_use]
    pub fn under(self, profile: &'static str) -> Self {
        Self {
            profile: Some(profile),
            ..self
        }
    }

    /// The case cannot run here, if there is a reason.
    #[must_use]
    pub fn unless(self, missing: Option<String>) -> Self {
        Self { missing, ..self }
    }

    fn trials(self) -> Vec<Trial> {
        let mut name = self.name.trim_start_matches("integration::").to_owned();
        if let Some(profile) = self.profile {
            name += &format!("::{profile}");
        }
        match self.kind {
            Kind::Plain(run) => {
                let ignored = self.missing.is_some();
                let name = self
                    .missing
                    .map_or(name.clone(), |m| format!("{name} ({m})"));
                vec![Trial::test(name, move || guard(run)).with_ignored_flag(ignored)]
            }
            Kind::Daemon(setup, run) => Release::ALL
                .into_iter()
                .filter(|r| self.only.is_none_or(|only| only == *r))
                .map(|release| {
                    let missing = release.missing().or(self.missing.clone()).or_else(|| {
                        (!nix::unistd::geteuid().is_root()).then(|| "needs root".into())
                    });
                    let name = match &missing {
                        Some(reason) => format!("{name}::{} ({reason})", release.name()),
                        None => format!("{name}::{}", release.name()),
                    };
                    Trial::test(name, move || {
                        guard(|| checked(release, setup, self.profile, run))
                    })
                    .with_ignored_flag(missing.is_some())
                })
                .collect(),
        }
    }
}

/// Runs a case on a daemon of its own, and looks for what it left behind.
fn checked(release: Release, setup: Setup, profile: Option<&str>, run: fn(&mut Daemon)) {
    let mut daemon = Daemon::start(release, setup);
    if let Some(profile) = profile {
        daemon.runtime = format!("io.containerd.cofferdam-{profile}.v1");
    }
    run(&mut daemon);
    support::leftovers::assert_none(&daemon);
}

fn guard(run: impl FnOnce()) -> Result<(), Failed> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).map_err(|e| {
        let text = e
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| e.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        Failed::from(text.unwrap_or_else(|| "panicked".into()))
    })
}

/// Which part of the cases this is, of how many: `COFFERDAM_PART=0/2` and `1/2` are all of them.
fn part() -> (usize, usize) {
    let Ok(text) = std::env::var("COFFERDAM_PART") else {
        return (0, 1);
    };
    text.split_once('/')
        .and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)))
        .filter(|(part, parts)| part < parts)
        .unwrap_or_else(|| panic!("COFFERDAM_PART={text}: expected I/N with I below N"))
}

/// Whether a case is wanted: `COFFERDAM_ONLY` has beginnings of names, with commas between them.
fn wanted(case: &Case) -> bool {
    let Ok(only) = std::env::var("COFFERDAM_ONLY") else {
        return true;
    };
    let name = case.name.trim_start_matches("integration::");
    only.is_empty() || only.split(',').any(|o| name.starts_with(o))
}

fn main() {
    // The same program is the attacker inside of containers.
    if std::env::var_os(attacks::MARK).is_some() {
        attacks::run();
        return;
    }
    if edges::helper::run() {
        return;
    }
    let arguments = Arguments::from_args();
    let modules = [
        bad_input::cases,
        broken::cases,
        cli::cases,
        crash::cases,
        features::cases,
        floor::cases,
        isolation::cases,
        users::cases,
        worked::cases,
        denials::cases,
        explain::cases,
        top::cases,
        check::cases,
        learn::cases,
        trace::cases,
        common::cases,
        lifecycle::cases,
        oci::cases,
        documents::cases,
        edges::cases,
        pod::cases,
        pod::newer_cases,
        process::cases,
        resources::cases,
        restart::cases,
        security::cases,
        start_protocol::cases,
        stdio::cases,
        streams::cases,
        stress::cases,
        systemd::cases,
        task_api::cases,
    ];
    let (part, parts) = part();
    let trials: Vec<Trial> = modules
        .iter()
        .flat_map(|m| m())
        .filter(wanted)
        .enumerate()
        .filter(|(i, _)| i % parts == part)
        .flat_map(|(_, case)| case.trials())
        .collect();
    if let Some(filter) = &arguments.filter
        && !trials.iter().any(|t| t.name().contains(filter.as_str()))
    {
        eprintln!("no case has {filter:?} in its name");
        std::process::exit(2);
    }
    let conclusion = libtest_mimic::run(&arguments, trials);
    support::clean_up();
    conclusion.exit();
}
