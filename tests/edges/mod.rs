//! Situations that users of runtimes have reported, as one suite: each is tried on the command line, on the shim and as an ordinary
//! user, on whichever cgroups the machine has. A situation is one line of a table, and a small function that says what it saw.
//!
//! `make edges` tries them on runc as well, where it is installed, and prints what it sees otherwise.

mod client;
pub mod helper;
mod hooks;
mod inherit;
mod mounts;
mod process;
mod profile;
mod states;
pub mod subject;

use std::io::Write;
use std::process::Command;

use crate::Case;
use subject::{Front, Subject};

/// One situation.
#[derive(Clone, Copy)]
struct Situation {
    name: &'static str,
    /// Where it was reported.
    source: &'static str,
    fronts: &'static [Front],
    /// What is right.
    right: &'static str,
    /// Brings it about, and says what is seen.
    look: fn(&mut Subject) -> String,
}

const ALL: &[Front] = &[Front::Command, Front::Shim, Front::Rootless];
/// With control groups, or more ids than one.
const ROOT: &[Front] = &[Front::Command, Front::Shim];
/// What only a command line has.
const LINE: &[Front] = &[Front::Command, Front::Rootless];
const COMMAND: &[Front] = &[Front::Command];
const SHIM: &[Front] = &[Front::Shim];
const ROOTLESS: &[Front] = &[Front::Rootless];

/// A table of situations: a function's name, the fronts, where it was reported, and what is right.
macro_rules! situations {
    ($($look:ident, $fronts:ident, $source:literal, $right:expr;)*) => {
        pub(super) const SITUATIONS: &[super::Situation] = &[$(super::Situation {
            name: stringify!($look),
            source: $source,
            fronts: super::$fronts,
            right: $right,
            look: $look,
        }),*];
    };
}
use situations;

fn all() -> impl Iterator<Item = Situation> {
    [
        hooks::SITUATIONS,
        inherit::SITUATIONS,
        mounts::SITUATIONS,
        process::SITUATIONS,
        profile::SITUATIONS,
        states::SITUATIONS,
        client::SITUATIONS,
    ]
    .into_iter()
    .flatten()
    .copied()
}

/// The cases of this folder: each situation on each of its fronts.
pub fn cases() -> Vec<Case> {
    let case = |situation: Situation, front: Front| {
        let name = format!("edges::{}::{}", front.name(), situation.name);
        Case::plain(Box::leak(name.into_boxed_str()), move || {
            check(situation, front);
        })
        .unless(missing(front))
    };
    let of = |s: Situation| s.fronts.iter().map(move |front| case(s, *front));
    let elsewhere = (!std::path::Path::new(DOCUMENT).exists()).then(|| "no repository here".into());
    let document = Case::plain("edges::the_document_lists_them", document).unless(elsewhere);
    all().flat_map(of).chain([document]).collect()
}

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/edges.md");

/// This suite's list, for people. `COFFERDAM_WRITE=1` writes it.
fn document() {
    let mut text = String::from(
        "# Situations that users reported\n\n\
         Written by `COFFERDAM_WRITE=1 make test TESTS=edges::the_document`, from the tables in `tests/edges/`. `make edges` tries all of them. A situation\n\
         is the case `edges::FRONT::NAME` for each front: `command` (the OCI command line as root), `rootless` (the same as an ordinary user), `shim`.\n\n\
         | situation | reported | fronts | seen, and right |\n|---|---|---|---|\n",
    );
    for s in all() {
        let fronts: Vec<_> = s.fronts.iter().map(|f| f.name()).collect();
        let right = s.right.replace('|', "\\|").replace('\n', "; ");
        let (name, source, fronts) = (s.name, s.source, fronts.join(" "));
        text += &format!("| `{name}` | {source} | {fronts} | `{right}` |\n");
    }
    if std::env::var_os("COFFERDAM_WRITE").is_some() {
        std::fs::write(DOCUMENT, &text).unwrap();
    }
    let there = std::fs::read_to_string(DOCUMENT).unwrap_or_default();
    assert!(
        there == text,
        "docs/edges.md is not this list: run this test with COFFERDAM_WRITE=1"
    );
}

fn missing(front: Front) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("needs root".into());
    }
    let users = std::fs::read_to_string("/proc/sys/user/max_user_namespaces");
    let none = users.is_ok_and(|n| n.trim() == "0");
    (front == Front::Rootless && none).then(|| "needs user namespaces".into())
}

fn see(situation: Situation, front: Front) -> String {
    (situation.look)(&mut Subject::new(front))
        .trim_end()
        .to_owned()
}

fn check(situation: Situation, front: Front) {
    let seen = see(situation, front);
    assert_eq!(
        seen, situation.right,
        "{} ({})",
        situation.name, situation.source
    );
    if front == Front::Command
        && let Some(report) = std::env::var_os("COFFERDAM_BESIDE")
    {
        beside(situation, &report);
    }
}

/// What runc does, for a person to read: a difference is no failure of ours.
fn beside(situation: Situation, report: &std::ffi::OsStr) {
    if Command::new("runc").arg("--version").output().is_err() {
        return;
    }
    let seen = std::panic::catch_unwind(|| see(situation, Front::Runc));
    let seen = seen.unwrap_or_else(|_| "(it could not be tried)".into());
    if seen == situation.right {
        return;
    }
    let line = format!(
        "{} ({})\n  right, and seen here: {:?}\n  runc:                 {seen:?}\n",
        situation.name, situation.source, situation.right
    );
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(report);
    file.and_then(|mut f| f.write_all(line.as_bytes())).unwrap();
}
