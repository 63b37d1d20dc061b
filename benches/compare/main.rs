//! Our shim against containerd's own with runc, against one that does nothing, and against the kernel's own cost: on the same
//! containerd, interleaved in one run. Ratios are the result; absolute times are this machine's.
//! `compare [--short] [--starts] [--rounds N] [--from FILE] [--json FILE] [--pictures DIRECTORY] [--document FILE [--mark NAME]]
//! [--check]`: `--starts` leaves out what is not about starts, `--from` shows what was measured before, `--document` puts the tables into
//! a document between two marks.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss
)]
#![allow(clippy::unchecked_time_subtraction)] // of later and earlier times
#![allow(dead_code)] // the tests' support is more than this needs

mod client;
mod life;
mod measure;
mod pods;
mod profiles;
mod reference;
mod report;
mod resources;
mod runtimes;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::path::Path;
use std::time::Duration;

use client::Client;
use reference::Floor;
use runtimes::{HARDENED, OURS, RUNC, Runtime, UNTRUSTED};
use serde_json::{Value, json};
use support::{Daemon, Release, Setup};

fn option(name: &str) -> Option<String> {
    let args: Vec<String> = std::env::args().collect();
    let at = args.iter().position(|a| a == name)?;
    args.get(at + 1).cloned()
}

fn flag(name: &str) -> bool {
    std::env::args().any(|a| a == name)
}

/// How much of everything.
struct Size {
    rounds: usize,
    pods: usize,
    idle: u64,
    megabytes: u64,
    shapes: &'static [(usize, usize)],
    growth: &'static [usize],
    in_a_pod: &'static [usize],
}

const FULL: Size = Size {
    rounds: 100,
    pods: 20,
    idle: 60,
    megabytes: 1000,
    shapes: &[
        (1, 1),
        (1, 3),
        (1, 10),
        (20, 1),
        (100, 1),
        (100, 3),
        (100, 10),
    ],
    growth: &[1, 100, 250, 500, 1000],
    in_a_pod: &[1, 25, 50, 100],
};
/// For CI: enough to see that something broke.
const SHORT: Size = Size {
    rounds: 15,
    pods: 4,
    idle: 5,
    megabytes: 200,
    shapes: &[(1, 1), (20, 1), (1, 10)],
    growth: &[1, 30],
    in_a_pod: &[1, 20],
};

fn main() {
    let mut size = if flag("--short") { SHORT } else { FULL };
    if let Some(rounds) = option("--rounds") {
        size.rounds = rounds.parse().expect("--rounds takes a number");
    }
    let results = match option("--from") {
        Some(file) => serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap(),
        None => measure_all(&size),
    };
    print!("{}", report::tables(&results));
    if let Some(path) = option("--json") {
        std::fs::write(path, serde_json::to_vec_pretty(&results).unwrap()).unwrap();
    }
    if let Some(directory) = option("--pictures") {
        report::draw(&results, Path::new(&directory));
    }
    if let Some(document) = option("--document") {
        let name = option("--mark").unwrap_or("figures".into());
        report::put_into(Path::new(&document), &name, &results);
    }
    let broken = report::broken(&results, flag("--short"));
    for line in &broken {
        println!("not reached: {line}");
    }
    if flag("--check") {
        std::process::exit(i32::from(!broken.is_empty()));
    }
}

fn say(what: &str) {
    eprintln!("measuring {what}");
}

fn measure_all(size: &Size) -> Value {
    let release = Release::V2;
    if let Some(reason) = release.missing() {
        panic!("{reason}");
    }
    let runtimes = runtimes::all();
    let pair: [Runtime; 2] = [OURS, RUNC];
    let mut out = json!({
        "conditions": {
            "containerd": release.name(),
            "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim(),
            "processors": std::thread::available_parallelism().map_or(0, usize::from),
            "rounds": size.rounds,
        }
    });
    let daemon = Daemon::start(release, Setup::default());
    let client = Client::connect(&daemon);
    say("lives and execs, one after the other");
    out["life"] = life::phases(&client, &runtimes, size.rounds, life::APART);
    out["life_tight"] = life::phases(&client, &runtimes, size.rounds, Duration::ZERO);
    say("what a start takes inside of the shim, and the kernel's own cost of it");
    let filter = profiles::default_filter(client.daemon);
    // Shims say how long something took at level debug only.
    let telling = Daemon::start(
        release,
        Setup {
            debug: true,
            ..Setup::default()
        },
    );
    let told = Client::connect(&telling);
    let floor = Floor::new(&telling, &filter);
    out["inside"] = life::inside(&told, floor.as_ref(), &filter, size.rounds);
    say("command lines");
    out["command_line"] = reference::command_lines(&daemon, size.pods);
    say("eight at a time");
    out["eight"] = life::at_a_time(&client, &runtimes, size.pods);
    if flag("--starts") {
        drop(floor);
        drop(told);
        drop(telling);
        drop(client);
        drop(daemon);
        support::clean_up();
        return out;
    }
    say("profiles");
    out["profiles"] = profiles::profiles(&client, &filter, size.rounds).into();
    say("memory");
    out["memory"] = resources::memory(&client, &pair, size.shapes);
    let classes = resources::memory(&client, &[HARDENED, UNTRUSTED], &[(20, 1)]);
    for class in [HARDENED, UNTRUSTED] {
        out["memory"]["20x1"][class.name] = classes["20x1"][class.name].clone();
    }
    for runtime in pair {
        let pss = |shape: &str| out["memory"][shape][runtime.name]["pss_kib"].as_f64();
        if let (Some(ten), Some(one)) = (pss("1x10"), pss("1x1")) {
            out["further_container"][runtime.name] = ((ten - one) / 9.0).into();
        }
    }
    say("idle shims");
    out["idle"] = resources::idle(&client, &pair, size.idle);
    say("output");
    out["output_1"] = resources::output(&client, &pair, 1, size.megabytes, 7);
    out["output_50"] = resources::output(&client, &pair, 50, size.megabytes / 20, 1);
    say("growth");
    for (key, runtime) in [("standard", OURS), ("runc", RUNC)] {
        // runc's pods of a thousand would take half an hour.
        let steps: Vec<usize> = size
            .growth
            .iter()
            .copied()
            .filter(|n| key == "standard" || *n <= 250)
            .collect();
        let bare = floor.as_ref().filter(|_| key == "standard");
        out["growth_node"][key] = resources::growth(&told, &runtime, &steps, false, bare);
        out["growth_pod"][key] = resources::growth(&told, &runtime, size.in_a_pod, true, None);
    }
    drop(floor);
    drop(told);
    drop(telling);
    drop(client);
    drop(daemon);
    say("pods through CRI");
    let daemon = Daemon::start(
        release,
        Setup {
            cri: true,
            ..Setup::default()
        },
    );
    let handlers = [
        "cofferdam",
        "cofferdam-hardened",
        "cofferdam-untrusted",
        "runc",
    ];
    out["pods"] = pods::pods(&daemon, &handlers, size.pods);
    out["pods_eight"] = pods::at_a_time(&daemon, &handlers, size.pods / 4);
    drop(daemon);
    support::clean_up();
    out
}
