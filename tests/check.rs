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
