//! `cofferdam check` and `cofferdam profile diff`: what is wrong is found, and the remedy named.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::place::program;
use crate::support::{Daemon, Output, shim_directory};

/// The cases of this file.
pub fn cases() -> Vec<crate::Case> {
    use crate::Case;
    vec![
        Case::cri("check::a_daemon_that_is_right", a_daemon_that_is_right),
        Case::cri("check::mistakes", mistakes),
        Case::cri("check::handlers", handlers),
        Case::plain("check::profile_diff", profile_diff),
    ]
}

/// One containerd's setup.
struct Node<'a> {
    daemon: &'a Daemon,
    /// Where shims are found.
    path: PathBuf,
    config: PathBuf,
}

impl<'a> Node<'a> {
    fn of(daemon: &'a Daemon) -> Self {
        Self {
            daemon,
            path: shim_directory().into(),
            config: daemon.dir().join("config.toml"),
        }
    }

    fn check(&self, args: &[&str]) -> (i32, Vec<Value>) {
        let (_, programs) = self.daemon.programs();
        let out = Output::of(
            Command::new(program())
                .args(["check", "--json", "--containerd"])
                .arg(programs.join("containerd"))
                .arg("--config")
                .arg(&self.config)
                .args(args)
                .env("PATH", format!("{}:/usr/bin:/bin", self.path.display())),
        );
        let all: Value =
            serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        (out.status, all["findings"].as_array().unwrap().clone())
    }
}

#[track_caller]
fn find<'a>(findings: &'a [Value], area: &str, what: &str) -> &'a Value {
    let found = findings
        .iter()
        .find(|f| f["area"] == area && f["what"] == what);
    found.unwrap_or_else(|| panic!("no {area}: {what} in {findings:#?}"))
}

fn a_daemon_that_is_right(d: &mut Daemon) {
    let node = Node::of(d);
    let (status, findings) = node.check(&[]);
    // What this very kernel lacks is degraded, and so is what is not found of the running daemon; nothing fails.
    assert_ne!(status, 1, "{findings:#?}");
    for handler in ["cofferdam", "cofferdam-hardened", "cofferdam-untrusted"] {
        let found = find(&findings, "containerd", &format!("handler {handler}"));
        assert_eq!(found["state"], "ok", "{found}");
    }
    for profile in ["standard", "hardened", "untrusted"] {
        let area = format!("profile {profile}");
        assert!(
            findings.iter().any(|f| f["area"] == area.as_str()),
            "{area}"
        );
    }
    let can = find(&findings, "profile untrusted", "user namespace");
    assert_eq!(can["state"], "ok", "{can}");
    for f in &findings {
        let is_fine = f["state"] == "ok" || f["state"] == "not-here";
        assert_eq!(is_fine, f["remedy"] == "", "{f}");
    }
    // Only what was asked for.
    let (_, findings) = node.check(&["standard"]);
    assert!(!findings.iter().any(|f| f["area"] == "profile hardened"));
    let (status, findings) = node.check(&["no-such-profile"]);
    let found = find(&findings, "profile no-such-profile", "profile");
    assert!(status == 1 && found["state"] == "failing", "{found}");
}

fn mistakes(d: &mut Daemon) {
    let mut node = Node::of(d);
    let right = fs::read_to_string(&node.config).unwrap();
    node.config = d.dir().join("wrong.toml");
    let empty = d.dir().join("empty-path");
    fs::create_dir_all(&empty).unwrap();
    let case = |node: &Node<'_>, text: &str, what: &str, expected: [&str; 3]| {
        fs::write(&node.config, text).unwrap();
        let (status, findings) = node.check(&["standard"]);
        let [state, found, remedy] = expected;
        let one = find(&findings, "containerd", what);
        assert!(
            one["state"] == state
                && one["found"].as_str().unwrap().contains(found)
                && one["remedy"].as_str().unwrap().contains(remedy),
            "{expected:?}: {one}"
        );
        assert_eq!(
            status,
            if state == "failing" { 1 } else { 3 },
            "{findings:#?}"
        );
    };
    let bare = "version = 2\n";
    case(
        &node,
        bare,
        "handlers",
        [
            "failing",
            "is Cofferdam's",
            "shim-config/containerd-2.x.toml",
        ],
    );
    if d.release.name() == "containerd_2" {
        let nowhere = right.replace("imports = [", "imports = [\"/nowhere/cofferdam.toml\", ");
        case(
            &node,
            &nowhere,
            "imports",
            ["degraded", "/nowhere/cofferdam.toml", "imports"],
        );
    }
    case(
        &node,
        "version = \"x\"",
        "configuration",
        ["failing", "", "mend"],
    );
    node.path = empty.clone();
    case(
        &node,
        &right,
        "handler cofferdam",
        ["failing", "no containerd-shim-cofferdam-v1", "make install"],
    );
    // Another version's binary.
    let old = empty.join("containerd-shim-cofferdam-v1");
    fs::write(
        &old,
        "#!/bin/sh\nprintf 'x:\\n  Version: 0.0.1\\n  Profile: standard\\n'\n",
    )
    .unwrap();
    let mut mode = fs::metadata(&old).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut mode, 0o755);
    fs::set_permissions(&old, mode).unwrap();
    for class in ["hardened", "untrusted"] {
        let name = format!("containerd-shim-cofferdam-{class}-v1");
        symlink(shim_directory().join(&name), empty.join(&name)).unwrap();
    }
    case(
        &node,
        &right,
        "handler cofferdam",
        ["degraded", "version \"0.0.1\"", "one build"],
    );
    // No containerd at all.
    let out = Output::of(Command::new(program()).args([
        "check",
        "--json",
        "--containerd",
        "/nowhere/containerd",
        "standard",
    ]));
    assert!(
        out.status == 1 && out.stdout.contains("--containerd PATH"),
        "{out:?}"
    );
}

/// What people write into a handler, and what becomes of its pods.
fn handlers(d: &mut Daemon) {
    let mut node = Node::of(d);
    let right = fs::read_to_string(&node.config).unwrap();
    node.config = d.dir().join("handlers.toml");
    let plugin = match d.release.name() {
        "containerd_2" => "io.containerd.cri.v1.runtime",
        _ => "io.containerd.grpc.v1.cri",
    };
    let open = d.dir().join("open.toml");
    fs::write(&open, "extends = \"untrusted\"\n").unwrap();
    let mode = |file: &Path, mode: u32| {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
        fs::set_permissions(file, mode).unwrap();
    };
    mode(&open, 0o666);
    // A shim that anybody can replace.
    let shims = d.dir().join("shims");
    fs::create_dir_all(&shims).unwrap();
    for class in ["", "-hardened", "-untrusted"] {
        let name = format!("containerd-shim-cofferdam{class}-v1");
        symlink(shim_directory().join(&name), shims.join(&name)).unwrap();
    }
    let writable = shims.join("containerd-shim-cofferdam-open-v1");
    fs::write(
        &writable,
        "#!/bin/sh\nprintf 'x:\\n  Version: 0.1.0\\n  Profile: standard\\n'\n",
    )
    .unwrap();
    mode(&writable, 0o777);
    node.path = shims;
    let ours = "runtime_type = \"io.containerd.cofferdam.v1\"";
    let cases = [
        (
            ours,
            "extends = \"untrusted\"",
            "ok",
            "of its options (extends untrusted)",
            "",
        ),
        (ours, "SystemdCgroup = true", "ok", "profile standard", ""),
        (
            ours,
            "extends = \"untrusted\"\nnosuch = 1",
            "failing",
            "unknown field `nosuch`",
            "docs/profiles.md",
        ),
        (
            ours,
            "extends = \"hardned\"",
            "failing",
            "no built-in profile",
            "docs/profiles.md",
        ),
        (
            "runtime_typ = \"io.containerd.cofferdam.v1\"",
            "",
            "failing",
            "no runtime_type",
            "write runtime_type",
        ),
        (
            "runtime_type = \"io.containerd.cofferdam-hardend.v1\"",
            "",
            "failing",
            "no containerd-shim-cofferdam-hardend-v1",
            "cofferdam-hardened.v1",
        ),
        (
            "runtime_type = \"io.containerd.cofferdam-mine.v1\"",
            "",
            "failing",
            "no containerd-shim-cofferdam-mine-v1",
            "cofferdam profile new mine",
        ),
        (
            "runtime_type = \"io.containerd.cofferdam-open.v1\"",
            "",
            "failing",
            "can be changed by others than root",
            "chown root",
        ),
    ];
    for (runtime, options, state, found, remedy) in cases {
        let table = format!("plugins.{plugin:?}.containerd.runtimes.odd");
        let options = match options {
            "" => String::new(),
            options => format!("[{table}.options]\n{options}\n"),
        };
        let text = format!("{right}\n[{table}]\n{runtime}\n{options}");
        fs::write(&node.config, text).unwrap();
        let (status, findings) = node.check(&["standard"]);
        let has = |f: &&Value, key: &str, part: &str| f[key].as_str().unwrap().contains(part);
        let mut of = findings.iter().filter(|f| f["what"] == "handler odd");
        let told =
            of.any(|f| f["state"] == state && has(&f, "found", found) && has(&f, "remedy", remedy));
        assert!(
            told,
            "{runtime}, {options}: {found:?} is not in {findings:#?}"
        );
        assert_eq!(status == 1, state == "failing", "{runtime}, {options}");
    }
    // The file of a class that others can write.
    let class = d
        .dir()
        .join(format!("{}.toml", crate::support::daemon::CLASS));
    for (file_mode, state) in [(0o666, "failing"), (0o644, "ok")] {
        fs::copy(&open, &class).unwrap();
        mode(&class, file_mode);
        fs::write(&node.config, &right).unwrap();
        let (_, findings) = node.check(&["standard"]);
        let found = find(&findings, "containerd", "handler class");
        assert_eq!(found["state"], state, "{found}");
    }
}

fn diff(args: &[&str]) -> Output {
    Output::of(Command::new(program()).args(["profile", "diff"]).args(args))
}

fn profile_diff() {
    let out = diff(&["hardened", "untrusted"]);
    assert!(
        out.status == 1
            && out
                .stdout
                .contains("user_namespace.mode\n  - \"pod\"\n  + \"auto\"\n")
            && out
                .stdout
                .contains("process.capabilities\n  - [\"CAP_SETPCAP\"]\n"),
        "{out:?}"
    );
    let out = diff(&["hardened", "hardened"]);
    assert!(out.status == 0 && out.stdout.is_empty(), "{out:?}");
    // A spec, before and after.
    let dir = std::env::temp_dir().join(format!("cofferdam-diff-{}", std::process::id()));
    fs::create_dir_all(&dir).unwrap();
    let seed = include_str!("../fuzz/seeds/spec/containerd.json");
    let mut seed: Value = serde_json::from_str(seed).unwrap();
    seed["linux"]["devices"] = Value::Array(Vec::new());
    seed["root"]["path"] = "rootfs".into();
    fs::write(dir.join("config.json"), seed.to_string()).unwrap();
    let out = diff(&[
        "hardened",
        "--spec",
        dir.join("config.json").to_str().unwrap(),
    ]);
    assert!(
        out.status == 2
            && out
                .stderr
                .contains("refuses the hostPath volume /tmp at /volume"),
        "{out:?}"
    );
    seed["hooks"] = Value::Null;
    let mounts = seed["mounts"].as_array_mut().unwrap();
    mounts.retain(|m| m["type"] != "bind");
    fs::write(dir.join("config.json"), seed.to_string()).unwrap();
    let spec =
        |profile: &str, path: &Path| diff(&["--json", profile, "--spec", path.to_str().unwrap()]);
    let file = dir.join("config.json");
    let out = spec("hardened", &file);
    let all: Value = serde_json::from_str(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
    let changed = |key: &str| {
        all["changes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|c| c["key"] == key)
            .cloned()
    };
    let limits = changed("process.rlimits").unwrap();
    assert!(
        limits["after"].to_string().contains("RLIMIT_CORE"),
        "{all:#}"
    );
    assert!(changed("linux.maskedPaths").is_some() && changed("process.noNewPrivileges").is_none());
    assert_eq!(spec("standard", &file).status, 0);
    let out = spec("hardened", &dir.join("other.json"));
    assert!(
        out.status == 2 && out.stderr.contains("config.json of a bundle"),
        "{out:?}"
    );
    fs::remove_dir_all(dir).unwrap();
}
