//! `cofferdam explain`: what is enforced is shown, what is missing is missed, and shims that do not answer hold nobody up.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use containerd_shim_protos::api::CreateTaskResponse;
use serde_json::{Value, json};

use crate::isolation::greedy;
use crate::support::place::program;
use crate::support::shim::{Shim, Streams};
use crate::support::{Output, is_alive, kill, leftovers, wait_until};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    let sabotage = |name, f: fn()| Case::plain(name, f).unless(no_sabotage());
    vec![
        Case::plain("explain::standard", standard),
        Case::plain("explain::hardened", hardened),
        Case::plain("explain::untrusted", untrusted),
        sabotage("explain::sabotaged_process", sabotaged_process),
        sabotage("explain::sabotaged_filters", sabotaged_filters),
        sabotage("explain::sabotaged_no_new_privs", sabotaged_no_new_privs),
        sabotage("explain::sabotaged_files", sabotaged_files),
        Case::plain("explain::changed_behind_our_back", changed_behind_our_back),
        Case::plain("explain::execs", execs),
        Case::plain("explain::names", names),
        Case::plain("explain::silent_shim", silent_shim),
        Case::plain("explain::sockets", sockets),
    ]
}

fn no_sabotage() -> Option<String> {
    (!cfg!(feature = "sabotage")).then(|| "needs the feature sabotage".into())
}

fn explain(args: &[&str]) -> Output {
    Output::of(Command::new(program()).arg("explain").args(args))
}

fn of(s: &Shim) -> String {
    s.pid().unwrap().to_string()
}

/// The lines of a pod's only container, and how many are missing.
fn lines(s: &Shim) -> (Vec<Value>, u64) {
    let out = explain(&["--json", &of(s)]);
    let all: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let missing = all["missing"].as_u64().unwrap();
    assert_eq!(out.status, i32::from(missing > 0), "{out:?}");
    let lines = all["containers"][0]["lines"].as_array().unwrap().clone();
    (lines, missing)
}

fn missing(s: &Shim) -> Vec<String> {
    let (all, count) = lines(s);
    let broken = all.iter().filter(|l| l["mark"] == "missing");
    let names: Vec<String> = broken
        .map(|l| {
            format!(
                "{}: {}",
                l["section"].as_str().unwrap(),
                l["what"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(names.len() as u64, count);
    names
}

#[track_caller]
fn mark(lines: &[Value], section: &str, what: &str) -> String {
    let found = lines
        .iter()
        .find(|l| l["section"] == section && l["what"] == what);
    found.unwrap_or_else(|| panic!("no {section}: {what} in {lines:#?}"))["mark"]
        .as_str()
        .unwrap()
        .to_owned()
}

/// A container that sleeps.
fn sleeper(s: &Shim, change: impl FnOnce(&mut Value)) {
    let mut spec = s.spec("box", &["sleep", "1000"]);
    change(&mut spec);
    s.create_with("box", &spec, Streams::default()).unwrap();
    s.start_process("box", "").unwrap();
}

fn standard() {
    let s = Shim::start(3);
    sleeper(&s, |_| {});
    let (all, missing) = lines(&s);
    assert_eq!(missing, 0, "{all:#?}");
    assert!(all.iter().all(|l| l["mark"] != "tightened"), "{all:#?}");
    for (section, what) in [
        ("process", "capabilities, bounding"),
        ("process", "no_new_privs"),
        ("namespaces", "pid"),
        ("files", "root"),
        ("files", "/proc/kcore"),
        ("files", "/proc/sys"),
        ("limits", "devices"),
    ] {
        assert_eq!(mark(&all, section, what), "kept", "{section}: {what}");
    }
    let text = explain(&[&of(&s)]).ok().stdout;
    assert!(text.contains("box  profile standard, pid "), "{text}");
    s.finish("box");
    s.end();
}

fn hardened() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-hardened-v1");
    let spec = greedy(&s, "box", &["sleep", "1000"]);
    s.create_with("box", &spec, Streams::default()).unwrap();
    s.start_process("box", "").unwrap();
    let (all, missing) = lines(&s);
    assert_eq!(missing, kernel_lacks(&all), "{all:#?}");
    // Asked for, the filters are read back: all that is to be denied is.
    let read = explain(&["--read-filters", &of(&s)]).stdout;
    let line = read.lines().find(|l| l.contains("filters read back"));
    let line = line.unwrap_or_else(|| panic!("{read}"));
    assert!(line.contains("calls denied, by filters of"), "{line}");
    assert!(!read.contains("against the profile"), "{read}");
    for (section, what, expected) in [
        ("process", "capabilities, bounding", "tightened"),
        ("process", "no_new_privs", "tightened"),
        ("process", "RLIMIT_CORE", "tightened"),
        ("system calls", "seccomp", "tightened"),
        ("files", "/proc/kcore", "tightened"),
        ("files", "/tmp", "tightened"),
        ("limits", "pids.max", "tightened"),
        ("kernel", "securebits", "not-shown"),
        ("namespaces", "network", "kept"),
    ] {
        assert_eq!(mark(&all, section, what), expected, "{section}: {what}");
    }
    // What was denied is told of as well.
    s.exec("box", "e", &["unshare", "-n", "true"]).unwrap();
    s.start_process("box", "e").unwrap();
    s.wait("box", "e").unwrap();
    s.delete("box", "e").unwrap();
    let json = explain(&["--json", &of(&s)]).stdout;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["containers"][0]["container"]["denials"],
        json!([{ "call": "unshare", "rule": "profile hardened: seccomp.floor", "what": "denied", "count": 1 }])
    );
    let text = explain(&[&of(&s)]).stdout;
    assert!(text.contains("unshare (denied)"), "{text}");
    s.finish("box");
    s.end();
}

/// Promises that this very kernel cannot keep.
fn kernel_lacks(lines: &[Value]) -> u64 {
    let lacks = |l: &&Value| l["section"] == "kernel" && l["mark"] == "missing";
    let all: Vec<&Value> = lines.iter().filter(lacks).collect();
    for line in &all {
        assert!(
            line["found"].as_str().unwrap().contains("this kernel"),
            "{line}"
        );
    }
    all.len() as u64
}

fn untrusted() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-untrusted-v1");
    sleeper(&s, |_| {});
    let (all, missing) = lines(&s);
    assert_eq!(missing, kernel_lacks(&all), "{all:#?}");
    for (section, what) in [
        ("users", "ids"),
        ("users", "user namespace"),
        ("files", "/proc hides others"),
    ] {
        assert_eq!(mark(&all, section, what), "tightened", "{section}: {what}");
    }
    s.finish("box");
    s.end();
}

/// Each protection that is left out is missed, and nothing else.
fn sabotaged_process() {
    for (what, expected) in [
        (
            "capabilities",
            vec![
                "process: capabilities, bounding",
                "process: capabilities, permitted",
                "process: capabilities, effective",
            ],
        ),
        ("seccomp", vec!["system calls: seccomp"]),
        ("rlimits", vec!["process: RLIMIT_CORE"]),
    ] {
        sabotaged(what, &expected);
    }
}

/// Filters that are not what the profile says are found where they are read back.
fn sabotaged_filters() {
    let environment = [("COFFERDAM_SABOTAGE", "seccomp")];
    let s = Shim::start_with(3, "containerd-shim-cofferdam-hardened-v1", &environment);
    sleeper(&s, |_| {});
    let out = explain(&["--read-filters", &of(&s)]);
    let line = out.stdout.lines().find(|l| l.contains("filters read back"));
    assert!(
        line.is_some_and(|l| l.contains("allowed, against the profile: ")) && out.status == 1,
        "{out:?}"
    );
    s.finish("box");
    s.end();
}

/// Landlock would refuse to start without it.
fn sabotaged_no_new_privs() {
    let environment = [("COFFERDAM_SABOTAGE", "no_new_privs")];
    let s = Shim::start_with(3, "containerd-shim-cofferdam-v1", &environment);
    sleeper(&s, |spec| {
        spec["process"]["noNewPrivileges"] = json!(true);
        spec["linux"]["seccomp"] = Value::Null;
    });
    assert_eq!(missing(&s), ["process: no_new_privs"]);
    s.finish("box");
    s.end();
}

fn sabotaged_files() {
    for (what, expected) in [
        ("root", vec!["files: root"]),
        (
            "masks",
            vec!["files: /proc/keys", "files: /proc/timer_list"],
        ),
        ("read-only-paths", vec!["files: /proc/sys"]),
        ("mounts", vec!["files: /dev/shm", "files: /proc"]),
    ] {
        sabotaged(what, &expected);
    }
}

fn sabotaged(what: &str, expected: &[&str]) {
    // Raising a limit needs a right that not every root has; this one is there before.
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 4096, 4096).unwrap();
    let shim = "containerd-shim-cofferdam-hardened-v1";
    let s = Shim::start_with(3, shim, &[("COFFERDAM_SABOTAGE", what)]);
    let mut spec = s.spec("box", &["sleep", "1000"]);
    spec["root"]["readonly"] = json!(true);
    let mut request = s.create_request("box", &spec, Streams::default());
    request.rootfs[0].options = vec!["rbind".into()];
    s.call::<CreateTaskResponse>("Create", &request).unwrap();
    s.start_process("box", "").unwrap();
    let found = missing(&s);
    let kernel = |m: &&String| !m.starts_with("kernel: ");
    let found: Vec<&String> = found.iter().filter(kernel).collect();
    for one in expected {
        assert!(
            found.iter().any(|f| f == one),
            "{what}: {one} is not in {found:?}"
        );
    }
    let section = expected[0].split(':').next().unwrap();
    for one in &found {
        assert!(one.starts_with(section), "{what}: {one}");
    }
    let text = explain(&[&of(&s)]);
    assert!(
        text.status == 1 && text.stdout.contains("MISSING"),
        "{text:?}"
    );
    s.finish("box");
    s.end();
}

/// Root on the node takes away what was there at first.
fn changed_behind_our_back() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-hardened-v1");
    sleeper(&s, |_| {});
    assert!(missing(&s).iter().all(|m| m.starts_with("kernel: ")));
    for hierarchy in leftovers::hierarchies() {
        let file = hierarchy
            .join(s.group("box").trim_start_matches('/'))
            .join("pids.max");
        if file.exists() {
            fs::write(file, "max").unwrap();
        }
    }
    let pid = s.state("box", "").unwrap().pid.to_string();
    let unmounted = Command::new("nsenter")
        .args(["-t", &pid, "-m", "umount", "/proc/keys"])
        .status();
    assert!(unmounted.unwrap().success());
    let found = missing(&s);
    for one in ["limits: pids.max", "files: /proc/keys"] {
        assert!(found.iter().any(|f| f == one), "{one} is not in {found:?}");
    }
    // What an update changed is no broken promise.
    s.update("box", &json!({ "pids": { "limit": 77 } }))
        .unwrap();
    let found = missing(&s);
    assert!(!found.iter().any(|f| f == "limits: pids.max"), "{found:?}");
    s.finish("box");
    s.end();
}

/// A process that somebody put into the container, past the shim.
fn execs() {
    let s = Shim::start_as(3, "containerd-shim-cofferdam-hardened-v1");
    sleeper(&s, |_| {});
    s.exec("box", "good", &["sleep", "1000"]).unwrap();
    s.start_process("box", "good").unwrap();
    assert!(missing(&s).iter().all(|m| m.starts_with("kernel: ")));
    let mut stray = Command::new("sleep").arg("1000").spawn().unwrap();
    for hierarchy in leftovers::hierarchies() {
        let group = hierarchy.join(s.group("box").trim_start_matches('/'));
        fs::write(group.join("cgroup.procs"), stray.id().to_string()).ok();
    }
    let found = missing(&s);
    let name = format!("other processes: {} (sleep): seccomp", stray.id());
    assert!(found.contains(&name), "{found:?}");
    stray.kill().unwrap();
    stray.wait().unwrap();
    s.finish("box");
    s.end();
}

fn names() {
    let out = explain(&["nothing-of-this-name"]);
    assert!(
        out.status == 2
            && out
                .stderr
                .contains("no pod or container \"nothing-of-this-name\""),
        "{out:?}"
    );
    let s = Shim::start(3);
    // Nothing was asked of it yet: it may still be on its way.
    wait_until("the shim has its socket", Duration::from_secs(5), || {
        let pid = s.pid().map(|pid| pid as u32);
        pid.is_some_and(|pid| cofferdam::control::socket_of(pid).exists())
    });
    let out = explain(&[&of(&s)]);
    assert!(
        out.status == 2 && out.stderr.contains("has no containers"),
        "{out:?}"
    );
    let id = format!("explain-{}", std::process::id());
    for id in [format!("{id}-a"), format!("{id}-b")] {
        s.run(&id, &["sleep", "1000"]);
    }
    let out = explain(&[&format!("{id}-a")]).ok().stdout;
    assert!(
        out.contains("-a  profile") && !out.contains("-b  profile"),
        "{out}"
    );
    let out = explain(&[&of(&s)]).ok().stdout;
    assert!(
        out.contains("-a  profile") && out.contains("-b  profile"),
        "{out}"
    );
    let out = explain(&[&id]);
    let both = format!("could be pod/{id}-a ({id}-a), pod/{id}-b ({id}-b): give more");
    assert!(out.status == 2 && out.stderr.contains(&both), "{out:?}");
    let (all, _) = lines(&s);
    assert_eq!(mark(&all, "namespaces", "pid"), "kept");
    s.kill(&format!("{id}-a"), "", 9, true).unwrap();
    s.wait(&format!("{id}-a"), "").unwrap();
    let out = explain(&[&format!("{id}-a")]);
    assert!(
        out.status == 2 && out.stderr.contains("is stopped"),
        "{out:?}"
    );
    s.delete(&format!("{id}-a"), "").unwrap();
    s.finish(&format!("{id}-b"));
    s.end();
}

fn silent_shim() {
    let s = Shim::start(3);
    sleeper(&s, |_| {});
    let pid = s.pid().unwrap();
    let signal = |signal| {
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
    };
    signal(nix::sys::signal::Signal::SIGSTOP);
    let began = Instant::now();
    let out = Output::of(Command::new(program()).args(["top", "--json"]));
    let took = began.elapsed();
    signal(nix::sys::signal::Signal::SIGCONT);
    assert!(took < Duration::from_millis(1500), "{took:?}");
    let all: Value = serde_json::from_str(&out.ok().stdout).unwrap();
    let me = all["errors"]
        .as_array()
        .unwrap()
        .iter()
        .find(|e| e["shim"] == pid)
        .unwrap();
    assert!(
        me["message"]
            .as_str()
            .unwrap()
            .contains("does not answer within 900 ms"),
        "{me}"
    );
    s.finish("box");
    s.end();
}

/// The socket is root's alone, goes with the shim, and is cleaned away where the shim was killed.
fn sockets() {
    use std::os::unix::fs::PermissionsExt;
    let s = Shim::start(3);
    sleeper(&s, |_| {});
    let pid = s.pid().unwrap();
    let socket = cofferdam::control::socket_of(pid as u32);
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        (mode(&socket), mode(socket.parent().unwrap())),
        (0o600, 0o700)
    );
    kill(pid);
    // Its arguments go before its files do.
    wait_until("the shim is gone", Duration::from_secs(5), || {
        !is_alive(pid)
    });
    // Whoever looks first cleans up: another case's `top` may have done it by now.
    Output::of(Command::new(program()).args(["top", "--json"])).ok();
    assert!(!socket.exists(), "the socket of a dead shim");
}
