//! Differential testing: unusual but valid specs, each run by runc and by Cofferdam, and everything that can be seen of the two
//! containers compared. A difference that is known has a line in `known.rs` with its reason; any other is printed, with its spec.
//!
//! `differ [--from N] [--count N] [--runc PROGRAM] [--cofferdam PROGRAM] [--keep DIR]`, or `differ --print N` for a spec; specs have numbers, and the same number is the
//! same spec.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fields;
mod known;
mod run;
mod spec;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use run::{Runtime, Seen};

/// What is counted.
#[derive(Default)]
struct Tally {
    tried: u64,
    /// Both ran it, and saw the same.
    same: u64,
    /// Both refused it.
    refused: u64,
    /// By reason.
    known: BTreeMap<&'static str, u64>,
    /// By what differs: how often, and the first spec's number.
    unknown: BTreeMap<String, (u64, u64)>,
}

fn main() {
    let mut from = 0;
    let mut count = 200;
    let mut runc = PathBuf::from("runc");
    let mut cofferdam = PathBuf::from("cofferdam");
    let mut keep = None;
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let value = args.next().unwrap_or_else(|| panic!("{arg} needs a value"));
        match arg.as_str() {
            "--from" => from = value.parse().expect("a number"),
            "--count" => count = value.parse().expect("a number"),
            "--runc" => runc = value.into(),
            "--cofferdam" => cofferdam = value.into(),
            "--print" => {
                let number = value.parse().expect("a number");
                return println!("{:#}", spec::numbered(number));
            }
            "--keep" => keep = Some(PathBuf::from(value)),
            _ => panic!("unknown argument {arg}"),
        }
    }
    nix::sys::prctl::set_child_subreaper(true).expect("become a subreaper");
    // Of several virtual machines each takes its part, as `PART/ALL`.
    let part = std::env::var("COFFERDAM_PART").unwrap_or_else(|_| "0/1".into());
    let (part, parts): (u64, u64) = part
        .split_once('/')
        .and_then(|(part, all)| Some((part.parse().ok()?, all.parse().ok()?)))
        .expect("COFFERDAM_PART is PART/ALL");
    let next = AtomicU64::new(0);
    let tally = Mutex::new(Tally::default());
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (next, tally, runc, cofferdam, keep) = (&next, &tally, &runc, &cofferdam, &keep);
            scope.spawn(move || {
                let theirs = Runtime::new("runc", runc, worker);
                let ours = Runtime::new("cofferdam", cofferdam, worker);
                loop {
                    let number = from + part + parts * next.fetch_add(1, Ordering::Relaxed);
                    if number >= from + count {
                        return;
                    }
                    let spec = spec::numbered(number);
                    let seen = (theirs.run(&spec), ours.run(&spec));
                    judge(
                        number,
                        &spec,
                        &seen,
                        &mut tally.lock().unwrap(),
                        keep.as_ref(),
                    );
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!(
        "{} specs from number {from}: {} the same, {} refused by both",
        tally.tried, tally.same, tally.refused
    );
    for (reason, n) in &tally.known {
        println!("{n:>7}  known: {reason}");
    }
    for (what, (n, first)) in &tally.unknown {
        println!("{n:>7}  UNKNOWN (spec {first}): {what}");
    }
    // Or both refuse because nothing can be run here.
    let mostly_refused = tally.refused * 2 > tally.tried;
    if mostly_refused {
        println!(
            "more than half of the specs are refused by both: what is missing on this machine?"
        );
    }
    std::process::exit(i32::from(mostly_refused || !tally.unknown.is_empty()));
}

fn judge(
    number: u64,
    spec: &Value,
    (theirs, ours): &(Seen, Seen),
    tally: &mut Tally,
    keep: Option<&PathBuf>,
) {
    tally.tried += 1;
    let mut unknown = Vec::new();
    match (&theirs.refusal, &ours.refusal) {
        (Some(_), Some(_)) => {
            tally.refused += 1;
            return;
        }
        (None, Some(why)) => match known::refusal(spec, why) {
            Some(reason) => *tally.known.entry(reason).or_default() += 1,
            None => unknown.push(format!(
                "only Cofferdam refuses: {}",
                known::without_numbers(why)
            )),
        },
        (Some(why), None) => match known::acceptance(spec, why) {
            Some(reason) => *tally.known.entry(reason).or_default() += 1,
            None => unknown.push(format!(
                "only runc refuses: {}",
                known::without_numbers(why)
            )),
        },
        (None, None) => {
            let mut any = false;
            for difference in run::differences(theirs, ours) {
                any = true;
                match known::difference(spec, &difference) {
                    Some(reason) => *tally.known.entry(reason).or_default() += 1,
                    None => unknown.push(difference.to_string()),
                }
            }
            tally.same += u64::from(!any);
        }
    }
    if let (Some(dir), false) = (keep, unknown.is_empty()) {
        std::fs::create_dir_all(dir).unwrap();
        let text = format!(
            "{spec:#}\n\n{}\n\nrunc: {theirs:#?}\n\ncofferdam: {ours:#?}\n",
            unknown.join("\n")
        );
        std::fs::write(dir.join(number.to_string()), text).unwrap();
    }
    for what in unknown {
        let key: String = what.chars().take(300).collect();
        tally.unknown.entry(key).or_insert((0, number)).0 += 1;
    }
}
