//! Hooks are other people's programs: what they write, how they fail, where they run.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::{Value, json};

use super::situations;
use super::subject::Subject;

situations! {
    a_hook_that_writes_much, ALL, "crun#353, containerd#3883", "createRuntime: 0 poststart: 0 poststop ran";
    a_hook_that_does_not_read, ALL, "crun#353", "0";
    a_hook_that_hangs_with_children, ALL, "runtime-spec 1.3", "did not finish within 1 s; 0 left";
    a_hook_that_leaves_a_child, ALL, "crun#353", "0";
    hooks_that_fail, ALL, "runc hooks.bats", "prestart 1 createRuntime 1 createContainer 1 startContainer 1 poststart 1";
    what_a_failed_hook_said, ALL, "runc hooks.bats", "createRuntime said bytes: said \u{fffd}\nstartContainer said bytes: said \u{fffd}";
    poststart_that_fails_stops_the_container, ALL, "crun#2047, runc#5186", "refused: stopped";
    all_poststop_hooks_run, ALL, "runtime-spec 1.3", "first second";
    poststop_after_a_failed_creation, ALL, "runtime-spec 1.3", "ran";
    environment_of_hooks, ALL, "runc hooks.bats", "runtime: 0 container: A=1,HOME=/root";
    directories_of_hooks, ALL, "runc hooks.bats", "bundle bundle root bundle bundle";
    states_that_hooks_see, ALL, "runtime-spec 1.3", "prestart creating createRuntime creating createContainer creating poststart running poststop stopped";
    hooks_that_were_changed_after_create, LINE, "runtime-spec#384", "as created";
    a_bundle_that_is_gone, LINE, "runtime-spec#384", "exec 0 poststop ran";
}

const KINDS: [&str; 5] = [
    "prestart",
    "createRuntime",
    "createContainer",
    "startContainer",
    "poststart",
];

/// A hook that is a shell script, of the node or of the container.
fn hook(kind: &str, script: &str) -> Value {
    let path = if kind == "startContainer" {
        "PATH=/bin"
    } else {
        "PATH=/usr/bin:/bin"
    };
    json!([{ "path": "/bin/sh", "args": ["sh", "-c", script], "env": [path] }])
}

fn log(s: &Subject) -> String {
    let log = s.dir.join("log");
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    log.display().to_string()
}

fn read(log: &str) -> String {
    fs::read_to_string(log).unwrap().trim().replace('\n', " ")
}

fn a_hook_that_writes_much(s: &mut Subject) -> String {
    let log = log(s);
    let much = "i=0; while [ $i -lt 4000 ]; do echo 0123456789012345678901234567890123456789012345678901234567890123456789; echo more >&2; i=$((i+1)); done";
    let mut seen = Vec::new();
    for kind in ["createRuntime", "poststart"] {
        s.set("/hooks", json!({ kind: hook(kind, much) }));
        let out = s.run();
        assert!(out.stdout.is_empty(), "{out:?}");
        seen.push(format!("{kind}: {}", out.status));
    }
    s.set(
        "/hooks",
        json!({ "poststop": hook("poststop", &format!("{much}; echo ran > {log}")) }),
    );
    s.run().ok();
    format!("{} poststop {}", seen.join(" "), read(&log))
}

fn a_hook_that_does_not_read(s: &mut Subject) -> String {
    s.set("/annotations/big", json!("x".repeat(3 << 20)));
    s.set("/hooks", json!({ "createRuntime": [{ "path": "/bin/true" }], "poststop": [{ "path": "/bin/true" }] }));
    s.run().status.to_string()
}

fn a_hook_that_hangs_with_children(s: &mut Subject) -> String {
    let mark = format!("{}.271828", std::process::id());
    let script = format!("yes >&2 & sleep {mark} & wait");
    s.set(
        "/hooks",
        json!({ "createRuntime": hook("createRuntime", &script) }),
    );
    s.set("/hooks/createRuntime/0/timeout", json!(1));
    let out = s.run();
    let late = out.stderr.contains("did not finish within 1 s");
    let left = || {
        let all = crate::support::processes();
        all.iter().filter(|(_, args)| args.contains(&mark)).count()
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(2);
    while left() > 0 && std::time::Instant::now() < end {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let told = if late {
        "did not finish within 1 s"
    } else {
        out.stderr.as_str()
    };
    format!("{told}; {} left", left())
}

fn a_hook_that_leaves_a_child(s: &mut Subject) -> String {
    // It holds the hook's standard error for longer than anybody waits.
    s.set(
        "/hooks",
        json!({ "createRuntime": hook("createRuntime", "sleep 8 & exit 0") }),
    );
    let began = std::time::Instant::now();
    let status = s.run().status;
    assert!(began.elapsed().as_secs() < 6 * u64::from(crate::support::slowness()));
    status.to_string()
}

fn hooks_that_fail(s: &mut Subject) -> String {
    s.script("echo ran");
    let one = |kind: &str| {
        s.set(
            "/hooks",
            json!({ kind: [{ "path": "/bin/true" }, { "path": "/bin/false" }] }),
        );
        let out = s.run();
        let text = format!("error running {kind} hook #1: ");
        format!(
            "{kind} {}",
            i32::from(out.status != 0 && out.stderr.contains(&text))
        )
    };
    KINDS.map(one).join(" ")
}

fn what_a_failed_hook_said(s: &mut Subject) -> String {
    let one = |kind: &str| {
        s.set(
            "/hooks",
            json!({ kind: hook(kind, "printf 'bytes: said \\377' >&2; exit 3") }),
        );
        let out = s.run();
        let said = out
            .stderr
            .rsplit_once("bytes: ")
            .map_or(out.stderr.as_str(), |(_, said)| said);
        format!("{kind} said bytes: {}", said.trim())
    };
    ["createRuntime", "startContainer"].map(one).join("\n")
}

fn poststart_that_fails_stops_the_container(s: &mut Subject) -> String {
    s.set("/process/args", json!(["sleep", "1000"]));
    s.set("/hooks", json!({ "poststart": [{ "path": "/bin/false" }] }));
    s.create().ok();
    let started = s.start();
    let refused = if started.status == 0 {
        "started"
    } else {
        "refused"
    };
    format!("{refused}: {}", s.status())
}

fn all_poststop_hooks_run(s: &mut Subject) -> String {
    let log = log(s);
    let first = format!("echo first >> {log}; exit 1");
    let second = format!("echo second >> {log}");
    let hooks = [hook("poststop", &first), hook("poststop", &second)];
    s.set("/hooks", json!({ "poststop": [hooks[0][0], hooks[1][0]] }));
    s.run().ok();
    read(&log)
}

fn poststop_after_a_failed_creation(s: &mut Subject) -> String {
    let log = log(s);
    let stop = hook("poststop", &format!("echo ran >> {log}"));
    s.set(
        "/hooks",
        json!({ "createRuntime": [{ "path": "/bin/false" }], "poststop": stop }),
    );
    assert_ne!(s.run().status, 0);
    read(&log)
}

fn environment_of_hooks(s: &mut Subject) -> String {
    let log = log(s);
    s.environment.push(("OF_THE_CALLER".into(), "1".into()));
    s.set("/process/env", json!(["PATH=/bin", "A=1"]));
    s.file("/out/env", "");
    let node = format!("env | grep -c OF_THE_CALLER > {log}; true");
    s.set("/hooks", json!({
        "createRuntime": [{ "path": "/bin/sh", "args": ["sh", "-c", node] }],
        "startContainer": [{ "path": "/bin/sh", "args": ["sh", "-c", "echo A=$A,HOME=$HOME > /out/env"] }]
    }));
    s.run().ok();
    let inside = fs::read_to_string(s.rootfs().join("out/env")).unwrap();
    format!("runtime: {} container: {}", read(&log), inside.trim())
}

fn directories_of_hooks(s: &mut Subject) -> String {
    let log = log(s);
    // The root is known by a file, wherever its mounts are.
    s.file("/is-root", "");
    let script = format!("if [ -e is-root ]; then echo root; else pwd; fi >> {log}");
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let hooks: serde_json::Map<_, _> = kinds
        .into_iter()
        .map(|kind| (kind.to_owned(), hook(kind, &script)))
        .collect();
    s.set("/hooks", Value::Object(hooks));
    s.run().ok();
    let bundle = fs::canonicalize(&s.dir).unwrap();
    read(&log).replace(bundle.to_str().unwrap(), "bundle")
}

fn states_that_hooks_see(s: &mut Subject) -> String {
    let log = log(s);
    let kinds = [
        "prestart",
        "createRuntime",
        "createContainer",
        "poststart",
        "poststop",
    ];
    let one = |kind: &str| {
        let script =
            format!("echo {kind} $(sed 's/.*\"status\":\"\\([a-z]*\\)\".*/\\1/') >> {log}");
        (kind.to_owned(), hook(kind, &script))
    };
    s.set(
        "/hooks",
        Value::Object(kinds.into_iter().map(one).collect()),
    );
    s.run().ok();
    read(&log)
}

fn hooks_that_were_changed_after_create(s: &mut Subject) -> String {
    let log = log(s);
    s.set("/process/args", json!(["sleep", "1000"]));
    s.set(
        "/hooks",
        json!({ "poststop": hook("poststop", &format!("echo as created >> {log}")) }),
    );
    s.create().ok();
    s.set(
        "/hooks",
        json!({
            "poststart": hook("poststart", &format!("echo poststart of a stranger >> {log}")),
            "poststop": hook("poststop", &format!("echo poststop of a stranger >> {log}"))
        }),
    );
    s.write_spec();
    s.start().ok();
    s.kill();
    s.delete().ok();
    read(&log)
}

fn a_bundle_that_is_gone(s: &mut Subject) -> String {
    let log = std::env::temp_dir().join(format!("{}.log", s.id));
    fs::write(&log, "").unwrap();
    fs::set_permissions(&log, fs::Permissions::from_mode(0o666)).unwrap();
    let path = log.display();
    s.set(
        "/hooks",
        json!({ "poststop": hook("poststop", &format!("echo ran >> {path}")) }),
    );
    s.launch();
    fs::remove_file(s.dir.join("config.json")).unwrap();
    let status = s.exec_script("true").status;
    s.kill();
    s.delete().ok();
    let ran = fs::read_to_string(&log).unwrap();
    fs::remove_file(&log).ok();
    format!("exec {status} poststop {}", ran.trim())
}
