//! `COFFERDAM_TRACE`: the phases of a start, in a format that a standard viewer opens.

use std::fs;

use serde_json::Value;

use crate::support::shim::Shim;

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    vec![crate::Case::plain("trace::one_start", one_start)]
}

fn one_start() {
    let dir = std::env::temp_dir().join(format!("cofferdam-trace-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let file = dir.join("trace.json");
    let environment = [("COFFERDAM_TRACE", file.to_str().unwrap())];
    let s = Shim::start_with(3, "containerd-shim-cofferdam-hardened-v1", &environment);
    s.run("box", &["/bin/true"]);
    s.wait("box", "").unwrap();
    s.delete("box", "").unwrap();
    s.end();
    // A viewer takes it without the end of the list, too.
    let text = fs::read_to_string(&file).unwrap();
    let text = format!("{}]", text.trim_end().trim_end_matches(','));
    let events: Vec<Value> = serde_json::from_str(&text).unwrap();
    let find = |name: &str| {
        let found = events.iter().find(|e| e["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name:?} in {text}"));
        let (at, took) = (
            found["ts"].as_f64().unwrap(),
            found["dur"].as_f64().unwrap(),
        );
        (at, at + took)
    };
    // In the order in which they begin. Their ends are those of different processes.
    let order = [
        "execve of start",
        "start",
        "seal the program",
        "spawn the server",
        "Create",
        "read config.json",
        "apply the profile",
        "filters",
        "make control groups",
        "clone3",
        "change the root",
        "wait to be started",
        "Start",
        "execve",
        "exit",
        "Delete",
    ];
    for pair in order.windows(2) {
        assert!(find(pair[0]).0 <= find(pair[1]).0, "{pair:?} in {text}");
    }
    // Loading either program comes before anything that it does.
    let (loading, start) = (find("execve of start"), find("start"));
    assert!(loading.0 < loading.1 && loading.1 <= start.0, "{text}");
    let (loading, spawn) = (find("execve of the server"), find("spawn the server"));
    assert!(
        spawn.0 <= loading.0 && loading.1 <= find("serve: begin").0,
        "{text}"
    );
    let create = find("Create");
    for inner in [
        "read config.json",
        "clone3",
        "change the root",
        "profile: landlock",
    ] {
        let (from, to) = find(inner);
        assert!(
            inner.starts_with("profile") || (create.0 <= from && to <= create.1),
            "{inner} is not within Create: {text}"
        );
    }
    if std::env::var_os("COFFERDAM_SHOW").is_some() {
        for e in &events {
            eprintln!(
                "{:>14.0} {:>9.0} {}",
                e["ts"].as_f64().unwrap(),
                e["dur"].as_f64().unwrap(),
                e["name"]
            );
        }
    }
    fs::remove_dir_all(dir).unwrap();
}
